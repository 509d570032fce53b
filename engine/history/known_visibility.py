"""What was visible at the cuts that restores went back to, so that it is not worked out again for each
backup, export and restore.

It stays true until something is said of what lies below such a cut: by a revert that comes late, a base that
is installed, or a branch that is dropped.

Pure: no I/O.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from engine.history.timelines import Base, Span
from protocol.limits import VISIBILITY_INTERVALS_MAX, VOLUMES_PER_GROUP_MAX
from protocol.positions import Cut

# What is kept of a group, as intervals: two cuts of each volume that it may have, as deep as they may be. A
# restore asks for the next cut of every volume in turn; with room for fewer, each would be forgotten before
# its turn came again.
KEPT_INTERVALS = 2 * VOLUMES_PER_GROUP_MAX * VISIBILITY_INTERVALS_MAX
Key = tuple[int, int | None, Cut]  # volume, the timeline that it was made on, and the cut
Intervals = tuple[Any, ...]  # engine.history.visibility.Interval, which imports this


class KnownVisibility:
    """Those that were asked for last, of one group."""

    def __init__(self) -> None:
        self._known: OrderedDict[Key, Intervals] = OrderedDict()
        self._intervals = 0
        self._bases: list[Base] = []
        self._reach: dict[int, int] = {}  # by timeline, up to where what is known depends on it

    def get(self, bases: Sequence[Base], key: Key) -> Intervals | None:
        """What was visible there, if that is known."""
        if bases != self._bases:
            self.clear()
            return None
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
        return found

    def put(self, bases: Sequence[Base], key: Key, intervals: Intervals, spans: Sequence[Span]) -> None:
        """Keep it; `spans` are the lineages of its cut and of those below that were looked at."""
        if bases != self._bases:
            self.clear()
            self._bases = list(bases)
        for span in spans:
            self._reach[span.timeline] = max(span.end, self._reach.get(span.timeline, 0))
        self._count(self._known.pop(key, None), -1)
        self._known[key] = intervals
        self._count(intervals, 1)
        while self._intervals > KEPT_INTERVALS:
            self._count(self._known.popitem(last=False)[1], -1)

    def _count(self, intervals: Intervals | None, sign: int) -> None:
        if intervals is not None:
            self._intervals += sign * max(1, len(intervals))

    def reverted(self, timeline: int, position: int) -> None:
        """A revert stands there: what was known of a later cut may be wrong."""
        if position < self._reach.get(timeline, 0):
            self.clear()

    def clear(self) -> None:
        """Nothing is known."""
        self._known.clear()
        self._intervals = 0
        self._reach.clear()
