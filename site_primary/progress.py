"""How long a copy or a resync still takes, at the pace since its session began."""

from __future__ import annotations

PACE_AFTER_S = 1.0


class Progress:
    """Bytes sent over time; says nothing in the first second."""

    def __init__(self) -> None:
        self._began_s = 0.0
        self._began_bytes = 0

    def begin(self, now_s: float, sent_bytes: int) -> None:
        """A session began to ship at monotonic time `now_s`, when `sent_bytes` had been sent in all."""
        self._began_s, self._began_bytes = now_s, sent_bytes

    def eta_s(self, now_s: float, sent_bytes: int, left_bytes: int) -> float | None:
        """Seconds until `left_bytes` more are sent; None if there is no pace to judge by."""
        elapsed_s, sent = now_s - self._began_s, sent_bytes - self._began_bytes
        if left_bytes <= 0:
            return 0.0
        if elapsed_s < PACE_AFTER_S or sent <= 0:
            return None
        return left_bytes * elapsed_s / sent
