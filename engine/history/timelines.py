"""Timelines: which runs of which writers there are, and the line of them that leads to a cut.

Each timeline names its parent and the position at which it left it. The *lineage* of a cut is the chain from
the root to the cut's timeline, each with the range of positions that counts.

A *lane* is a strand of timelines whose ranges do not overlap, so that one key space holds the versions of all
of them: a restart begins a new timeline every time, and without lanes a volume restarted a thousand times
would take a thousand look-ups to read (docs/decisions/0003). Lanes are this site's own matter and never cross
a boundary.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from protocol.bounds import AnyTimeline, Generation, Lane, Position, SiteId, TimelineId
from protocol.errors import Corruption, NotFound, WrongState
from protocol.limits import TIMELINES_MAX
from protocol.positions import NO_TIMELINE, POSITION_MAX, Cut, timeline_text


class Timeline(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """One run of one writing site. `fork` is a position in `parent` (0: none) and this timeline's start. The
    generation counts changes of authority (takeover, switchover), not restarts."""

    id: TimelineId
    parent: AnyTimeline
    fork: Position
    generation: Generation
    writer: SiteId
    lane: Lane

    @property
    def fork_cut(self) -> Cut:
        """Where it left its parent."""
        return Cut(self.parent, self.fork)


@dataclass(frozen=True, slots=True)
class Span:
    """The part [start, end) of a timeline that belongs to a lineage."""

    timeline: int
    lane: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A base (engine.history.bases): `cut` is B, `start` A (None: on nothing); `timeline` and `lane` are X,
    whose frames end at `end`. `utc_ns` is the time of the frame before B, `digest` what the next one
    continues; `left` the end that this site had before, on its own."""

    cut: Cut
    start: Cut | None
    timeline: int
    lane: int
    end: int
    utc_ns: int
    digest: bytes
    left: Cut

    @property
    def span(self) -> Span:
        """X's frames."""
        return Span(self.timeline, self.lane, 0, self.end)


class TimelineTable:
    """All timelines that this site holds of one group, and the bases (engine.history.bases) on them."""

    def __init__(self, timelines: Iterable[Timeline] = (), bases: Iterable[Base] = ()) -> None:
        self._by_id = {timeline.id: timeline for timeline in timelines}
        self.bases = list(bases)

    def __contains__(self, timeline: int) -> bool:
        return timeline in self._by_id

    def all(self) -> list[Timeline]:
        """Every timeline, parents first: a child leaves its parent after the parent's first frame."""
        return sorted(self._by_id.values(), key=lambda t: (t.fork, t.generation, t.id))

    def get(self, timeline: int) -> Timeline:
        """The timeline of that id; NotFound if this site does not hold it."""
        found = self._by_id.get(timeline)
        if found is None:
            raise NotFound(
                f"timeline {timeline_text(timeline)} is not held here",
                subject=timeline_text(timeline),
                next_step="`farshore journal show GROUP` lists the timelines held",
            )
        return found

    def add(self, timeline: Timeline) -> None:
        """Take a timeline in; its parent must be here."""
        if timeline.parent != NO_TIMELINE and timeline.parent not in self._by_id:
            raise Corruption(
                f"timeline {timeline_text(timeline.id)} has a parent that is not here",
                subject=timeline_text(timeline.id),
                position=str(Cut(timeline.parent, timeline.fork)),
                next_step="`farshore verify GROUP --deep`",
            )
        self.require_room(1)
        self._by_id[timeline.id] = timeline

    def require_room(self, count: int) -> None:
        """WrongState if so many more cannot be taken in: to be asked before one is durable."""
        if len(self._by_id) + count > TIMELINES_MAX:
            raise WrongState("too many timelines", next_step="drop branches that are no longer needed")

    def remove(self, timeline: int) -> None:
        """Forget a timeline that no other one left."""
        del self._by_id[timeline]

    def lineage(self, head: int, end: int = POSITION_MAX) -> list[Span]:
        """Spans from the root to `head`, whose own ends at `end`. Each ends where the next begins."""
        spans: list[Span] = []
        timeline_id, steps = head, 0
        while timeline_id != NO_TIMELINE:
            timeline = self.get(timeline_id)
            if timeline.fork < end:
                spans.append(Span(timeline.id, timeline.lane, timeline.fork, end))
            end = min(end, timeline.fork)
            timeline_id = timeline.parent
            steps += 1
            if steps > len(self._by_id):
                raise Corruption("the lineage leads back to itself", subject=timeline_text(head))
        spans.reverse()
        return spans

    def lane_for_child(self, parent: int, fork: int, *, certain: bool) -> int:
        """The lane of a timeline that leaves `parent` at `fork`: the parent's own if it is `certain` that the
        parent ends there, at every site and for ever, and nothing else in that lane reaches past the fork;
        else a new one."""
        if parent == NO_TIMELINE:
            return self.new_lane()
        lane = self.get(parent).lane
        return lane if certain and not self._taken(lane, parent, fork) else self.new_lane()

    def new_lane(self) -> int:
        """A lane that no timeline has."""
        return max((timeline.lane for timeline in self._by_id.values()), default=-1) + 1

    def _taken(self, lane: int, timeline: int, position: int) -> bool:
        """Whether another timeline than `timeline` has a part of the lane from `position` on."""
        others = (each for each in self._by_id.values() if each.lane == lane and each.id != timeline)
        return any(each.fork >= position for each in others)

    def may_extend(self, timeline: int, position: int) -> bool:
        """Whether nothing else in the timeline's lane reaches past `position`."""
        return not self._taken(self.get(timeline).lane, timeline, position)

    def generation(self) -> int:
        """The highest generation that this site knows of; 0 if there is no timeline."""
        return max((timeline.generation for timeline in self._by_id.values()), default=0)

    def children(self, timeline: int) -> list[Timeline]:
        """Timelines that left this one, by fork."""
        return [each for each in self.all() if each.parent == timeline]


def tail_after(spans: list[Span], fork: Cut) -> list[Span]:
    """The part of a lineage after a cut on it."""
    tail = []
    for span in reversed(spans):
        if span.timeline == fork.timeline:
            if span.end > fork.position:
                tail.append(Span(span.timeline, span.lane, fork.position, span.end))
            break
        tail.append(span)
    tail.reverse()
    return tail


def holds(spans: list[Span], timeline: int, position: int) -> bool:
    """Whether the event at (timeline, position) is on the lineage `spans`."""
    return any(span.timeline == timeline and span.start <= position < span.end for span in spans)


class Places:
    """A lineage, to ask of thousands of places whether they are on it: `holds` walks its spans each time."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._ranges = {span.timeline: (span.start, span.end) for span in spans}

    def __contains__(self, place: tuple[int, int]) -> bool:
        """As `holds`, of (timeline, position)."""
        start, end = self._ranges.get(place[0], (0, 0))
        return start <= place[1] < end


def holds_cut(spans: list[Span], cut: Cut) -> bool:
    """Whether a cut lies on the lineage: its boundary may be a span's end."""
    return any(span.timeline == cut.timeline and span.start <= cut.position <= span.end for span in spans)
