"""How much of this site's time each peer has had: hosts wait in the same loop.

A question may cost a commit, or the reading of 4 MiB; a HELLO may cost several commits. What each took is
measured and noted as its peer's debt, which is paid off with `PEER_TIME_SHARE` of the time that passes. A
peer whose debt is `PEER_TIME_BURST_S` waits for its next turn; nobody else does. One call, however slow the
disk is, counts as `PEER_CALL_S_MAX` at most, so that a disk that hangs once does not shut a peer out.

What commits costs `PEER_COMMIT_S` at least, on the fastest disk too.

Calls (a session's beginning, what it fetches) and questions wait in two places and pay from one debt. Where
both wait they take turns: a restore that always has questions under way must not keep the peer's other groups
from coming back.
"""

from __future__ import annotations

from enum import Enum

from protocol.limits import PEER_CALL_S_MAX, PEER_DEBT_S_END, PEER_TIME_BURST_S, PEER_TIME_SHARE


class Turn(Enum):
    """What a peer may have a turn for."""

    CALL = "call"
    QUESTION = "question"


class PeerPace:
    """By peer; `now_s` is monotonic time."""

    def __init__(self) -> None:
        self._debts: dict[str, tuple[float, float]] = {}  # seconds, and when that was so
        self._last: dict[str, Turn] = {}
        self._waiting: set[tuple[str, Turn]] = set()

    def ready(self, peer: str, now_s: float, turn: Turn) -> bool:
        """Whether it may have another turn: not a second one while the other kind waits."""
        other = Turn.QUESTION if turn is Turn.CALL else Turn.CALL
        if self._last.get(peer) is turn and (peer, other) in self._waiting:
            return False
        return self._debt_s(peer, now_s) < PEER_TIME_BURST_S

    def waits(self, peer: str, turn: Turn, waiting: bool) -> None:
        """Whether something of that kind waits for nothing but its turn."""
        (self._waiting.add if waiting else self._waiting.discard)((peer, turn))

    def exhausted(self, peer: str, now_s: float) -> bool:
        """Whether it has taken so much by what cannot wait that its session must end."""
        return self._debt_s(peer, now_s) >= PEER_DEBT_S_END

    def spend(self, peer: str, now_s: float, took_s: float, turn: Turn | None = None) -> None:
        """It had a turn, or (None) was heard without waiting for one."""
        if turn is not None:
            self._last[peer] = turn
        self._debts[peer] = (self._debt_s(peer, now_s) + min(took_s, PEER_CALL_S_MAX), now_s)

    def _debt_s(self, peer: str, now_s: float) -> float:
        debt_s, at_s = self._debts.get(peer, (0.0, now_s))
        return max(0.0, debt_s - PEER_TIME_SHARE * (now_s - at_s))
