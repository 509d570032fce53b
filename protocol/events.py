"""Events: what a journal says, as rows of a frame's event table (msgpack arrays, docs/journal-format.md).

Data rows, by the million, stay plain tuples:

    (WRITE, volume, first block, blocks)    payload: blocks × 4,096 bytes, in row order
    (ZERO, volume, first block, blocks)     reads as zeroes from here on
    (TRIM, volume, first block, blocks)     the same, and the host said it no longer cares

Everything else is a small frozen class with `to_row`, read back by `record_from_row`; its fields' types say
what they may hold (protocol.bounds). The union `Record` is the registry of these classes: the decoder, the
tables that apply and forget records (engine.group.record_tables) and docs/journal-format.md follow it. The
first paragraph of a class's docstring is its text in that page.

A volume is named by its id, the position of its `VolumeCreated`. Numbers that are not in `EventKind` are
refused where they come new, never skipped: a reader that does not know an event cannot know what the volume
holds. What history holds of them is named (engine.history.unread).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated, Any, get_args

from msgspec import Meta

from protocol.bounds import (
    AnyTimeline,
    CopyId,
    CronLineOrNone,
    Generation,
    LabelOrNone,
    LockSeconds,
    Name,
    NameOrNone,
    Position,
    SiteId,
    SizeBytes,
    VolumeId,
    ZoneNameOrNone,
)
from protocol.errors import RemoteProtocolError
from protocol.limits import KEEP_MAX, SCHEDULE_SPAN_S_MAX, VOLUMES_PER_GROUP_MAX
from protocol.positions import POSITION_MAX, Cut
from protocol.wire import WireDecoder, WireRow, encode_plain

Row = tuple[Any, ...]


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
    COPY_LOCKED = 29
    VOLUME_RESIZED = 30
    VOLUME_RENAMED = 31


WRITE, ZERO, TRIM = 1, 2, 3
LAST_DATA_KIND = 15


class Consistency(IntEnum):
    """What a copy's cut means to the software above the volume."""

    CRASH = 0
    APPLICATION = 1


class TimelineBegan(WireRow, frozen=True, kw_only=True, tag=int(EventKind.TIMELINE_BEGAN)):
    """First event of a timeline, alone in its frame: where it left its parent (0: none), how many changes of
    authority led to it, and which site writes it. `sealed`: the parent ends at the fork at every site."""

    parent: AnyTimeline
    fork: Position
    generation: Generation
    writer: SiteId
    group: Name
    sealed: bool


class VolumeCreated(WireRow, frozen=True, kw_only=True, tag=int(EventKind.VOLUME_CREATED)):
    """A volume of `size_bytes` begins; its id is this event's position."""

    name: Name
    size_bytes: SizeBytes


class VolumeDeleted(WireRow, frozen=True, kw_only=True, tag=int(EventKind.VOLUME_DELETED)):
    """The volume with this id is gone from here on; earlier cuts still show it."""

    volume: VolumeId


class VolumeResized(WireRow, frozen=True, kw_only=True, tag=int(EventKind.VOLUME_RESIZED)):
    """From here on the volume has `size_bytes`; at earlier cuts it has what it had.

    What lies past the end of a volume is nobody's: it is written to zeroes when the volume shrinks, and again
    before it grows (engine.history.resizing)."""

    volume: VolumeId
    size_bytes: SizeBytes


class VolumeRenamed(WireRow, frozen=True, kw_only=True, tag=int(EventKind.VOLUME_RENAMED)):
    """From here on the volume has that name; at earlier cuts it has the one that it had."""

    volume: VolumeId
    name: Name


class Mark(WireRow, frozen=True, kw_only=True, tag=int(EventKind.MARK)):
    """A backup, of an earlier retained cut or, if that is None (timeline 0), of the cut at this event's own
    frame. An empty label means none; consistency is 0 (crash) or 1 (application)."""

    copy_id: CopyId
    label: LabelOrNone
    cut: Cut | None
    volumes: Annotated[tuple[VolumeId, ...], Meta(max_length=VOLUMES_PER_GROUP_MAX)]
    consistency: Consistency
    pinned: bool


class Revert(WireRow, frozen=True, kw_only=True, tag=int(EventKind.REVERT)):
    """From here on the volume is what it was at `cut`, plus what is written after."""

    volume: VolumeId
    cut: Cut


class HandOver(WireRow, frozen=True, kw_only=True, tag=int(EventKind.HAND_OVER)):
    """The last event of its timeline: from here on the site with the id `to` writes, and nobody else."""

    to: SiteId


class StrictMode(WireRow, frozen=True, kw_only=True, tag=int(EventKind.STRICT_MODE)):
    """From here on no write is acknowledged before the peer has it (`on`), or that ends."""

    on: bool


