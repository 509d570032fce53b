"""How fast a peer is sent to, and whose turn it is: one token bucket and one queue a peer.

The bucket counts the bytes that travel, after compression. A message may go as soon as the bucket holds it,
or is full; it may then owe what it took too much, so that a rate below one message a second works. On average
no more than the rate leaves, and never more than one burst and one message above it.

Whoever may not send at once waits in the queue, first in, first out: groups, and answers to what the peer
asks. A turn is one message; who has more goes to the back. So nobody waits longer than for one message of
each of the others, however large theirs are, and the bucket is spent by one at a time. Without a rate there
is no queue, and to ask costs one comparison. Heartbeats and other small messages do not ask.

The queue has a clock of its own, no group's: one that stops keeps nobody else waiting. The bucket has none:
whoever asks says what time it is.
"""

from __future__ import annotations

from typing import Protocol

from engine.group.compartment import attempt
from engine.ports.clock import Clock, Timer
from protocol.limits import SHIP_MESSAGE_BYTES

BURST_S = 1.0


class TokenBucket:
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


class Sender(Protocol):
    """Who waits in the queue. Known by its identity."""

    def take_turn(self) -> None:
        """Send one message now; ask for another turn if there are more."""

    def turn_failed(self, defect: Exception) -> None:
        """`take_turn` raised what nobody expected."""


class SendQueue:
    """Senders to one peer, of which one after the other may send."""

    def __init__(self, clock: Clock, bucket: TokenBucket | None = None) -> None:
        self._clock = clock
        self._bucket = bucket or TokenBucket()
        self._waiting: dict[Sender, None] = {}  # in their order
        self._turn: Sender | None = None  # has not sent yet
        self._timer: Timer | None = None

    def may_send(self, sender: Sender) -> bool:
        """Whether `sender` may send a message now, which it then does at once; if not, it waits, and is
        called when it is its turn."""
        if not self._bucket.rate_bytes_s or self._turn is sender:
            return True
        if sender in self._waiting:
            return False
        if not self._waiting and self._wait_s() == 0.0:
            return True
        self._waiting[sender] = None
        self._set_timer()
        return False

    def sent(self, size_bytes: int) -> None:
        """Who might send a message has done so."""
        if self._bucket.rate_bytes_s:
            self._turn = None
            self._bucket.spend(size_bytes, self._clock.monotonic())

    def leave(self, sender: Sender) -> None:
        """It has nothing to send any more."""
        self._waiting.pop(sender, None)
        if not self._waiting:
            self._stop_timer()

    def set_rate(self, rate_bytes_s: int) -> None:
        """Another rate from now on, for those too that wait; 0: as fast as it goes."""
        if rate_bytes_s != self._bucket.rate_bytes_s:
            self._bucket.set_rate(rate_bytes_s, self._clock.monotonic())
            self._stop_timer()
            self._set_timer()

    def _wait_s(self) -> float:
        """Until the next message may go: at once while the bucket holds anything, as that much is owed
        afterwards. If it does not, then once it holds a whole message, so that small ones go several at a
        time."""
        now_s = self._clock.monotonic()
        return self._bucket.wait_s(1, now_s) and self._bucket.wait_s(SHIP_MESSAGE_BYTES, now_s)

    def _set_timer(self) -> None:
        if self._waiting and self._timer is None:
            self._timer = self._clock.call_later(self._wait_s(), self._next)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _next(self) -> None:
        """One turn: whatever else is to be done comes between two."""
        self._timer = None
        sender = next(iter(self._waiting))
        del self._waiting[sender]
        self._turn = sender
        defect = attempt("peer.turn_failed", sender.take_turn)
        self._turn = None
        if defect is not None:
            sender.turn_failed(defect)
        self._set_timer()
