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
from protocol.positions import Cut

KEPT = 64
Key = tuple[int, int | None, Cut]  # volume, the timeline that it was made on, and the cut
Intervals = tuple[Any, ...]  # engine.history.visibility.Interval, which imports this


class KnownVisibility:
    """Those that were asked for last, of one group."""

    def __init__(self) -> None:
        self._known: OrderedDict[Key, Intervals] = OrderedDict()
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
        self._known[key] = intervals
        if len(self._known) > KEPT:
            self._known.popitem(last=False)

    def reverted(self, timeline: int, position: int) -> None:
        """A revert stands there: what was known of a later cut may be wrong."""
        if position < self._reach.get(timeline, 0):
            self.clear()

    def clear(self) -> None:
        """Nothing is known."""
        self._known.clear()
        self._reach.clear()
