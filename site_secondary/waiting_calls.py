"""Calls of peers that have had their share of this site's time (engine.peer_pace): they wait, in order.

Only what a peer awaits an answer to before it goes on comes here: a HELLO, a FETCH. Each of its groups has
one under way; a peer that has more is refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from engine.peer_pace import PeerPace
from engine.ports.clock import Clock
from engine.ports.transport import Caller
from protocol.limits import GROUPS_MAX
from protocol.messages import Message

LOOK_AGAIN_S = 0.02
Call = tuple[Caller, Message]


class WaitingCalls:
    """Of every peer; `take` is given each once its peer may have another turn. It raises nothing."""

    def __init__(self, pace: PeerPace, clock: Clock, take: Callable[[Caller, Message], None]) -> None:
        self._pace = pace
        self._clock = clock
        self._take = take
        self._calls: dict[str, deque[Call]] = {}

    def must_wait(self, peer: str) -> bool:
        """Whether a call of that peer cannot be taken now."""
        return bool(self._calls.get(peer)) or not self._pace.ready(peer, self._clock.monotonic())

    def add(self, caller: Caller, message: Message) -> bool:
        """Have it wait; False if too many do."""
        calls = self._calls.setdefault(caller.peer, deque())
        if len(calls) >= GROUPS_MAX:
            return False
        calls.append((caller, message))
        if len(calls) == 1:
            self._clock.call_later(LOOK_AGAIN_S, lambda: self._go_on(caller.peer))
        return True

    def close(self) -> None:
        """Nobody is taken any more: the site stops, and its groups are about to be closed."""
        for calls in self._calls.values():
            calls.clear()

    def _go_on(self, peer: str) -> None:
        calls = self._calls[peer]
        if not calls:
            return
        if self._pace.ready(peer, self._clock.monotonic()):
            self._take(*calls.popleft())  # one: others have their turn before the next
        if calls:
            self._clock.call_later(LOOK_AGAIN_S, lambda: self._go_on(peer))
