"""Visibility: which versions of a volume count at a cut.

A list of half-open intervals (lane, from, to) of version numbers, newest first. A block's content is its
newest version in the first interval that has one; none means zeroes. A volume begins with one interval; each
`Revert` puts a new one before what was visible at the revert's cut, so that a restore changes no byte of the
past. A base puts its lane before what was visible at the cut that it stands on.

A volume that is turned back every minute to what it was a minute before has an interval more each time. What
was visible at the cut of a restore never changes, so it is worked out once (`VolumeHistory.known`), and reads
do not look into each interval (engine.index.deep_view).

Pure: no I/O.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.history.bases import base_on, require_held
from engine.history.timelines import Span, TimelineTable, holds
from engine.history.volumes import VolumeHistory
from protocol.errors import Refused
from protocol.limits import VISIBILITY_INTERVALS_MAX
from protocol.positions import POSITION_MAX, Cut


class Interval(NamedTuple):
    """Versions of one lane numbered [low, high)."""

    lane: int
    low: int
    high: int


def _clip(spans: list[Span], low: int) -> list[Interval]:
    """The lineage from position `low` on, newest first, neighbours in one lane joined."""
    intervals: list[Interval] = []
    for span in spans:
        start = max(span.start, low)
        if start >= span.end:
            continue
        if intervals and intervals[-1].lane == span.lane and intervals[-1].high == start:
            intervals[-1] = intervals[-1]._replace(high=span.end)
        else:
            intervals.append(Interval(span.lane, start, span.end))
    intervals.reverse()
    return intervals


class Step(NamedTuple):
    """A part of a visibility: what came since the newest revert, or since a base, and below which cut the
    rest is found; None: that was all."""

    intervals: list[Interval]
    below: Cut | None


def step(
    timelines: TimelineTable, history: VolumeHistory, volume: int, born: int | None, cut: Cut
) -> Step | None:
    """The newest part of what `volume` (id, made on timeline `born`) shows at a cut; None if it did not exist
    there."""
    spans = timelines.lineage(cut.timeline, cut.position)
    if born is not None and not holds(spans, born, volume):
        return None  # another branch may have used its id
    revert = history.last_revert(volume, spans)
    low = volume if revert is None else revert.position
    base = base_on(timelines, spans)
    if base is not None and base.cut.position > low:
        return Step([*_clip(spans, base.cut.position), Interval(base.lane, 0, POSITION_MAX)], base.start)
    return Step(_clip(spans, low), revert.cut if revert else None)


def born_on(timelines: TimelineTable, volume: int, cut: Cut) -> int | None:
    """The timeline on which the volume (id) that is there at a cut was made; None if there is none."""
    spans = timelines.lineage(cut.timeline, cut.position)
    return next((span.timeline for span in spans if span.start <= volume < span.end), None)


def visibility(
    timelines: TimelineTable, history: VolumeHistory, volume: int, head: int, end: int
) -> tuple[Interval, ...]:
    """Intervals of `volume` (id) at position `end` of timeline `head`. Refused past the limit of intervals;
    Trimmed where this site does not hold what it takes."""
    top = Cut(head, end)
    born = born_on(timelines, volume, top)
    require_held(timelines, top)
    found, cut, known = list[Interval](), top, history.known
    first: Cut | None = None
    below, spans = 0, list[Span]()  # so many of `found` are above the first cut that a restore went back to
    while True:
        rest = known.get(timelines.bases, (volume, born, cut)) if cut != top else None
        if rest is not None:
            found += rest
            break
        part = step(timelines, history, volume, born, cut)
        if part is None:
            break
        found += part.intervals
        if len(found) > VISIBILITY_INTERVALS_MAX:
            break
        if part.below is None:
            break
        require_held(timelines, part.below)
        cut = part.below
        spans += timelines.lineage(cut.timeline, cut.position)
        if first is None:
            first, below = cut, len(found)
    if len(found) > VISIBILITY_INTERVALS_MAX:
        raise Refused(
            f"the volume has been turned back more than {VISIBILITY_INTERVALS_MAX} times over",
            position=str(top),
            next_step="copy it into a new volume: nbdcopy from its export at a cut",
        )
    if first is not None:
        known.put(timelines.bases, (volume, born, first), tuple(found[below:]), spans)
    return _joined(found)


def _joined(intervals: list[Interval]) -> tuple[Interval, ...]:
    """The same versions with fewer intervals: turning back to just before a revert leaves neighbours."""
    result: list[Interval] = []
    for interval in intervals:
        if result and result[-1].lane == interval.lane and result[-1].low == interval.high:
            result[-1] = result[-1]._replace(low=interval.low)
        else:
            result.append(interval)
    return tuple(result)
