"""What must hold, from the hosts' side: every frame of the journal, and what the volumes held at its end.

`moments` has one entry for each frame boundary that the primary ever wrote, tails lost in a crash included:
as no (timeline, position) is used twice, a boundary means one thing for ever. A site is right if each of its
frames is one of these, byte for byte (L3), and if its volumes at a cut hold what is said here (L4).

Three contents besides: `live`, what the hosts were told since; `flushed`, the same for power loss (L1); and
`pending`, what a change under way may have made of `live`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from xxhash import xxh3_128_digest

from engine.bases import gap_at, spans_after
from engine.group import Group
from protocol.events import EventKind
from protocol.frames import NO_DIGEST, Frame, decode_rows
from protocol.limits import SECTOR_BYTES
from protocol.positions import Cut
from tests.sim.content import Content, Contents, copied
from tests.sim.world import SimWorld

ROOT = Cut(0, 0)


class Violation(BaseException):
    """Something that must hold does not. No Exception: code under test must not handle it."""


@dataclass(slots=True)
class Moment:
    """The end of one frame."""

    digest: bytes
    raw_hash: bytes
    utc_ns: int
    contents: Contents


@dataclass(slots=True, eq=False)
class Floor:
    """What a power loss must leave: the journal up to `cut`; each sector as it was then, or later."""

    cut: Cut
    contents: Contents


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
    """Which timeline left which, where."""

    parents: dict[int, Cut] = field(default_factory=dict)

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


class Oracle:
    """See the module's docstring."""

    def __init__(self, world: SimWorld) -> None:
        self.moments: dict[Cut, Moment] = {}
        self.line: list[Cut] = []  # boundaries of the primary's present lineage, in order
        self.tree = Tree()
        self.live: Contents = {}
        self.pending: Contents | None = None
        self.flushed = Floor(ROOT, {})
        self.floors: list[Floor] = []
        self.backups: list[Backup] = []
        self.checked = 0
        self._world = world
        self._written_in_change = False
        self._failed_since_frame = False

    @property
    def end(self) -> Cut:
        """The last boundary that the primary wrote, or came back with."""
        return self.line[-1] if self.line else ROOT

    def held(self, end: Cut) -> list[Cut]:
        """Every boundary in the past of `end`."""
        ends = dict(self.tree.spans(end))
        return [cut for cut in self.moments if cut.position <= ends.get(cut.timeline, -1)]

    # -- changes

    def begin(self, pending: Contents) -> None:
        """A change is under way: frames with data written now hold what `pending` says."""
        self.pending = pending
        self._written_in_change = False

    def finish(self, live: Contents) -> None:
        """It is done, and this is what the hosts know now."""
        self.live = live
        self.pending = None
        if self._written_in_change:
            self.moments[self.end].contents = copied(live)

    def fail(self, live: Contents) -> None:
        """It failed. Its frame may stand behind the journal's end all the same, and be found at a restart."""
        self.finish(live)
        self._failed_since_frame = True

    def interrupted(self, live: Contents) -> None:
        """The primary died with it: what was to be written may be there."""
        self.live = live

    def all_floors(self) -> list[Floor]:
        """Those to which later writes must be added."""
        return [self.flushed, *self.floors]

    def flush_begins(self, contents: Contents) -> Floor:
        """A FLUSH was asked for, to cover `contents`. Later writes are added by the caller."""
        floor = Floor(self.end, contents)
        self.floors.append(floor)
        return floor

    def flush_done(self, floor: Floor) -> None:
        """It was answered."""
        if floor in self.floors:
            self.floors = self.floors[self.floors.index(floor) + 1 :]
            self.flushed = floor

    # -- frames

    def primary_wrote(self, frame: Frame) -> bool:
        """The primary has a new frame in its journal. False if it was brought back: old, and known there."""
        if Cut(frame.prefix.timeline, frame.prefix.end) in self.moments:
            self._brought_back(frame)
            return False
        self._written_in_change = self.pending is not None
        self._add(frame, self._contents_with(frame))
        return True

    def _contents_with(self, frame: Frame) -> Contents:
        if self.pending is not None and began(frame) is None:
            return self.pending
        return self.live

    def _add(self, frame: Frame, contents: Contents) -> None:
        prefix = frame.prefix
        cut = Cut(prefix.timeline, prefix.end)
        parent = began(frame)
        if parent is not None:
            self.tree.parents[prefix.timeline] = parent
            while self.line and self.line[-1].position > parent.position:
                self.line.pop()
        self._failed_since_frame = False
        self.line.append(cut)
        self.moments[cut] = Moment(prefix.digest, hash_of(frame), prefix.utc_ns, copied(contents))
        self._world.note("frame", str(cut), prefix.digest, prefix.payload_bytes)

    def _brought_back(self, frame: Frame) -> None:
        """The other site still had what a power loss took here. The same bytes, or the position is used a
        second time."""
        cut = Cut(frame.prefix.timeline, frame.prefix.end)
        moment = self.moments[cut]
        if moment.digest != frame.prefix.digest or moment.raw_hash != hash_of(frame):
            raise Violation(f"L3: {cut} is used a second time")
        self.line.append(cut)
        self.live = copied(moment.contents)
        for floor in self.all_floors():
            for name, content in moment.contents.items():
                if name in floor.contents:
                    floor.contents[name].may_become(content)
        self._world.note("brought back", str(cut))

    def check_frame(self, site: str, frame: Frame) -> None:
        """A frame at any site must be one that the primary wrote."""
        cut = Cut(frame.prefix.timeline, frame.prefix.end)
        moment = self.moments.get(cut)
        if moment is None:
            raise Violation(f"L3: {site} holds a frame that ends at {cut}, which the primary never wrote")
        if moment.digest != frame.prefix.digest or moment.raw_hash != hash_of(frame):
            raise Violation(f"L3: {site}'s frame that ends at {cut} is not what the primary wrote")
        self.checked += 1

    def check_journal(self, site: str, group: Group, *, adopt: bool = False) -> None:
        """Read all of a group's journal. `adopt`: the last frame may be one that the primary wrote as it
        died."""
        folded = group.folding.retention.folded
        spans, digest = spans_after(group.timelines, group.spans(group.writer.written))
        if digest != NO_DIGEST:
            base = Cut(spans[0].timeline, spans[0].start)
            if base not in self.moments or self.moments[base].digest != digest:
                raise Violation(f"L3: {site} got a base at {base} and says another digest there")
        for span in spans:
            start = span.start
            if span.timeline in folded and folded[span.timeline][0] > start:
                start, (digest, _) = folded[span.timeline]
                known = self.moments.get(Cut(span.timeline, start))
                if known is None or known.digest != digest:
                    raise Violation(f"L3: {site} folded up to {start} and says another digest there")
            for frame in group.reader.frames(span.timeline, start, span.end, digest):
                digest = frame.prefix.digest
                cut = Cut(frame.prefix.timeline, frame.prefix.end)
                if adopt and cut not in self.moments and cut == group.end:
                    self._adopt(frame)
                else:
                    self.check_frame(site, frame)
        if digest != group.digest:
            raise Violation(f"L3: {site} says another digest than its journal has at {group.end}")

    def _adopt(self, frame: Frame) -> None:
        """The frame was complete when the process died, before anyone was told."""
        if self.pending is None and began(frame) is None and not self._failed_since_frame:
            raise Violation(f"L3: {frame.prefix.timeline:016x}:{frame.prefix.end} was written by nobody")
        self._add(frame, self._contents_with(frame))

    # -- recovery

    def recovered(self, group: Group, *, power: bool) -> None:
        """The primary is back. `power`: what was not FLUSHed may be gone, of the end of the journal."""
        self.check_journal(group.site, group, adopt=True)
        if group.end != ROOT and group.end not in self.moments:
            raise Violation(f"L3: the primary came back at {group.end}, where no frame ended")
        floor = self.flushed if power else Floor(self.end, self.live)
        if not self.tree.holds(group.end, floor.cut):
            raise Violation(f"L1: the primary came back at {group.end} and had {floor.cut}")
        while self.line and self.line[-1] != group.end:
            self.line.pop()
        after = copied(self.moments[group.end].contents) if self.line else {}
        for name, content in sorted(after.items()):
            data = read_volume(group, name)
            for law, contents in (("L1", floor.contents), ("L1 (no mix)", after)):
                wrong = contents[name].mismatch(0, data, settle=False) if name in contents else ""
                if wrong:
                    raise Violation(f"{law}: after recovery at {group.end}, {name}: {wrong}")
            content.mismatch(0, data, settle=True)
        self.live, self.pending = after, None
        if self.line:
            self.moments[group.end].contents = copied(after)
        self.flushed = Floor(group.end, copied(after))
        self.floors = []
        self._world.note("recovered", str(group.end))

    # -- reading

    def check_cut(self, site: str, group: Group, cut: Cut, contents: Contents | None = None) -> None:
        """The volumes at a cut, at any site."""
        if contents is None:
            contents = self.moments[cut].contents
        for name, content in sorted(contents.items()):
            view = group.view_at(name, cut)
            with view.batch() as batch:
                data = view.read(batch, 0, view.size_bytes)
            wrong = content.mismatch(0, data, settle=False)
            if wrong:
                raise Violation(f"L4: {site} at {cut}, {name}: {wrong}")
            self.checked += 1
            self._check_extents(site, cut, content, view.extents(0, view.size_bytes))

    def _check_extents(
        self, site: str, cut: Cut, content: Content, extents: Iterable[tuple[int, bool]]
    ) -> None:
        """What is said to be a hole must be zeroes."""
        at = 0
        for size_bytes, data in extents:
            if not data and not content.is_zero(at // SECTOR_BYTES, size_bytes // SECTOR_BYTES):
                raise Violation(f"L4: {site} at {cut} says that there are only zeroes from {at} on")
            at += size_bytes

    def check_backups(self, site: str, group: Group, *, whole: bool) -> None:
        """Every backup that was answered, as far as the site holds the journal; with its bytes if `whole`."""
        for backup in self.backups:
            if not self.tree.holds(group.end, backup.mark):
                continue
            copy = group.copies.find(group.spans(), backup.label, group.name)
            if copy.cut != backup.cut:
                raise Violation(f"L4: {site} has backup {backup.label} at {copy.cut}, not {backup.cut}")
            if not group.folding.readable(copy.cut):
                here = gap_at(group.timelines, copy.cut) is None
                if here and backup.cut.position == backup.began:
                    raise Violation(f"L4: {site} gave up backup {backup.label} at {copy.cut}")
                continue  # of a cut that this site had given up before it heard of the backup
            if whole:
                self.check_cut(site, group, copy.cut, backup.contents)

    def check_live(self, group: Group) -> None:
        """The live volumes at the primary."""
        for name, content in sorted(self.live.items()):
            wrong = content.mismatch(0, read_volume(group, name), settle=True)
            if wrong:
                raise Violation(f"L1: the live volume {name}: {wrong}")
            self.checked += 1


def began(frame: Frame) -> Cut | None:
    """The parent's cut, if this frame begins a timeline."""
    if frame.prefix.payload_bytes:
        return None
    row = decode_rows(frame.prefix, frame.raw)[0]
    return Cut(row[1], row[2]) if row[0] == EventKind.TIMELINE_BEGAN else None


def hash_of(frame: Frame) -> bytes:
    """Of all its bytes."""
    return xxh3_128_digest(frame.raw)


def read_volume(group: Group, name: str) -> bytes:
    """All of a live volume."""
    view = group.live_view(group.volume(name))
    with view.batch() as batch:
        return view.read(batch, 0, view.size_bytes)
