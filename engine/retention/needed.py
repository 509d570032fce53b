"""What of the past must stay readable, and so which versions of a block the index must keep.

A *horizon* is a cut below which history has been thinned: on the line of timelines that leads to it, a cut
before it is readable only if it is *kept*. A group has one horizon on its head's lineage, and one more on
each branch that was the head before. Kept cuts are those of copies, of leases, those that later reverts go
back to, and the places where a branch leaves the line below a horizon.

What a cut sees of a lane ends at some position, its bound there (engine.history.visibility). Of the versions
of a block in one lane, numbered p with the next newer one s, a reader bound to b finds p if p < b <= s. So
below the lane's horizon p is needed while a bound lies in (p, s]; at and above it everything is.

    meta 'retention'    row (horizons, kept, truncated), each of rows; see `Retention`

Example of why kept cuts are written down and not derived: a `Mark` that names an old cut may come from the
peer long after this site thinned it. Derived, it would look kept, and read whatever is left.

Pure: no I/O.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

from engine.history.bases import common_cut
from engine.history.timelines import Span, TimelineTable
from engine.history.volumes import VolumeHistory
from engine.index.versions import index_row
from engine.ports.store import ReadTransaction
from engine.retention.cut_bounds import Bounds
from protocol.bounds import DigestOrNone, Lane, Position, TimelineId, UtcNs
from protocol.positions import NO_TIMELINE, Cut
from protocol.rows import pack_row
from protocol.wire import RowType

RETENTION_KEY = b"retention"
RETENTION_BYTES_MAX = 16 << 20

_Anchored = tuple[TimelineId, Position, DigestOrNone, UtcNs]
_RETENTION = RowType(tuple[tuple[Cut, ...], tuple[_Anchored, ...], tuple[_Anchored, ...]])
KeepRow = tuple[
    tuple[Cut, ...],
    tuple[Cut, ...],
    tuple[tuple[Lane, Position], ...],
    tuple[tuple[Lane, tuple[Position, ...]], ...],
]
_KEEP = RowType(cast("type[KeepRow]", KeepRow))


class Anchor(NamedTuple):
    """What the frame that ended at a cut said of itself: the digest that the next one continues, and the
    time. `digest` is empty while the frame is still in the journal."""

    digest: bytes
    utc_ns: int


NO_ANCHOR = Anchor(b"", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """`kept` are the cuts readable below the horizons; `truncated` says of each timeline from which position
    on it is still in the journal, with the anchor there."""

    horizons: frozenset[Cut] = frozenset()
    kept: Mapping[Cut, Anchor] = field(default_factory=dict)
    truncated: Mapping[int, tuple[int, Anchor]] = field(default_factory=dict)

    def truncated_to(self, timeline: int) -> int:
        """The position up to which a timeline's frames have gone; 0 if none have."""
        found = self.truncated.get(timeline)
        return found[0] if found else 0

    def anchor(self, timeline: int, position: int) -> Anchor | None:
        """What is known of the frame that ended there and has gone."""
        truncated = self.truncated.get(timeline)
        if truncated is not None and truncated[0] == position:
            return truncated[1]
        kept = self.kept.get(Cut(timeline, position), NO_ANCHOR)
        return kept if kept.digest else None

    def to_value(self) -> bytes:
        """The row."""
        return pack_row(
            (
                [(cut.timeline, cut.position) for cut in sorted(self.horizons)],
                [(cut.timeline, cut.position, *anchor) for cut, anchor in sorted(self.kept.items())],
                [
                    (timeline, position, *anchor)
                    for timeline, (position, anchor) in sorted(self.truncated.items())
                ],
            )
        )

    @classmethod
    def from_value(cls, value: bytes) -> Retention:
        """What such a row says. RemoteProtocolError if it is anything else."""
        horizons, kept, truncated = _RETENTION.decode(value, RETENTION_BYTES_MAX)
        return cls(
            horizons=frozenset(horizons),
            kept={Cut(row[0], row[1]): Anchor(row[2], row[3]) for row in kept},
            truncated={row[0]: (row[1], Anchor(row[2], row[3])) for row in truncated},
        )


def load_retention(transaction: ReadTransaction) -> Retention:
    """What the last truncation left."""
    value = transaction.get("meta", RETENTION_KEY)
    if value is None:
        return Retention()
    with index_row("meta", RETENTION_KEY):
        return Retention.from_value(value)


