"""How much of this site's time each peer has had: hosts wait in the same loop.

A question may cost a commit, or the reading of 4 MiB; a HELLO may cost several commits. What each took is
measured and noted as its peer's debt, which is paid off with `PEER_TIME_SHARE` of the time that passes. A
peer whose debt is `PEER_TIME_BURST_S` waits for its next turn; nobody else does. One call, however slow the
disk is, counts as `PEER_CALL_S_MAX` at most, so that a disk that hangs once does not shut a peer out.

What commits costs `PEER_COMMIT_S` at least, on the fastest disk too.
"""

from __future__ import annotations

from protocol.limits import PEER_CALL_S_MAX, PEER_DEBT_S_END, PEER_TIME_BURST_S, PEER_TIME_SHARE


class PeerPace:
    """By peer; `now_s` is monotonic time."""

    def __init__(self) -> None:
        self._debts: dict[str, tuple[float, float]] = {}  # seconds, and when that was so

    def ready(self, peer: str, now_s: float) -> bool:
        """Whether it may have another turn."""
        return self._debt_s(peer, now_s) < PEER_TIME_BURST_S

    def exhausted(self, peer: str, now_s: float) -> bool:
        """Whether it has taken so much by what cannot wait that its session must end."""
        return self._debt_s(peer, now_s) >= PEER_DEBT_S_END

    def spend(self, peer: str, now_s: float, took_s: float) -> None:
        """It had a turn."""
        self._debts[peer] = (self._debt_s(peer, now_s) + min(took_s, PEER_CALL_S_MAX), now_s)

    def _debt_s(self, peer: str, now_s: float) -> float:
        debt_s, at_s = self._debts.get(peer, (0.0, now_s))
        return max(0.0, debt_s - PEER_TIME_SHARE * (now_s - at_s))
