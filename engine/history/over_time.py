"""A group's history by time: how many bytes of its journal were written up to each of some moments, and what
happened besides. Of the head's lineage, and of what of it is held here.

The cost does not grow with the range: for each moment the segment is found by bisection over the first frames
of segments, and within it the prefixes of frames are walked, each segment at most once as the moments go up.
After `FRAMES_MAX` prefixes in all the bytes of a segment are spread evenly over its time, which `exact` says.
Walking is in steps, so that whoever drives it lets hosts have their turns between two.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.group.core import GroupCore
from engine.journal.segments import Segment
from protocol.positions import NO_TIMELINE, Cut

FRAMES_MAX = 100_000
# Prefixes between two steps: each is a read of a page that is likely in the page cache.
FRAMES_A_STEP = 64


class Happening(enum.Enum):
    """What a mark stands for."""

    BACKUP = "backup"
    RESTORE = "restore"
    SWITCHOVER = "switchover"
    TAKEOVER = "takeover"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Something that happened at a time. `cut`: what the backup shows, what was restored, or where the
    writing moved; `name`: the backup's, the volume's, or the id of the site that writes from then on."""

    what: Happening
    utc_ns: int
    cut: Cut
    name: str


@dataclass(frozen=True, slots=True)
class _Piece:
    """The part of a segment that is on the lineage, and the bytes held before it."""

    segment: Segment
    begin: int
    end: int
    before: int


class BytesUntil:
    """`walk` fills `found`: for each of `times` (UTC ns, ascending) the bytes of frames written up to it."""

    def __init__(self, group: GroupCore, times: Sequence[int]) -> None:
        self.found: list[int] = []
        self.exact = True
        self._reader = group.reader
        self._times = times
        self._pieces = _pieces(group)
        self._began: dict[int, int | None] = {}
        self._left = FRAMES_MAX

    @property
    def begins_ns(self) -> int | None:
        """When the first frame that is held was written; None if there is none."""
        return self._began_ns(0) if self._pieces else None

    @property
    def is_whole(self) -> bool:
        """Whether nothing before that one is missing here."""
        return not self._pieces or self._pieces[0].begin == 0

    def walk(self) -> Iterator[None]:
        """In steps; the last one leaves `found` as long as `times`."""
        at, position = -1, 0
        for utc_ns in self._times:
            piece = self._last_not_after(utc_ns)
            yield
            if piece < 0:
                self.found.append(0)
                continue
            if piece != at:
                at, position = piece, self._pieces[piece].begin
            here = self._pieces[piece]
            steps = 0
            while position < here.end and self._left > 0:
                prefix = self._reader.prefix_at(here.segment.timeline, position)
                if prefix is None or prefix.utc_ns > utc_ns:
                    break
                position = min(prefix.end, here.end)
                self._left -= 1
                steps += 1
                if steps % FRAMES_A_STEP == 0:
                    yield
            held = position - here.begin
            if self._left <= 0:
                self.exact = False
                held = max(held, self._spread(piece, utc_ns))
            self.found.append(max(here.before + held, self.found[-1] if self.found else 0))

    def _last_not_after(self, utc_ns: int) -> int:
        """The number of the last piece whose first frame was written by then; -1 if none was."""
        low, high = 0, len(self._pieces)
        while low < high:
            middle = (low + high) // 2
            began = self._began_ns(middle)
            # One that was truncated meanwhile is before all others.
            if began is None or began <= utc_ns:
                low = middle + 1
            else:
                high = middle
        return low - 1

    def _began_ns(self, number: int) -> int | None:
        if number not in self._began:
            piece = self._pieces[number]
            prefix = self._reader.prefix_at(piece.segment.timeline, piece.begin)
            self._began[number] = None if prefix is None else prefix.utc_ns
        return self._began[number]

    def _spread(self, number: int, utc_ns: int) -> int:
        piece, began = self._pieces[number], self._began_ns(number)
        ended = self._began_ns(number + 1) if number + 1 < len(self._pieces) else self._times[-1]
        if began is None or ended is None or ended <= began:
            return piece.end - piece.begin
        share = min(1.0, (utc_ns - began) / (ended - began))
        return int((piece.end - piece.begin) * share)


def _pieces(group: GroupCore) -> list[_Piece]:
    pieces: list[_Piece] = []
    held = 0
    for span in group.spans(group.writer.written):
        for segment in group.segments.of_timeline(span.timeline):
            begin, end = max(segment.start, span.start), min(segment.start + segment.size, span.end)
            if begin < end:
                pieces.append(_Piece(segment, begin, end, held))
                held += end - begin
    return pieces


def marks(group: GroupCore, begin_ns: int, end_ns: int) -> Iterator[Mark | None]:
    """What happened from `begin_ns` up to `end_ns`, in no order; None is a step without one."""
    spans = group.spans(group.writer.written)
    for copy in group.copies.taken_before(spans, end_ns, 0):
        if copy.utc_ns < begin_ns:
            break
        yield Mark(what=Happening.BACKUP, utc_ns=copy.utc_ns, cut=copy.cut, name=copy.name)
    inside = {span.timeline: span for span in spans}
    for name, volume in group.volumes.at(spans).items():
        for entry in group.volumes.reverts_of(volume.id):
            yield None
            span = inside.get(entry.timeline)
            if span is None or not span.start <= entry.position < span.end:
                continue
            prefix = group.reader.prefix_at(entry.timeline, entry.position)
            if prefix is not None and begin_ns <= prefix.utc_ns < end_ns:
                yield Mark(what=Happening.RESTORE, utc_ns=prefix.utc_ns, cut=entry.cut, name=name)
    for span in spans:
        yield None
        yield _move(group, span.timeline, begin_ns, end_ns)


def _move(group: GroupCore, timeline: int, begin_ns: int, end_ns: int) -> Mark | None:
    """How the writing came to a timeline; None if it was there before, or not in that time."""
    here = group.timelines.get(timeline)
    if here.parent == NO_TIMELINE or group.timelines.get(here.parent).generation == here.generation:
        return None
    prefix = group.reader.prefix_at(here.id, here.fork)
    if prefix is None or not begin_ns <= prefix.utc_ns < end_ns:
        return None
    handed = group.promises.handed_at(here.fork_cut)
    what = Happening.SWITCHOVER if handed else Happening.TAKEOVER
    return Mark(what=what, utc_ns=prefix.utc_ns, cut=here.fork_cut, name=here.writer)
