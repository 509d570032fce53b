"""How long a test that waits for something lets pass before it looks again."""

from __future__ import annotations

PAUSE_S_MIN = 0.05


def pause_s(look_s: float) -> float:
    """After a look that took so long: as long again, so that looks (most are commands) leave half of the time
    to what is waited for."""
    return max(PAUSE_S_MIN, look_s)
