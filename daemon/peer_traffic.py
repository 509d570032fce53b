"""How this site sends to each of its peers: as the operator chose, groups and answers in one queue a peer.

Rates by the time of day (site_primary.shipping.rate_windows) are looked at every few seconds rather than when
one is due: the wall clock that they go by may be set meanwhile.

Groups bring their own senders (site_primary.shipping). Answers to what a peer asks about a group are one
sender together, whatever the number of questions: a peer that asks much holds up only what it asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from daemon.peers import PeerOptions
from engine.group.compartment import attempt
from engine.group.core import GroupCore
from engine.peering.peer_answers import Header
from engine.ports.clock import Clock, Timer
from engine.ports.transport import Caller
from protocol.compress import Compression
from site_primary.shipping.rate_limit import SendQueue
from site_primary.shipping.rate_windows import rate_at
from site_primary.shipping.session import PeerTraffic

# How soon a window that began is noticed, also after the wall clock was set.
LOOK_S = 2.0


class _Answers:
    """About one group, to one peer. Those that wait do so in their order."""

    def __init__(self, queue: SendQueue) -> None:
        self.waiting_bytes = 0
        self._queue = queue
        self._waiting: deque[tuple[Callable[[], None], int]] = deque()

    def add(self, send: Callable[[], None], size_bytes: int) -> None:
        """Send one, at once or in its turn."""
        self._waiting.append((send, size_bytes))
        self.waiting_bytes += size_bytes
        if len(self._waiting) == 1:
            self.take_turn()

    def take_turn(self) -> None:
        """See `Sender.take_turn`."""
        while self._waiting and self._queue.may_send(self):
            send, size_bytes = self._waiting.popleft()
            self.waiting_bytes -= size_bytes
            self._queue.sent(size_bytes)
            send()

    def turn_failed(self, defect: Exception) -> None:
        """See `Sender.turn_failed`. That was one answer; the others are sent."""
        self.take_turn()

    def stop(self) -> None:
        """Nothing of it is sent any more."""
        self._queue.leave(self)
        self._waiting.clear()
        self.waiting_bytes = 0


class SiteTraffic:
    """What goes to each peer, by the options chosen for it. `options_of` says what was chosen for a named
    peer, `unread` how many bytes the transport holds for it."""

    def __init__(
        self, clock: Clock, options_of: Callable[[str], PeerOptions], unread: Callable[[str], int]
    ) -> None:
        self._clock = clock
        self._options_of = options_of
        self._unread = unread
        self._traffic: dict[str, PeerTraffic] = {}
        self._answers: dict[str, dict[str, _Answers]] = {}  # by peer and group
        self._timer: Timer | None = None

    def to(self, peer: str) -> PeerTraffic:
        """How a peer is sent to, as its options say now; one for all groups."""
        traffic = self._traffic.get(peer)
        if traffic is None:
            traffic = self._traffic[peer] = PeerTraffic(SendQueue(self._clock))
        options = self._options_of(peer)
        traffic.queue.set_rate(rate_at(options.rate_bytes_s, options.windows, self._clock.utc_ns()))
        if options.windows and self._timer is None:
            self._timer = self._clock.call_later(LOOK_S, self._look)
        traffic.compression = Compression[options.compress.upper()]
        return traffic

    def _look(self) -> None:
        """Whether a window began or ended, as the clock shows it now; then look again."""
        self._timer = None
        for peer in list(self._traffic):
            attempt("peer.rate_failed", self.to, peer)

    def rename(self, peer: str, new: str) -> None:
        """The peer has another name; what goes to it waits as it did."""
        if peer in self._traffic:
            self._traffic[new] = self._traffic.pop(peer)
        if peer in self._answers:
            self._answers[new] = self._answers.pop(peer)

    def answer(self, caller: Caller, group: GroupCore, header: Header, payload: bytes) -> None:
        """Send an answer about a group as a peer is sent to."""
        traffic = self.to(caller.peer)
        used, wire = traffic.pack(payload)
        of_peer = self._answers.setdefault(caller.peer, {})
        answers = of_peer.get(group.name)
        if answers is None:
            answers = of_peer[group.name] = _Answers(traffic.queue)
        answers.add(partial(caller.send, header(used), wire), len(wire))

    def unread_bytes(self, peer: str) -> int:
        """Of answers that wait for their turn, and of all that the transport holds for a peer."""
        waiting = sum(answers.waiting_bytes for answers in self._answers.get(peer, {}).values())
        return waiting + self._unread(peer)

    def group_stopped(self, group: str) -> None:
        """No answer about it is sent any more."""
        for of_peer in self._answers.values():
            answers = of_peer.pop(group, None)
            if answers is not None:
                answers.stop()

    def close(self) -> None:
        """Nothing is sent any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for of_peer in self._answers.values():
            for answers in of_peer.values():
                answers.stop()
