"""Visibility: which versions of a volume count at a cut.

A list of half-open intervals (lane, from, to) of version numbers, newest first. A block's content is its
newest version in the first interval that has one; none means zeroes. A volume begins with one interval; each
`Revert` puts a new one before what was visible at the revert's cut, so that a restore changes no byte of the
past. A base puts its lane before what was visible at the cut that it stands on.

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


def visibility(
    timelines: TimelineTable, history: VolumeHistory, volume: int, head: int, end: int
) -> tuple[Interval, ...]:
    """Intervals of `volume` (id) at position `end` of timeline `head`. Refused past the limit of intervals;
    Trimmed where this site does not hold what it takes."""
    intervals: list[Interval] = []
    born = next((s.timeline for s in timelines.lineage(head, end) if s.start <= volume < s.end), None)
    require_held(timelines, Cut(head, end))
    while True:
        spans = timelines.lineage(head, end)
        if born is not None and not holds(spans, born, volume):
            return _joined(intervals)  # it did not exist there; another branch may have used its id
        revert = None
        for entry in history.reverts_of(volume):
            if holds(spans, entry.timeline, entry.position):
                revert = entry
        low = volume if revert is None else revert.position
        base = base_on(timelines, spans)
        if base is not None and base.cut.position > low:
            intervals += _clip(spans, base.cut.position)
            intervals.append(Interval(base.lane, 0, POSITION_MAX))
            below = base.start
        else:
            intervals += _clip(spans, low)
            below = revert.cut if revert else None
        if len(intervals) > VISIBILITY_INTERVALS_MAX:
            raise Refused(
                f"the volume has been turned back more than {VISIBILITY_INTERVALS_MAX} times over",
                position=str(Cut(head, end)),
                next_step="copy it into a new volume: nbdcopy from its export at a cut",
            )
        if below is None:
            return _joined(intervals)
        require_held(timelines, below)
        head, end = below.timeline, below.position


def _joined(intervals: list[Interval]) -> tuple[Interval, ...]:
    """The same versions with fewer intervals: turning back to just before a revert leaves neighbours."""
    result: list[Interval] = []
    for interval in intervals:
        if result and result[-1].lane == interval.lane and result[-1].low == interval.high:
            result[-1] = result[-1]._replace(low=interval.low)
        else:
            result.append(interval)
    return tuple(result)