def needed(p: int, newer: int, bounds: tuple[int, ...]) -> bool:
    """Whether a version below its lane's horizon is found by a reader: its next newer one is `newer`."""
    return bisect_right(bounds, p) < bisect_right(bounds, newer)


def same_name(table: TimelineTable, cut: Cut) -> Cut:
    """The cut under the name of the timeline whose frames end there: a child starts at its parent's."""
    while cut.timeline != NO_TIMELINE:
        timeline = table.get(cut.timeline)
        if cut.position != timeline.fork or timeline.parent == NO_TIMELINE:
            break
        cut = Cut(timeline.parent, timeline.fork)
    return cut


class WayTo:
    """The lineage of a horizon, to ask of many cuts whether they lie on it."""

    def __init__(self, table: TimelineTable, horizon: Cut) -> None:
        spans = table.lineage(horizon.timeline, horizon.position) if horizon.timeline in table else []
        self._end = horizon.position
        self._ranges = {span.timeline: (span.start, span.end) for span in spans}

    def below(self, cut: Cut) -> bool:
        """Whether a cut lies before the horizon on the way to it."""
        start, end = self._ranges.get(cut.timeline, (0, -1))
        return start <= cut.position <= end and cut.position < self._end


def readable(table: TimelineTable, retention: Retention, cut: Cut) -> bool:
    """Whether a cut of a timeline held here can still be read in full."""
    cut = same_name(table, cut)
    return cut in retention.kept or not any(
        WayTo(table, horizon).below(cut) for horizon in retention.horizons
    )


def horizon_on(table: TimelineTable, spans: list[Span], horizon: Cut) -> Cut | None:
    """A horizon as another line has it that leads along `spans`: there, or where that line left the way to
    it. What both have before that was thinned for the horizon, but for the cut where they part. None if they
    have nothing in common."""
    if horizon.timeline not in table:
        return None
    return common_cut(spans, table.lineage(horizon.timeline, horizon.position))


def lane_horizons(table: TimelineTable, horizons: Iterable[Cut]) -> dict[int, int]:
    """By lane: the number from which on all of its versions stay. Lanes that no horizon reaches stay
    whole."""
    found: dict[int, int] = {}
    for horizon in horizons:
        for span in table.lineage(horizon.timeline, horizon.position):
            found[span.lane] = max(found.get(span.lane, 0), span.end)
    return found


def up_to(horizons: Mapping[int, int], dropped: Iterable[tuple[int, int]]) -> dict[int, int]:
    """The horizons of lanes, no further than where (lane, number) a branch begins that is being dropped. Its
    rows go as they are: of a run that fell apart beside that, single blocks would stay where the sweep has
    passed, and be read in the next branch that has the lane."""
    found = dict(horizons)
    for lane, number in dropped:
        if lane in found:
            found[lane] = min(found[lane], number)
    return found


def raised(table: TimelineTable, horizons: Iterable[Cut], horizon: Cut) -> frozenset[Cut]:
    """The horizons with a new one, in place of those on the way to it."""
    new = same_name(table, horizon)
    others = {old for old in horizons if old.timeline in table}
    if any(new == old or WayTo(table, old).below(new) for old in others):
        return frozenset(others)
    way = WayTo(table, new)
    return frozenset({old for old in others if not way.below(old)} | {new})


def cut_back(
    horizons: Iterable[Cut], parts: Iterable[tuple[int, int]], fork_of: Callable[[int], Cut]
) -> frozenset[Cut]:
    """The horizons without timelines that are dropped, each from a position on: what lies below such a place
    was thinned all the same. `fork_of` gives where a timeline left its parent.

    Example: a branch was the head, and history was truncated up to a horizon on it. With the branch its
    horizon would go, and cuts that both lines share look as if all of them were there."""
    starts = dict(parts)
    found = set()
    for horizon in horizons:
        timeline, position = horizon.timeline, horizon.position
        while timeline in starts:
            position = min(position, starts[timeline])
            fork = fork_of(timeline)
            if position != fork.position:
                break  # it goes on to the place where it was left
            timeline = fork.timeline
        if timeline != NO_TIMELINE:
            found.add(Cut(timeline, position))
    return frozenset(found)


