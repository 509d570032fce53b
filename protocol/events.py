"""Events: what a journal says, as rows of a frame's event table (msgpack arrays, docs/journal-format.md).

Data rows, by the million, stay plain tuples:

    (WRITE, volume, first block, blocks)    payload: blocks × 4,096 bytes, in row order
    (ZERO, volume, first block, blocks)     reads as zeroes from here on
    (TRIM, volume, first block, blocks)     the same, and the host said it no longer cares

Everything else is a small frozen class with `to_row`, read back by `record_from_row`. A volume is named by
its id, the position of its `VolumeCreated`. Numbers that are not in `EventKind` are refused, never skipped: a
reader that does not know an event cannot know what the volume holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from protocol.errors import RemoteProtocolError
from protocol.positions import Cut

Row = tuple[Any, ...]
DataRow = tuple[int, int, int, int]


class EventKind(IntEnum):
    """First element of a row. Numbers are never used again for something else."""

    WRITE = 1
    ZERO = 2
    TRIM = 3
    TIMELINE_BEGAN = 16
    VOLUME_CREATED = 17
    VOLUME_DELETED = 18
    MARK = 20
    REVERT = 21
    HAND_OVER = 22
    STRICT_MODE = 23
    COPY_PINNED = 24
    COPY_DELETED = 25
    POLICY_SET = 26
    REWRITE_BEGAN = 27
    REWRITE_ENDED = 28


WRITE, ZERO, TRIM = 1, 2, 3
LAST_DATA_KIND = 15


class Consistency(IntEnum):
    """What a copy's cut means to the software above the volume."""

    CRASH = 0
    APPLICATION = 1


