"""What time it is for the any-point window: the window goes back from there, and what is before it may be
removed.

What was removed does not come back, and a clock may be wrong: one that jumps a year ahead must not take the
whole window with it. So the time is that of the newest write here, where the clock is further; and it goes
on at most twice as fast as monotonic time. It catches up after a stop in as long as that took, and an
operator whose clock is wrong has half the window's length to set it right before the last of it is gone.
"""

from __future__ import annotations

from engine.ports.clock import Clock

SPEED_MAX = 2


class WindowTime:
    """Of one group, of this run."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._utc_ns: int | None = None
        self._at_s = 0.0

    def utc_ns(self, newest_ns: int) -> int:
        """The time now, if the newest frame says `newest_ns` (0: there is none). Ask now and then, from the
        start on."""
        now_ns, now_s = min(self._clock.utc_ns(), newest_ns), self._clock.monotonic()
        if not newest_ns:
            return 0
        if self._utc_ns is None:
            self._utc_ns = now_ns
        else:
            limit_ns = self._utc_ns + int(SPEED_MAX * (now_s - self._at_s) * 1e9)
            self._utc_ns = min(now_ns, limit_ns)
        self._at_s = now_s
        return self._utc_ns
