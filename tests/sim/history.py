"""What was ever written by any site, as a tree: every frame boundary, and what the volumes hold there.

`moments` has one entry for each frame boundary that a site ever wrote, tails lost in a crash included: as no
(timeline, position) is used twice, a boundary means one thing for ever. A timeline has one writer. A site is
right if each of its frames is one of these, byte for byte (L3), and if its volumes at a cut hold what is said
here (L4).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from xxhash import xxh3_128_digest

from engine.group.group import Group
from engine.index.view import VolumeView
from protocol.events import EventKind, TimelineBegan, record_from_row
from protocol.frames import Frame, decode_rows
from protocol.limits import SECTOR_BYTES
from protocol.positions import Cut
from tests.sim.content import Contents

ROOT = Cut(0, 0)


class Violation(BaseException):
    """Something that must hold does not. No Exception: code under test must not handle it."""


@dataclass(slots=True)
class Moment:
    """The end of one frame. `durable`: the position up to which its writer called its journal durable."""

    digest: bytes
    raw_hash: bytes
    utc_ns: int
    durable: int
    contents: Contents
    sizes: dict[int, int]  # of each volume by its id, in bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A backup that was answered: its label, where its mark's frame begins and ends, its cut, and what is
    there."""

    label: str
    began: int
    mark: Cut
    cut: Cut
    contents: Contents


@dataclass(slots=True)
class Tree:
    """Which timeline left which, where, and who writes it by which authority."""

    parents: dict[int, Cut] = field(default_factory=dict)
    writers: dict[int, str] = field(default_factory=dict)
    generations: dict[int, int] = field(default_factory=dict)

    def add(self, timeline: int, began: TimelineBegan) -> None:
        """A timeline began."""
        self.parents[timeline] = Cut(began.parent, began.fork)
        self.writers[timeline] = began.writer
        self.generations[timeline] = began.generation

    def spans(self, cut: Cut) -> list[tuple[int, int]]:
        """(timeline, end) from the root to a cut."""
        found = []
        while cut.timeline:
            found.append((cut.timeline, cut.position))
            parent = self.parents[cut.timeline]
            cut = Cut(parent.timeline, min(parent.position, cut.position))
        return found[::-1]

    def common(self, one: Cut, other: Cut) -> int:
        """The position up to which two cuts have the same past."""
        position = 0
        for (timeline, end), (other_timeline, other_end) in zip(
            self.spans(one), self.spans(other), strict=False
        ):
            if timeline != other_timeline:
                break
            position = min(end, other_end)
            if end != other_end:
                break
        return position

    def holds(self, end: Cut, cut: Cut) -> bool:
        """Whether what ends at `end` has the boundary `cut` in its past."""
        return cut == ROOT or dict(self.spans(end)).get(cut.timeline, -1) >= cut.position

    def tail(self, left: Cut, now: Cut) -> list[int]:
        """The timelines of what ends at `left` past the last place that it shares with `now`."""
        common = self.common(left, now)
        return [timeline for timeline, end in self.spans(left) if end > common]


class History:
    """See the module's docstring. `backups` are those that were answered, `checked` counts comparisons."""

    def __init__(self) -> None:
        self.moments: dict[Cut, Moment] = {}
        self.tree = Tree()
        self.backups: list[Backup] = []
        self.checked = 0

    def held(self, end: Cut) -> list[Cut]:
        """Every boundary in the past of `end`, and `end`, in order."""
        ends = dict(self.tree.spans(end))
        found = [cut for cut in self.moments if cut.position <= ends.get(cut.timeline, -1)]
        return sorted(found, key=lambda cut: cut.position)

    def check_frame(self, site: str, frame: Frame) -> None:
        """A frame at any site must be one that its writer wrote."""
        cut = Cut(frame.prefix.timeline, frame.prefix.end)
        moment = self.moments.get(cut)
        if moment is None:
            raise Violation(f"L3: {site} holds a frame that ends at {cut}, which nobody wrote")
        if moment.digest != frame.prefix.digest or moment.raw_hash != hash_of(frame):
            raise Violation(f"L3: {site}'s frame that ends at {cut} is not what was written there")
        self.checked += 1


def began(frame: Frame) -> TimelineBegan | None:
    """What its first frame says, if this is a timeline's."""
    if frame.prefix.payload_bytes:
        return None
    row = decode_rows(frame.prefix, frame.raw)[0]
    if row[0] != EventKind.TIMELINE_BEGAN:
        return None
    record = record_from_row(row)
    return record if isinstance(record, TimelineBegan) else None


def is_of_its_own(frame: Frame) -> bool:
    """Whether a site may write it with nobody's change under way: how its timeline began, or which mode is in
    force from then on."""
    own = {EventKind.TIMELINE_BEGAN, EventKind.STRICT_MODE}
    return not frame.prefix.payload_bytes and own.issuperset(
        row[0] for row in decode_rows(frame.prefix, frame.raw)
    )


def sizes_after(sizes: dict[int, int], frame: Frame) -> dict[int, int]:
    """What a frame makes of the sizes of volumes, by their ids."""
    if frame.prefix.payload_bytes:
        return sizes
    for index, row in enumerate(decode_rows(frame.prefix, frame.raw)):
        if row[0] == EventKind.VOLUME_CREATED:
            sizes = {**sizes, frame.prefix.position + index: row[2]}
        elif row[0] == EventKind.VOLUME_RESIZED:
            sizes = {**sizes, row[1]: row[2]}
    return sizes


def hash_of(frame: Frame) -> bytes:
    """Of all its bytes."""
    return xxh3_128_digest(frame.raw)


def read_volume(group: Group, name: str, sectors: int) -> bytes:
    """All of a live volume."""
    return read_view(group.live_view(group.volume(name)), sectors)


def read_view(view: VolumeView, sectors: int) -> bytes:
    """All of a volume, and zeroes past its end, where a host may find nothing else once it grew."""
    with view.batch() as batch:
        return view.read(batch, 0, view.size_bytes).ljust(sectors * SECTOR_BYTES, b"\0")
