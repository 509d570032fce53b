"""Calls of peers that have had their share of this site's time (engine.peering.peer_pace): they wait, in
order.

Only what a peer awaits an answer to before it goes on comes here: a HELLO, a FETCH. A call that is repeated
while it waits takes the place of the one before, which nobody awaits any more: were each carried out, groups
that repeat theirs faster than they get their turn would fill the queue, and no session would ever begin. So
one call of a group, and one of a session, have a turn each before any has the next; a peer that has more is
refused.

What is fetched is large: it waits as well while as much as `PEER_UNREAD_BYTES_MAX` is on its way to that
peer. Meanwhile the peer hears each second that this site lives, as it does in every other part of a session:
one that takes it for dead calls anew, and comes last again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from engine.peering.peer_pace import PeerPace, Turn
from engine.ports.clock import Clock
from engine.ports.transport import Caller
from protocol.limits import HEARTBEAT_INTERVAL_S, PEER_PAIRS_MAX, PEER_UNREAD_BYTES_MAX
from protocol.messages import Ack, Fetch, Hello
from protocol.positions import NO_TIMELINE

LOOK_AGAIN_S = 0.02
Call = Hello | Fetch


@dataclass(slots=True)
class _Waiting:
    """A call, and when its caller was last told that this site lives (monotonic)."""

    caller: Caller
    call: Call
    told_at: float


class WaitingCalls:
    """Of every peer; `take` is given each once its peer may have another turn. It raises nothing. `unread`
    says how many bytes the transport holds for a peer."""

    def __init__(
        self,
        pace: PeerPace,
        clock: Clock,
        take: Callable[[Caller, Call], None],
        unread: Callable[[str], int],
    ) -> None:
        self._pace = pace
        self._clock = clock
        self._take = take
        self._unread = unread
        # By peer; then by group or session, oldest first.
        self._calls: dict[str, dict[str | int, _Waiting]] = {}
        self._watched: set[str] = set()

    def must_wait(self, peer: str, call: Call) -> bool:
        """Whether a call of that peer cannot be taken now."""
        if self._calls.get(peer) or (isinstance(call, Fetch) and self._is_full(peer)):
            return True
        return not self._pace.ready(peer, self._clock.monotonic(), Turn.CALL)

    def add(self, caller: Caller, call: Call) -> bool:
        """Have it wait; False if too many do."""
        calls = self._calls.setdefault(caller.peer, {})
        what = call.group if isinstance(call, Hello) else call.session
        if what not in calls and len(calls) >= PEER_PAIRS_MAX:
            return False
        calls[what] = _Waiting(caller, call, self._clock.monotonic())
        self._look_again(caller.peer)
        return True

    def forget(self, peer: str, sessions: Iterable[int]) -> None:
        """What these sessions fetch, nobody awaits any more."""
        calls = self._calls.get(peer, {})
        for session in sessions:
            calls.pop(session, None)

    def close(self) -> None:
        """Nobody is taken any more: the site stops, and its groups are about to be closed."""
        for calls in self._calls.values():
            calls.clear()

    def _is_full(self, peer: str) -> bool:
        return self._unread(peer) >= PEER_UNREAD_BYTES_MAX

    def _next(self, peer: str) -> str | int | None:
        full = self._is_full(peer)
        calls = self._calls[peer].items()
        return next((what for what, each in calls if not (full and isinstance(each.call, Fetch))), None)

    def _look_again(self, peer: str) -> None:
        self._pace.waits(peer, Turn.CALL, self._next(peer) is not None)
        if self._calls[peer] and peer not in self._watched:
            self._watched.add(peer)
            self._clock.call_later(LOOK_AGAIN_S, lambda: self._go_on(peer))

    def _go_on(self, peer: str) -> None:
        self._watched.discard(peer)
        calls, now_s = self._calls[peer], self._clock.monotonic()
        what = self._next(peer)
        if what is not None and self._pace.ready(peer, now_s, Turn.CALL):
            waiting = calls.pop(what)  # one: others have their turn before the next
            self._take(waiting.caller, waiting.call)
        self._say_alive(calls, now_s)
        self._look_again(peer)

    def _say_alive(self, calls: dict[str | int, _Waiting], now_s: float) -> None:
        for each in calls.values():
            if isinstance(each.call, Fetch) and now_s - each.told_at >= HEARTBEAT_INTERVAL_S:
                each.told_at = now_s
                alive = Ack(session=each.call.session, timeline=NO_TIMELINE, written=0, durable=0)
                each.caller.send(alive.encode())
