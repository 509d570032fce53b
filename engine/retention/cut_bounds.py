"""Where views of a lane end: what decides which versions of a block some cut still finds.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from engine.history.bases import base_on
from engine.history.timelines import Base, Timeline, TimelineTable
from engine.history.visibility import born_on, step
from engine.history.volumes import VolumeHistory
from protocol.errors import NotFound, Refused, Trimmed
from protocol.positions import Cut

Bounds = dict[int, tuple[int, ...]]
_Node = tuple[int, int | None, Cut]  # a volume (0: any), the timeline that it was made on, and a cut


class _Seen(NamedTuple):
    """Ends of lanes, (lane, position), and where else to look."""

    ends: frozenset[tuple[int, int]]
    below: tuple[_Node, ...]


class BoundsOfCuts:
    """Bounds of cuts, each worked out once: what a cut sees never changes while no timeline or base comes or
    goes, and no restore is forgotten with a branch.

    What is visible below a restore is what is visible at the cut that it went back to, so that is a node of
    its own, however many restores lead there: a thousand, one upon the other, are a thousand steps and not a
    million."""

    def __init__(self, table: TimelineTable, history: VolumeHistory) -> None:
        self._table = table
        self._history = history
        self._known: dict[_Node, _Seen] = {}
        self._places: tuple[list[Timeline], list[Base]] = ([], [])
        self._restores = 0

    def of(self, cuts: Iterable[Cut]) -> Bounds:
        """By lane, in order: every position at which one of the cuts' views of it ends."""
        known, self._known = self._known_still(), {}
        found: dict[int, set[int]] = {}
        left: list[_Node] = [(0, None, cut) for cut in cuts]
        while left:
            node = left.pop()
            if node in self._known:
                continue
            seen = self._known[node] = known.get(node) or self._look(*node)
            for lane, high in seen.ends:
                found.setdefault(lane, set()).add(high)
            left += seen.below
        return {lane: tuple(sorted(highs)) for lane, highs in found.items()}

    def _known_still(self) -> dict[_Node, _Seen]:
        before = self._places, self._restores
        self._places = self._table.all(), [*self._table.bases]
        self._restores = len(self._history.all_reverts())
        return self._known if before[0] == self._places and before[1] <= self._restores else {}

    def _look(self, volume: int, born: int | None, cut: Cut) -> _Seen:
        """What a whole group (`volume` 0) sees at a cut, or one volume below one."""
        try:
            if volume:
                part = step(self._table, self._history, volume, born, cut)
                if part is None:
                    return _Seen(frozenset(), ())
                below = () if part.below is None else ((volume, born, part.below),)
                return _Seen(frozenset((each.lane, each.high) for each in part.intervals), below)
        except (NotFound, Refused, Trimmed):
            return _Seen(frozenset(), ())  # it went back to what is not here: nobody can read it at this cut
        return self._look_at_group(cut)

    def _look_at_group(self, cut: Cut) -> _Seen:
        """A volume never turned back sees each lane of the lineage up to where the lineage leaves it."""
        ends: dict[int, int] = {}
        spans = self._table.lineage(cut.timeline, cut.position)
        for span in spans:
            ends[span.lane] = max(ends.get(span.lane, 0), span.end)
        below = [(volume, born_on(self._table, volume, cut), cut) for volume in self._history.turned_back()]
        base = base_on(self._table, spans)
        if base is not None and base.start is not None:
            below.append((0, None, base.start))
        return _Seen(frozenset(ends.items()), tuple(below))
