"""What is said again and again: the first few of a kind in a span of time, the rest as a count.

Whoever can cause an event or a line in the log can do so a thousand times a second. What happened must still
be said, and room be left for what matters more. Time is a port.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from engine.group.compartment import attempt

K = TypeVar("K")


class Repeats(Generic[K]):
    """Of each key `most` fit in `span_s`; at the span's end `on_left_out(key, count)` tells how many more
    came, if any did. `call_later` runs a callback after so many seconds."""

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], None]], object],
        *,
        most: int,
        span_s: float,
        on_left_out: Callable[[K, int], None],
    ) -> None:
        self._call_later = call_later
        self._most = most
        self._span_s = span_s
        self._on_left_out = on_left_out
        self._counts: dict[K, int] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._counts

    def __len__(self) -> int:
        return len(self._counts)

    def fits(self, key: K) -> bool:
        """Count one more, and say whether it fits."""
        count = self._counts.get(key, 0) + 1
        self._counts[key] = count
        if count == 1:
            self._call_later(self._span_s, lambda: self._end_span(key))
        return count <= self._most

    def _end_span(self, key: K) -> None:
        """What is only counted must not stop what it counts."""
        attempt("repeats.defect", self._span_over, key)

    def _span_over(self, key: K) -> None:
        left_out = self._counts.pop(key) - self._most
        if left_out > 0:
            self._on_left_out(key, left_out)