class RewriteBegan(WireRow, frozen=True, kw_only=True, tag=int(EventKind.REWRITE_BEGAN)):
    """From here on the volume is on its way to what it was at `cut`, by writes; until `RewriteEnded`, or a
    `Revert`, it is neither that nor what it was at `before`, and no host may see it."""

    volume: VolumeId
    cut: Cut
    before: Cut


class RewriteEnded(WireRow, frozen=True, kw_only=True, tag=int(EventKind.REWRITE_ENDED)):
    """The volume is what it was to become."""

    volume: VolumeId


class CopyPinned(WireRow, frozen=True, kw_only=True, tag=int(EventKind.COPY_PINNED)):
    """From here on the backup with this id is pinned: neither deleted nor pruned; or no longer."""

    copy_id: CopyId
    pinned: bool


class CopyDeleted(WireRow, frozen=True, kw_only=True, tag=int(EventKind.COPY_DELETED)):
    """The backup with this id is gone from here on, and no longer keeps its cut readable."""

    copy_id: CopyId


class CopyLocked(WireRow, frozen=True, kw_only=True, tag=int(EventKind.COPY_LOCKED)):
    """The backup with this id cannot be given up for `lock_s` seconds, at each site from when this event
    came there, whatever any later event says. Of several the one that ends last counts.

    A span and not a time, because sites' wall clocks may be wrong, or set (engine.retention.lock_clock)."""

    copy_id: CopyId
    lock_s: LockSeconds


_Keep = Annotated[int, Meta(ge=0, le=KEEP_MAX)]


class PolicySet(WireRow, frozen=True, kw_only=True, omit_defaults=True, tag=int(EventKind.POLICY_SET)):
    """When the group is backed up from here on, which backups stay, and how far back any moment can be read.
    `every_s`, `at_minute` (of the UTC day) or `cron` in the time zone `zone` say when: at most one of them;
    0, -1 and empty mean not so. `keep` are counts: last, hourly, daily, weekly, monthly, yearly. `window_s`
    -1 and `window_bytes` 0: as each site's config says. `freeze` names a hook, or is empty. `keep_zone` is
    that of the days and weeks of `keep`; empty: UTC, as earlier versions meant it. What of the last three is
    empty at the end is left out: earlier versions read such a row, and refuse one with it (READS)."""

    every_s: Annotated[int, Meta(ge=0, le=SCHEDULE_SPAN_S_MAX)]
    at_minute: Annotated[int, Meta(ge=-1, le=24 * 60 - 1)]
    keep: tuple[_Keep, _Keep, _Keep, _Keep, _Keep, _Keep]
    window_s: Annotated[int, Meta(ge=-1, le=SCHEDULE_SPAN_S_MAX)]
    window_bytes: Annotated[int, Meta(ge=0, le=POSITION_MAX)]
    freeze: NameOrNone
    cron: CronLineOrNone = ""
    zone: ZoneNameOrNone = ""
    keep_zone: ZoneNameOrNone = ""

    def encode(self) -> bytes:
        """See `WireRow.encode`."""
        return encode_plain(self.to_row())

    def to_row(self) -> Row:
        """See `WireRow.to_row`: as earlier versions wrote it where there is no cron line, or no zone of the
        keep rules."""
        row = WireRow.to_row(self)
        if self.keep_zone:
            return row
        return row[:-1] if self.cron else row[:-3]


NO_POLICY = PolicySet(
    every_s=0, at_minute=-1, keep=(0, 0, 0, 0, 0, 0), window_s=-1, window_bytes=0, freeze=""
)

# By the table that applies them; mypy notices a class that its table has no case for.
VolumeRecord = (
    VolumeCreated | VolumeDeleted | VolumeResized | VolumeRenamed | Revert | RewriteBegan | RewriteEnded
)
CopyRecord = Mark | CopyPinned | CopyDeleted | CopyLocked
PromiseRecord = HandOver | StrictMode
Record = TimelineBegan | VolumeRecord | CopyRecord | PromiseRecord | PolicySet

_records: WireDecoder[Record] = WireDecoder(*get_args(Record))


def record_from_row(row: Row) -> Record:
    """The record that a non-data row says; RemoteProtocolError if it is malformed or unknown."""
    try:
        return _records.convert(row)
    except RemoteProtocolError as error:
        raise RemoteProtocolError(f"event of kind {str(row[:1])[:32]}: {error}") from error


def records_of(rows: Sequence[Row]) -> list[tuple[int, Record]]:
    """(index, record) of every row that is not data. RemoteProtocolError for one that is not known."""
    found = [(index, record_from_row(row)) for index, row in enumerate(rows) if row[0] > LAST_DATA_KIND]
    if found and len(found) != len(rows):
        raise RemoteProtocolError("records and data share a frame")
    return found
