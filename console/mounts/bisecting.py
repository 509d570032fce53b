"""The search for the first bad moment of a group's history, frame by frame in the end.

Cuts are ordered by their position along the head's lineage. While many frames lie between the last good and
the first bad cut, the next one tried is in the middle of their times, which needs no list of frames; then it
is in the middle of those frames. Knows nothing of what a check is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from console.figures import utc_ns
from console.session import Session, fixed_cut
from protocol.commands.cut import CutInfo, CutResolve
from protocol.commands.journal import FrameInfo, JournalShow
from protocol.cut_text import CutPosition, CutTime
from protocol.positions import Cut, parse_cut

# So many frames are looked at once: each costs the site a read.
FRAMES = 256
# Whether a cut is good; its time in UTC, if known, for those who watch.
Probe = Callable[[Cut, str | None], bool]


@dataclass(frozen=True, slots=True)
class Moment:
    """A cut, and the UTC time of the last frame before it as a reply had it."""

    cut: Cut
    time: str | None


def moment(cut: CutInfo) -> Moment:
    """A reply's cut."""
    return Moment(cut=fixed_cut(cut).cut, time=cut.time)


class Bisection:
    """`good` and `bad` come closer until nothing that can be read lies between them."""

    def __init__(self, session: Session, group: str, good: Moment, bad: Moment, probe: Probe) -> None:
        self._session = session
        self._group = group
        self._probe = probe
        self.good = good
        self.bad = bad

    def run(self) -> FrameInfo | None:
        """The frame, as `journal.show` has it, that makes the difference; None if frames between the two can
        no longer be read one by one."""
        while True:
            frames, between, whole = self._between()
            if whole and not between:
                begin = parse_cut(frames[0].position).position if frames else -1
                return frames[0] if len(frames) == 1 and begin == self.good.cut.position else None
            tried = between[len(between) // 2] if whole else self._middle() or between[-1]
            if self._probe(tried.cut, tried.time):
                self.good = tried
            else:
                self.bad = tried

    def _between(self) -> tuple[list[FrameInfo], list[Moment], bool]:
        """Frames from the good cut on, the cuts between those and before the bad one, and whether these are
        all."""
        since = CutPosition(timeline=self.good.cut.timeline, position=self.good.cut.position)
        frames = self._session.call(JournalShow(group=self._group, since=since, limit=FRAMES)).frames
        inside = [each for each in frames if parse_cut(each.position).position < self.bad.cut.position]
        cuts = [parse_cut(each.position) for each in inside]
        # The time of a cut is that of the frame before it.
        times = [None, *(each.time for each in inside[:-1])]
        between = [
            Moment(cut=cut, time=time)
            for cut, time in zip(cuts, times, strict=True)
            if cut.position > self.good.cut.position
        ]
        return inside, between, len(frames) < FRAMES or len(inside) < len(frames)

    def _middle(self) -> Moment | None:
        """A cut between the two by time; None where time does not tell them apart."""
        if self.good.time is None or self.bad.time is None:
            return None
        low, high = utc_ns(self.good.time), utc_ns(self.bad.time)
        while high - low > 1:
            middle = (low + high) // 2
            found = moment(self._session.call(CutResolve(group=self._group, cut=CutTime(utc_ns=middle))))
            if found.cut.position <= self.good.cut.position:
                low = middle
            elif found.cut.position >= self.bad.cut.position:
                high = middle
            else:
                return found
        return None
