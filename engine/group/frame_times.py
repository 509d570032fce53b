"""The times that this run writes into frames: never before that of the frame before, nor before what a peer
was promised, and never one that no site takes.

Whatever the clock says, a time has room in a frame and at the peer. Past `FRAME_UTC_NS_MAX` it stands still:
frames of one time are in order by their positions, and are written, shipped and read like any other.
"""

from __future__ import annotations

from engine.ports.clock import Clock
from protocol.limits import FRAME_UTC_NS_MAX


class FrameTimes:
    """Those of one group. `last_ns` is the time of the head's last frame."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._floor_ns = 0

    def next_ns(self, last_ns: int) -> int:
        """The time of the next frame."""
        return max(last_ns, min(max(self._clock.utc_ns(), self._floor_ns), FRAME_UTC_NS_MAX))

    def promise_ns(self, last_ns: int) -> int:
        """The time now, or the one before the last that frames can have. Every frame that this run still
        writes says a later one, whatever the clock does."""
        self._floor_ns = min(self.next_ns(last_ns) + 1, max(FRAME_UTC_NS_MAX, last_ns))
        return self._floor_ns - 1