def without(
    retention: Retention, parts: Iterable[tuple[int, int]], fork_of: Callable[[int], Cut]
) -> Retention:
    """What stays when timelines are dropped, each from a position on (see `cut_back`). A part that comes back
    from a peer is in the journal again: nothing past the position counts as truncated then."""
    starts = dict(parts)
    truncated = {}
    for timeline, (end, anchor) in retention.truncated.items():
        start = starts.get(timeline)
        if start is None or end <= start:
            truncated[timeline] = (end, anchor)
        elif start != fork_of(timeline).position:
            truncated[timeline] = (start, retention.anchor(timeline, start) or NO_ANCHOR)
    return replace(
        retention, horizons=cut_back(retention.horizons, starts.items(), fork_of), truncated=truncated
    )


def departures(table: TimelineTable, horizons: Iterable[Cut], tails: Iterable[int]) -> set[Cut]:
    """Where timelines held here leave the way to a horizon: each reads the past through that place. `tails`
    are timelines that go on past a fork of theirs."""
    found: set[Cut] = set()
    for horizon in horizons:
        ends = {span.timeline: span.end for span in table.lineage(horizon.timeline, horizon.position)}
        for timeline in table.all():
            if timeline.id in ends or timeline.parent not in ends:
                continue
            found.add(same_name(table, Cut(timeline.parent, min(timeline.fork, ends[timeline.parent]))))
        found |= {same_name(table, Cut(each, ends[each])) for each in tails if each in ends}
    return found


def revert_cuts(table: TimelineTable, history: VolumeHistory, horizons: Mapping[int, int]) -> set[Cut]:
    """The cuts that reverts at or above the horizons go back to; those below them are bounds of what
    stays."""
    found = set()
    for entry in history.all_reverts():
        if entry.timeline not in table or entry.cut.timeline not in table:
            continue  # what went with a branch can be read by nobody
        if entry.position >= horizons.get(table.get(entry.timeline).lane, 0):
            found.add(same_name(table, entry.cut))
    return found


def base_starts(table: TimelineTable, horizons: Mapping[int, int]) -> set[Cut]:
    """The cuts that bases at or above the horizons stand on. Frames that were here already may go on from
    such a cut, and a horizon lie among them: it sees other versions than those that the base is laid upon."""
    return {
        same_name(table, base.start)
        for base in table.bases
        if base.start is not None
        and base.start.timeline in table
        and base.cut.timeline in table
        and base.cut.position >= horizons.get(table.get(base.cut.timeline).lane, 0)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """What a truncation must leave readable: `cuts` below `horizons`, as bounds and horizons of lanes."""

    horizons: frozenset[Cut]
    cuts: frozenset[Cut]
    lane_horizons: Mapping[int, int]
    bounds: Bounds

    def to_row(self) -> tuple[object, ...]:
        """As a row within a request."""
        return (
            [(cut.timeline, cut.position) for cut in sorted(self.horizons)],
            [(cut.timeline, cut.position) for cut in sorted(self.cuts)],
            sorted(self.lane_horizons.items()),
            [(lane, list(highs)) for lane, highs in sorted(self.bounds.items())],
        )

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Keep:
        """What such a row says. RemoteProtocolError if it is anything else."""
        return cls.of(_KEEP.convert(row))

    @classmethod
    def of(cls, row: KeepRow) -> Keep:
        """What a decoded row says."""
        horizons, cuts, lanes, bounds = row
        return cls(
            horizons=frozenset(horizons), cuts=frozenset(cuts), lane_horizons=dict(lanes), bounds=dict(bounds)
        )


def what_to_keep(
    table: TimelineTable,
    history: VolumeHistory,
    retention: Retention,
    horizons: frozenset[Cut],
    wanted: Iterable[Cut],
    tails: Iterable[int],
    bounds_of: Callable[[Iterable[Cut]], Bounds],
) -> Keep:
    """What stays below `horizons` (those of `retention`, or raised): of the `wanted` cuts those that can
    still be read, with the horizons themselves, departures, what reverts go back to and bases stand on."""
    lanes = lane_horizons(table, horizons)
    cuts = {same_name(table, cut) for cut in wanted if cut.timeline in table}
    cuts |= departures(table, horizons, tails)
    cuts |= revert_cuts(table, history, lanes) | base_starts(table, lanes)
    before = [WayTo(table, horizon) for horizon in retention.horizons]
    after = [WayTo(table, horizon) for horizon in horizons]
    kept = frozenset(
        cut
        for cut in cuts
        if any(way.below(cut) for way in after)
        and (cut in retention.kept or not any(way.below(cut) for way in before))
    )
    return Keep(horizons=horizons, cuts=kept, lane_horizons=lanes, bounds=bounds_of(kept | horizons))
