"""How fast a peer may be sent to: a token bucket of bytes, one a peer, whatever the number of its groups.

A message may go as soon as the bucket holds it, or is full; it may then owe what it took too much, so that a
rate below one message a second works. On average no more than the rate leaves, and never more than one burst
and one message above it.

Pure: whoever asks says what time it is.
"""

from __future__ import annotations

BURST_S = 1.0


class Pace:
    """`rate_bytes_s` bytes a second; 0: as fast as it goes. Starts full."""

    def __init__(self, rate_bytes_s: int = 0) -> None:
        self._rate_bytes_s = rate_bytes_s
        self._tokens_bytes = rate_bytes_s * BURST_S
        self._at_s: float | None = None

    @property
    def rate_bytes_s(self) -> int:
        """Bytes a second; 0: unlimited."""
        return self._rate_bytes_s

    def set_rate(self, rate_bytes_s: int, now_s: float) -> None:
        """Another rate from now on; what is owed stays owed, what was saved up is cut to the new burst."""
        self._refill(now_s)
        if not self._rate_bytes_s:
            self._tokens_bytes = rate_bytes_s * BURST_S
        self._rate_bytes_s = rate_bytes_s
        self._tokens_bytes = min(self._tokens_bytes, rate_bytes_s * BURST_S)

    def wait_s(self, size_bytes: int, now_s: float) -> float:
        """Seconds of monotonic time until `size_bytes` may be sent; 0.0: now."""
        if not self._rate_bytes_s:
            return 0.0
        self._refill(now_s)
        lacking = min(size_bytes, self._rate_bytes_s * BURST_S) - self._tokens_bytes
        return max(0.0, lacking / self._rate_bytes_s)

    def spend(self, size_bytes: int, now_s: float) -> None:
        """So much was sent."""
        if self._rate_bytes_s:
            self._refill(now_s)
            self._tokens_bytes -= size_bytes

    def _refill(self, now_s: float) -> None:
        if self._at_s is not None:
            gained = max(0.0, now_s - self._at_s) * self._rate_bytes_s
            self._tokens_bytes = min(self._tokens_bytes + gained, self._rate_bytes_s * BURST_S)
        self._at_s = now_s
