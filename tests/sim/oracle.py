"""What must hold at one site, from its hosts' side: what they were told, and what the site must still have.

Three contents: `live`, what the hosts were told since; `flushed`, the same for power loss (L1); and
`pending`, what a change under way may have made of `live`. Two ends for each timeline: `taken`, what the
site's journal had when its process ended, and `durable`, what it had told anyone that a power loss leaves.
Both stay with the site as long as it keeps the timeline, on its head's lineage or on a branch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.group.group import Group
from protocol.frames import Frame
from protocol.positions import Cut
from tests.sim.content import Contents, copied
from tests.sim.history import (
    ROOT,
    History,
    Moment,
    Violation,
    began,
    hash_of,
    is_of_its_own,
    read_volume,
    sizes_after,
)
from tests.sim.looks import journal_frames
from tests.sim.world import SimWorld

Write = tuple[str, int, int, int]  # volume, first sector, sectors, tag


@dataclass(slots=True, eq=False)
class Floor:
    """What a power loss must leave: the journal up to `cut`; each sector as it was then, or later."""

    cut: Cut
    contents: Contents


@dataclass(frozen=True, slots=True)
class SiteKnew:
    """An oracle's state, kept beside a copy of its site's directory."""

    line: list[Cut]
    live: Contents
    flushed: Floor
    taken: dict[int, int]
    durable: dict[int, int]
    pending: Contents | None
    failed: Contents | None


@dataclass(frozen=True, slots=True)
class Taken:
    """A frame that a site took: whether it is `new`, and where the head was `before` if it is elsewhere."""

    new: bool
    before: Cut | None


class Oracle:
    """See the module's docstring. One for each site."""

    def __init__(self, world: SimWorld, history: History, site: str) -> None:
        self.site = site
        self.history = history
        self.line: list[Cut] = []  # boundaries of the site's present lineage, in order
        self.live: Contents = {}
        self.pending: Contents | None = None
        self.flushed = Floor(ROOT, {})
        self.floors: list[Floor] = []
        self.taken: dict[int, int] = {}
        self.durable: dict[int, int] = {}
        self._world = world
        self._written_in_change = False
        self._failed: Contents | None = None  # what a change that failed since the last frame may have made

    @property
    def end(self) -> Cut:
        """The last boundary that the site has, or came back with."""
        return self.line[-1] if self.line else ROOT

    # -- old copies

    def copy(self) -> SiteKnew:
        """What the site has, as it stands still."""
        floor = Floor(self.flushed.cut, copied(self.flushed.contents))
        pending = None if self.pending is None else copied(self.pending)
        failed = None if self._failed is None else copied(self._failed)
        return SiteKnew(
            list(self.line), copied(self.live), floor, dict(self.taken), dict(self.durable), pending,
            failed,
        )  # fmt: skip

    def put_back(self, knew: SiteKnew) -> None:
        """The site's directory is what it was then: more it cannot have, and that much it must."""
        self.line, self.live = list(knew.line), copied(knew.live)
        self.flushed = Floor(knew.flushed.cut, copied(knew.flushed.contents))
        self.taken, self.durable = dict(knew.taken), dict(knew.durable)
        self.floors, self.pending = [], knew.pending
        self._failed = None if knew.failed is None else copied(knew.failed)

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
            self.history.moments[self.end].contents = copied(live)

    def fail(self, live: Contents, writes: Sequence[Write] = ()) -> None:
        """It failed, and with it these writes of what `live` says. Its frame may stand behind the journal's
        end all the same, and be found at a restart."""
        self.finish(live)
        if not self._failed:
            self._failed = copied(live)
            return
        # Since an earlier one failed no frame was written: all else that may be so is said by that.
        for volume, first, count, tag in writes:
            self._failed[volume].may_write(first, count, tag)

    def fail_revert(self, either: Contents) -> None:
        """A revert failed, which may have made `either` of what was there."""
        failed = self._failed
        self.fail(either)
        if failed:
            self._failed = _either(either, failed)

    def interrupted(self, live: Contents) -> None:
        """The site died with it: what was to be written may be there."""
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
        self.told_durable(floor.cut)
        if floor in self.floors:
            self.floors = self.floors[self.floors.index(floor) + 1 :]
            self.flushed = floor

    def told_durable(self, cut: Cut) -> None:
        """Somebody was told that a power loss leaves everything up to `cut`: of the timelines below it as far
        as the site has their frames. Where a base stands, the last of them have not come."""
        tree = self.history.tree
        for timeline, end in tree.spans(cut):
            if timeline != cut.timeline:
                end = min(end, self.taken.get(timeline, 0))
            if end > max(self.durable.get(timeline, 0), tree.parents[timeline].position):
                self.durable[timeline] = end

    def says_durable(self, timeline: int, position: int) -> None:
        """The site itself believes that its journal is durable up to there."""
        self.durable[timeline] = max(self.durable.get(timeline, 0), position)

    def dropped(self, parts: Iterable[tuple[int, int]]) -> None:
        """Of these timelines the site may forget what is past a position."""
        for timeline, start in parts:
            for ends in (self.taken, self.durable):
                if start <= self.history.tree.parents[timeline].position:
                    ends.pop(timeline, None)
                elif timeline in ends:
                    ends[timeline] = min(ends[timeline], start)

    # -- frames

    def apply(self, frame: Frame) -> Taken:
        """The site has a new frame in its journal: its own, or one that is known."""
        cut = Cut(frame.prefix.timeline, frame.prefix.end)
        elsewhere = self.end if frame.prefix.timeline != self.end.timeline else None
        moment = self.history.moments.get(cut)
        if moment is None:
            record = began(frame)
            if record is not None:
                self._put_elsewhere(Cut(record.parent, record.fork))
            self._written_in_change = self.pending is not None
            self._add(frame, self._contents_with(frame))
        else:
            self._follow(frame, cut, moment)
        return Taken(moment is None, elsewhere)

    def _put_elsewhere(self, fork: Cut) -> None:
        """The site's own timeline begins there. On another line than this one that is the end of what it held
        of the other site's: the head was put back onto it, without a frame."""
        moment = self.history.moments.get(fork)
        if moment is not None and fork not in self.line:
            self.live = moment.contents
            self.floors, self.flushed = [], Floor(ROOT, {})

    def _contents_with(self, frame: Frame) -> Contents:
        if self.pending is not None and began(frame) is None:
            return self.pending
        return self.live

    def _add(self, frame: Frame, contents: Contents) -> None:
        prefix = frame.prefix
        cut = Cut(prefix.timeline, prefix.end)
        tree = self.history.tree
        record = began(frame)
        if record is not None:
            tree.add(prefix.timeline, record)
        writer = tree.writers.get(prefix.timeline)
        if writer != self.site:
            raise Violation(f"L3: {self.site} has a frame that ends at {cut}, which {writer} never wrote")
        self._failed = None
        left = Cut(prefix.timeline, prefix.position) if record is None else Cut(record.parent, record.fork)
        before = self.history.moments.get(left)
        sizes = sizes_after(before.sizes if before is not None else {}, frame)
        self.history.moments[cut] = Moment(
            prefix.digest, hash_of(frame), prefix.utc_ns, prefix.durable, copied(contents), sizes
        )
        self._reach(cut)
        self._world.note(self.site, "frame", str(cut), prefix.digest, prefix.payload_bytes)

    def _reach(self, cut: Cut) -> None:
        """The head's end is here now."""
        self.taken[cut.timeline] = max(self.taken.get(cut.timeline, 0), cut.position)
        if self.end.timeline == cut.timeline:
            self.line.append(cut)
        else:
            self.line = self.history.held(cut)

    def _follow(self, frame: Frame, cut: Cut, moment: Moment) -> None:
        """A frame of the other site's, or one that was lost here and that the other site still had. The same
        bytes, or the position is used a second time."""
        if moment.digest != frame.prefix.digest or moment.raw_hash != hash_of(frame):
            raise Violation(f"L3: {self.site} takes {cut}, which is used a second time")
        self.history.checked += 1
        self._reach(cut)
        self.live = moment.contents
        self._failed = {} if self._failed else self._failed  # what is here now is not what that was of
        if self.floors or self.flushed.cut != ROOT:
            # What the hosts of this site were told of is on a branch now, or comes from elsewhere.
            self.floors, self.flushed = [], Floor(ROOT, {})

    def installed(self, end: Cut) -> Cut:
        """A base put the head at `end`, without the frames before it. Returns where it was."""
        before = self.end
        self.taken[end.timeline] = max(self.taken.get(end.timeline, 0), end.position)
        self.line = self.history.held(end)
        self.live = self.history.moments[end].contents
        self._failed = {} if self._failed else self._failed
        self.floors, self.flushed = [], Floor(ROOT, {})
        return before

    # -- recovery

    def recovered(self, group: Group, *, power: bool) -> Cut | None:
        """The site is back. `power`: what was not said to be durable may be gone, of the end of the journal.
        Returns where the head was, if a move was carried out as the site died."""
        history, before = self.history, self.end
        followed = group.end in history.moments and group.end not in self.line
        self._check_journal(group)
        if group.end != ROOT and group.end not in history.moments:
            raise Violation(f"L3: {self.site} came back at {group.end}, where no frame ended")
        moved = before if group.head.timeline != before.timeline else None
        floor = self.flushed if power else Floor(before, self.live)
        if followed:
            floor = Floor(floor.cut, {})  # it died as it took a frame in
        if not history.tree.holds(group.end, floor.cut):
            if moved is None:
                raise Violation(f"L1: {self.site} came back at {group.end} and had {floor.cut}")
            floor = Floor(ROOT, {})
        self._check_ends(group, power=power)
        self.line = history.held(group.end)
        after = copied(history.moments[group.end].contents) if self.line else {}
        self._check_contents(group, floor, after)
        self.live, self.pending = after, None
        if self.line:
            history.moments[group.end].contents = copied(after)
        self.flushed = Floor(group.end, copied(after))
        self.floors = []
        self._world.note(self.site, "recovered", str(group.end))
        return moved

    def _check_journal(self, group: Group) -> None:
        """Read all of the head's lineage. The last frame may be one that this site wrote as it died."""
        for frame in journal_frames(self.history, self.site, group):
            cut = Cut(frame.prefix.timeline, frame.prefix.end)
            if cut not in self.history.moments and cut == group.end:
                self._adopt(frame)
            else:
                self.history.check_frame(self.site, frame)

    def _adopt(self, frame: Frame) -> None:
        """The frame was complete when the process died, before anyone was told."""
        own = is_of_its_own(frame)
        if self.pending is None and self._failed is None and not own:
            raise Violation(f"L3: {frame.prefix.timeline:016x}:{frame.prefix.end} was written by nobody")
        if self._failed is not None and not own:
            # Reads since it failed saw what was there without it, and settled that.
            self.live = _either(self.live, self._failed)
            self.flushed.contents = _either(self.flushed.contents, self._failed)
            self.pending = None if self.pending is None else _either(self.pending, self._failed)
        self._add(frame, self._contents_with(frame))

    def _check_ends(self, group: Group, *, power: bool) -> None:
        """Every timeline reaches as far as it must, whether it leads to the head or was left."""
        for timeline, end in (self.durable if power else self.taken).items():
            held = group.end_of(timeline) if timeline in group.timelines else 0
            if held < end:
                raise Violation(f"L1: {self.site} came back with {Cut(timeline, held)} and had {end}")
        self.taken = {each.id: group.end_of(each.id) for each in group.timelines.all()}
        self.dropped(group.dropping.items())
        self.durable = dict(self.taken)

    def _check_contents(self, group: Group, floor: Floor, after: Contents) -> None:
        for name, content in sorted(after.items()):
            data = read_volume(group, name, content.sectors)
            for law, contents in (("L1", floor.contents), ("L1 (no mix)", after)):
                wrong = contents[name].mismatch(0, data, settle=False) if name in contents else ""
                if wrong:
                    raise Violation(f"{law}: after recovery of {self.site} at {group.end}, {name}: {wrong}")
            content.mismatch(0, data, settle=True)

    # -- reading

    def check_live(self, group: Group) -> None:
        """The live volumes, where hosts write."""
        for name, content in sorted(self.live.items()):
            wrong = content.mismatch(0, read_volume(group, name, content.sectors), settle=True)
            if wrong:
                raise Violation(f"L1: {self.site}'s live volume {name}: {wrong}")
            self.history.checked += 1


def _either(one: Contents, other: Contents) -> Contents:
    """What each volume of `one` holds, or of `other`, each sector by itself."""
    found = copied(one)
    for name, content in found.items():
        if name in other:
            content.may_become(other[name])
    return found