_CONSISTENCIES = frozenset(map(int, Consistency))


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineBegan:
    """First event of a timeline: where it left its parent (0: none) and which site writes it. `sealed`: the
    writer knew that the parent ends there at every site."""

    parent: int
    fork: int
    generation: int
    writer: str
    group: str
    sealed: bool

    def to_row(self) -> Row:
        """See the module's docstring."""
        kind = EventKind.TIMELINE_BEGAN
        return (int(kind), self.parent, self.fork, self.generation, self.writer, self.group, self.sealed)


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeCreated:
    """A volume of `size_bytes` begins; its id is this event's position."""

    name: str
    size_bytes: int

    def to_row(self) -> Row:
        """See the module's docstring."""
        return (int(EventKind.VOLUME_CREATED), self.name, self.size_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeDeleted:
    """The volume with this id is gone from here on; earlier cuts still show it."""

    volume: int

    def to_row(self) -> Row:
        """See the module's docstring."""
        return (int(EventKind.VOLUME_DELETED), self.volume)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A backup. `cut` is None where the cut is this event's own frame, else an earlier retained one."""

    copy_id: int
    label: str
    cut: Cut | None
    volumes: tuple[int, ...]
    consistency: Consistency
    pinned: bool

    def to_row(self) -> Row:
        """See the module's docstring."""
        timeline, position = (self.cut.timeline, self.cut.position) if self.cut else (0, 0)
        kind = int(EventKind.MARK)
        volumes, flags = self.volumes, int(self.consistency)
        return (kind, self.copy_id, self.label, timeline, position, volumes, flags, self.pinned)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revert:
    """From here on the volume is what it was at `cut`, plus what is written after."""

    volume: int
    cut: Cut

    def to_row(self) -> Row:
        """See the module's docstring."""
        return (int(EventKind.REVERT), self.volume, self.cut.timeline, self.cut.position)


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver:
    """The last event of its timeline: from here on the site with the id `to` writes, and nobody else."""

    to: str

    def to_row(self) -> Row:
        """See the module's docstring."""
        return (int(EventKind.HAND_OVER), self.to)


@dataclass(frozen=True, slots=True, kw_only=True)
class StrictMode:
    """From here on no write is acknowledged before the peer has it (`on`), or that ends."""

    on: bool

    def to_row(self) -> Row:
        """See the module's docstring."""
        return (int(EventKind.STRICT_MODE), self.on)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteBegan:
    """From here on the volume is on its way to what it was at `cut`, by writes; until `RewriteEnded`, or a
    `Revert`, it is neither that nor what it was at `before`, and no host may see it."""

    volume: int
    cut: Cut
    before: Cut

    def to_row(self) -> Row:
        """See the module's docstring."""
        cuts = (self.cut.timeline, self.cut.position, self.before.timeline, self.before.position)
        return (int(EventKind.REWRITE_BEGAN), self.volume, *cuts)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteEnded:
    """The volume is what it was to become."""

    volume: int

    def to_row(self) -> Row:
        """See the module's docstring."""
        return (int(EventKind.REWRITE_ENDED), self.volume)


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyPinned:
    """From here on the backup with this id is pinned: neither deleted nor pruned; or no longer."""

    copy_id: int
    pinned: bool

    def to_row(self) -> Row:
        """See the module's docstring."""
        return (int(EventKind.COPY_PINNED), self.copy_id, self.pinned)


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyDeleted:
    """The backup with this id is gone from here on, and no longer keeps its cut readable."""

    copy_id: int

    def to_row(self) -> Row:
        """See the module's docstring."""
        return (int(EventKind.COPY_DELETED), self.copy_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """When the group is backed up from here on, which backups stay, and how far back any moment can be read.

    `every_s` and `at_minute` (of the UTC day) say when: at most one of them, 0 and -1 mean not so. `keep` are
    counts: last, hourly, daily, weekly, monthly, yearly. `window_s` -1 and `window_bytes` 0: as each site's
    config says. `freeze` names a hook, or none."""

    every_s: int
    at_minute: int
    keep: tuple[int, int, int, int, int, int]
    window_s: int
    window_bytes: int
    freeze: str

    def to_row(self) -> Row:
        """See the module's docstring."""
        kind = int(EventKind.POLICY_SET)
        return (
            kind,
            self.every_s,
            self.at_minute,
            self.keep,
            self.window_s,
            self.window_bytes,
            self.freeze,
        )


NO_POLICY = PolicySet(
    every_s=0, at_minute=-1, keep=(0, 0, 0, 0, 0, 0), window_s=-1, window_bytes=0, freeze=""
)

Record = (
    TimelineBegan
    | VolumeCreated
    | VolumeDeleted
    | Mark
    | Revert
    | HandOver
    | StrictMode
    | CopyPinned
    | CopyDeleted
    | PolicySet
    | RewriteBegan
    | RewriteEnded
)


def _fields(row: Row, *types: type) -> tuple[Any, ...]:
    """The row's fields after its kind, each exactly of the type given."""
    if len(row) != len(types) + 1 or any(type(v) is not t for v, t in zip(row[1:], types, strict=True)):
        raise RemoteProtocolError(f"event row of kind {row[0]!r} has the wrong fields")
    return row[1:]


def record_from_row(row: Row) -> Record:
    """The record that a non-data row says; RemoteProtocolError if it is malformed or unknown."""
    match row[0]:
        case EventKind.TIMELINE_BEGAN:
            parent, fork, generation, writer, group, sealed = _fields(row, int, int, int, str, str, bool)
            return TimelineBegan(
                parent=parent,
                fork=fork,
                generation=generation,
                writer=writer,
                group=group,
                sealed=sealed,
            )
        case EventKind.VOLUME_CREATED:
            name, size_bytes = _fields(row, str, int)
            return VolumeCreated(name=name, size_bytes=size_bytes)
        case EventKind.VOLUME_DELETED:
            (volume,) = _fields(row, int)
            return VolumeDeleted(volume=volume)
        case EventKind.MARK:
            return _mark_from_row(row)
        case EventKind.REVERT:
            volume, timeline, position = _fields(row, int, int, int)
            return Revert(volume=volume, cut=Cut(timeline, position))
        case EventKind.HAND_OVER:
            (to,) = _fields(row, str)
            return HandOver(to=to)
        case EventKind.STRICT_MODE:
            (on,) = _fields(row, bool)
            return StrictMode(on=on)
        case EventKind.COPY_PINNED:
            copy_id, pinned = _fields(row, int, bool)
            return CopyPinned(copy_id=copy_id, pinned=pinned)
        case EventKind.COPY_DELETED:
            (copy_id,) = _fields(row, int)
            return CopyDeleted(copy_id=copy_id)
        case EventKind.POLICY_SET:
            return _policy_from_row(row)
        case EventKind.REWRITE_BEGAN:
            volume, timeline, position, *before = _fields(row, int, int, int, int, int)
            return RewriteBegan(volume=volume, cut=Cut(timeline, position), before=Cut(*before))
        case EventKind.REWRITE_ENDED:
            (volume,) = _fields(row, int)
            return RewriteEnded(volume=volume)
        case kind:
            raise RemoteProtocolError(f"event kind {kind!r} is not known to this version")


def _mark_from_row(row: Row) -> Mark:
    copy_id, label, timeline, position, volumes, consistency, pinned = _fields(
        row, int, str, int, int, tuple, int, bool
    )
    if any(type(v) is not int for v in volumes):
        raise RemoteProtocolError("a mark names its volumes by number")
    if consistency not in _CONSISTENCIES:
        raise RemoteProtocolError(f"consistency {consistency} is not known to this version")
    return Mark(
        copy_id=copy_id,
        label=label,
        cut=Cut(timeline, position) if timeline else None,
        volumes=volumes,
        consistency=Consistency(consistency),
        pinned=pinned,
    )


def _policy_from_row(row: Row) -> PolicySet:
    every_s, at_minute, keep, window_s, window_bytes, freeze = _fields(row, int, int, tuple, int, int, str)
    if len(keep) != len(NO_POLICY.keep) or any(type(v) is not int or v < 0 for v in keep):
        raise RemoteProtocolError("a policy has six counts of backups to keep")
    if min(every_s, at_minute + 1, window_s + 1, window_bytes) < 0:
        raise RemoteProtocolError("a policy's spans and sizes are not negative")
    return PolicySet(
        every_s=every_s,
        at_minute=at_minute,
        keep=keep,
        window_s=window_s,
        window_bytes=window_bytes,
        freeze=freeze,
    )
