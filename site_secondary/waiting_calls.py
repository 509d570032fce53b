"""Calls of peers that have had their share of this site's time (engine.peer_pace): they wait, in order.

Only what a peer awaits an answer to before it goes on comes here: a HELLO, a FETCH. A call that is repeated
while it waits takes the place of the one before, which nobody awaits any more: were each carried out, groups
that repeat theirs faster than they get their turn would fill the queue, and no session would ever begin. So
one call of a group, and one of a session, have a turn each before any has the next; a peer that has more is
refused.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.peer_pace import PeerPace
from engine.ports.clock import Clock
from engine.ports.transport import Caller
from protocol.limits import GROUPS_MAX
from protocol.messages import Fetch, Hello

LOOK_AGAIN_S = 0.02
Call = Hello | Fetch


class WaitingCalls:
    """Of every peer; `take` is given each once its peer may have another turn. It raises nothing."""

    def __init__(self, pace: PeerPace, clock: Clock, take: Callable[[Caller, Call], None]) -> None:
        self._pace = pace
        self._clock = clock
        self._take = take
        # By peer; then by group or session, oldest first.
        self._calls: dict[str, dict[str | int, tuple[Caller, Call]]] = {}

    def must_wait(self, peer: str) -> bool:
        """Whether a call of that peer cannot be taken now."""
        return bool(self._calls.get(peer)) or not self._pace.ready(peer, self._clock.monotonic())

    def add(self, caller: Caller, message: Call) -> bool:
        """Have it wait; False if too many do."""
        calls = self._calls.setdefault(caller.peer, {})
        what = message.group if isinstance(message, Hello) else message.session
        if what not in calls and len(calls) >= GROUPS_MAX:
            return False
        if not calls:
            self._clock.call_later(LOOK_AGAIN_S, lambda: self._go_on(caller.peer))
        calls[what] = caller, message
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
            self._take(*calls.pop(next(iter(calls))))  # one: others have their turn before the next
        if calls:
            self._clock.call_later(LOOK_AGAIN_S, lambda: self._go_on(peer))
