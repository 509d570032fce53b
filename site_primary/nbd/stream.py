"""The receiving half of a host's connection: where its bytes go, when they are handled, and for how long.

A buffer is borrowed when bytes come, and given back once all of them are handled: an idle host holds none.
What is left of a request that is not whole yet stays in it, or if it is little is parked in a few bytes of
its own. While the site's buffers run short (`HostBudget.tight`) only little is received at once, so that it
can always be parked.

Reading stops for a reason (`Pause`) and goes on when all reasons are gone. A request that has begun must go
on: if nothing of it could be handled for `NBD_HALF_REQUEST_TIMEOUT_S`, and not because reading had stopped,
the connection is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import ParamSpec

from engine.group.compartment import attempt
from engine.ports.clock import Clock, Timer
from protocol.limits import NBD_HALF_REQUEST_TIMEOUT_S, NBD_PARKED_BYTES
from protocol.nbd.requests import REQUEST_BYTES
from site_primary.nbd.host_budget import HostBudget

P = ParamSpec("P")
PIPELINED_DEPTH = 3
DEPTH_DECAY = 0.98
COLLECT_BYTES_MAX = 512 << 10
# A host that fills its buffer gets one of twice the size next time, up to this one. One that in so many times
# never used a quarter of it gets a smaller one.
GROWN_BYTES_MAX = 2 << 20
LARGE_BYTES = 256 << 10
SHRINK_AFTER = 32
_NOTHING = memoryview(b"")


class Pause(Enum):
    """Why a host is not read from."""

    REPLIES = "it does not take its replies"
    TURN = "it has had its turn"
    PEER = "too much waits for the disk or the peer"
    OVERLOAD = "the group takes no writes"


_NOT_HANDLED = frozenset({Pause.REPLIES, Pause.TURN, Pause.PEER})


class HostStream(asyncio.BufferedProtocol):
    """Receives one host's bytes. Who derives from it handles requests: from `_start` on, until `_end` or the
    first that is not whole (of `_needed` bytes), and calls `_settle`."""

    def __init__(
        self,
        transport: asyncio.Transport,
        client: str,
        clock: Clock,
        budget: HostBudget,
        buffer_bytes: int,
    ) -> None:
        self.client = client
        self._transport = transport
        self._clock = clock
        self._budget = budget
        self._buffer_bytes = buffer_bytes
        self._next_bytes = buffer_bytes  # size of the buffer to borrow next
        self._used_most = 0  # of buffers of this size, and how many there were
        self._used_times = 0
        self._view = _NOTHING
        self._lent = False
        self._start = 0  # of what is not yet handled
        self._end = 0  # of what was received
        self._needed = REQUEST_BYTES
        self._depth = 0.0  # requests that this host lately had under way at once
        self._collecting = False
        self._seen = 0
        self._paused_for: set[Pause] = set()
        self._unsent = 0
        self._closing = False
        self._stuck_since: float | None = None
        self._stuck_timer: Timer | None = None

    def handle(self) -> None:
        """Handle what is there."""
        raise NotImplementedError

    def _handle_soon(self) -> None:
        """The same now, or once others are ready."""
        raise NotImplementedError

    # -- asyncio.BufferedProtocol

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: after what is there, moved to the front when there is no room left. Of
        what follows a large request only a header is taken, so that nothing of the next one is moved."""
        if not self._lent or self._start + self._needed > len(self._view) or self._end == len(self._view):
            self._make_room()
        if self._budget.tight:
            return self._view[self._end : self._end + NBD_PARKED_BYTES]
        stop = self._start + self._needed + REQUEST_BYTES
        if self._needed > LARGE_BYTES and stop > self._end:
            return self._view[self._end : stop]
        return self._view[self._end :]  # what is whole may wait for a round with others

    def _make_room(self) -> None:
        held = self._end - self._start
        size = self._next_bytes
        while size < self._needed or size <= held:
            size *= 2
        if self._lent and size <= len(self._view):
            if held:
                self._view[:held] = self._view[self._start : self._end]  # they may overlap
        else:
            buffer = self._budget.lend(size)
            if held:
                buffer[:held] = self._view[self._start : self._end]
            if self._lent:
                self._give_back()
            self._view, self._lent = buffer, True
        self._start, self._end = 0, held

    def buffer_updated(self, nbytes: int) -> None:
        """Handle every complete request. From a host that pipelines, once a round of the loop brings no more:
        its next requests are on their way, and a frame for each would cost ten times what one for all
        does."""
        self._end += nbytes
        if LARGE_BYTES < self._needed > self._end - self._start and not self._budget.tight:
            return  # the rest of a large request is on its way
        if self._end == len(self._view) or self._budget.tight:
            self.handle()
        elif self._depth < PIPELINED_DEPTH:
            self._handle_soon()
        elif not self._collecting:
            self._collecting = True
            self._seen = self._end
            self._clock.call_soon(self._collect_soon)

    def _guarded(self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """What others call back: a defect in it is this connection's (engine.group.compartment)."""
        if attempt("connection.defect", work, *args, **kwargs) is not None:
            self.shut()

    def _collect_soon(self) -> None:
        self._guarded(self._collect)

    def _collect(self) -> None:
        if self._closing or not self._collecting:
            return
        if self._end > self._seen and self._end - self._start < COLLECT_BYTES_MAX:
            self._seen = self._end
            self._clock.call_soon(self._collect_soon)
        else:
            self._handle_soon()

    def take(self, data: bytes) -> None:
        """Handle bytes that came with the handshake: less than a request may have."""
        needed = self._needed
        self._needed = max(needed, self._end - self._start + len(data))
        self._make_room()
        self._needed = needed
        self._view[self._end : self._end + len(data)] = data
        self.buffer_updated(len(data))

    def eof_received(self) -> bool:
        """The host is gone; close our side too."""
        return False

    def pause_writing(self) -> None:
        """The host does not take its replies: take no more requests until it does."""
        self._unsent = self._transport.get_write_buffer_size()
        self._budget.add_unsent(self._unsent)
        self._pause(Pause.REPLIES)

    def resume_writing(self) -> None:
        """It does again."""
        self._budget.add_unsent(-self._unsent)
        self._unsent = 0
        self._unpause(Pause.REPLIES)

    # -- pausing, and turns

    def _pause(self, why: Pause) -> None:
        if not self._paused_for and not self._closing:
            self._transport.pause_reading()
        self._paused_for.add(why)

    def _unpause(self, why: Pause) -> None:
        if why not in self._paused_for:
            return
        self._paused_for.discard(why)
        if self._closing:
            return
        if why in _NOT_HANDLED and self._unfinished:
            self._ask_turn()
        if not self._paused_for:
            self._stuck_since = None
            self._watch_half_request()
            self._transport.resume_reading()

    @property
    def _unfinished(self) -> bool:
        """Whether there is something to go on with."""
        return self._start < self._end

    @property
    def _half_request(self) -> bool:
        """Whether the rest of a request that has begun is still to come. It need not have bytes here:
        who derives from this may have handled all that came of it."""
        return self._start < self._end

    @property
    def _must_wait(self) -> bool:
        """Whether what is there may not be handled now."""
        return not _NOT_HANDLED.isdisjoint(self._paused_for)

    def _ask_turn(self) -> None:
        """Go on when other hosts had their turns."""
        if Pause.TURN not in self._paused_for:
            self._pause(Pause.TURN)
            self._budget.ask_turn(lambda: self._guarded(self._take_turn))

    def _take_turn(self) -> None:
        self._paused_for.discard(Pause.TURN)
        if not self._closing and Pause.REPLIES not in self._paused_for:
            self.handle()
        if not self._paused_for and not self._closing:
            self._transport.resume_reading()

    # -- what is left when all is handled that could be

    def _settle(self, *, moved: bool) -> None:
        """Give the buffer back, or keep as little as possible. `moved`: something was handled."""
        held = self._end - self._start
        if self._lent and held <= NBD_PARKED_BYTES:
            self._fit()
            parked = memoryview(bytearray(self._view[self._start : self._end])) if held else _NOTHING
            self._give_back()
            self._view, self._end = parked, held
        elif not held:
            self._give_back()
        if not self._half_request:
            self._stuck_since = None
            return
        if moved or self._paused_for:
            self._stuck_since = None
        self._watch_half_request()

    def _fit(self) -> None:
        """Let the next buffer have the size that this host's requests seem to want."""
        size = len(self._view)
        self._used_most = max(self._used_most, self._end)
        self._used_times += 1
        if self._end == size:
            self._next_bytes = max(self._next_bytes, min(2 * size, GROWN_BYTES_MAX))
        elif self._used_times >= SHRINK_AFTER:
            while self._next_bytes > self._buffer_bytes and self._used_most <= self._next_bytes // 4:
                self._next_bytes //= 2
        else:
            return
        self._used_most = self._used_times = 0

    def _give_back(self) -> None:
        """Hold no buffer, and nothing in one."""
        if self._lent:
            self._lent = False
            self._budget.give_back(self._view)
        self._view = _NOTHING
        self._start = self._end = 0

    def _watch_half_request(self) -> None:
        """See that a request that has begun goes on, unless it is us who keep it from doing so."""
        if not self._half_request or self._paused_for or self._stuck_since is not None:
            return
        self._stuck_since = self._clock.monotonic()
        if self._stuck_timer is None:
            self._stuck_timer = self._watch_for(NBD_HALF_REQUEST_TIMEOUT_S)

    def _watch_for(self, delay_s: float) -> Timer:
        return self._clock.call_later(delay_s, lambda: self._guarded(self._check_half_request))

    def _check_half_request(self) -> None:
        """One timer a connection, however often requests come in halves."""
        self._stuck_timer = None
        if self._closing or self._paused_for or self._stuck_since is None:
            return
        left_s = self._stuck_since + NBD_HALF_REQUEST_TIMEOUT_S - self._clock.monotonic()
        if left_s > 0:
            self._stuck_timer = self._watch_for(left_s)
            return
        self._budget.log.warning("nbd.half_request", client=self.client, timeout_s=NBD_HALF_REQUEST_TIMEOUT_S)
        self.shut()

    def shut(self) -> None:
        """Close at once; requests in flight stay unanswered."""
        self._closing = True
        self._transport.abort()

    def _forget(self) -> None:
        """The connection is gone: hold nothing."""
        self._closing = True
        self._give_back()
        self._budget.add_unsent(-self._unsent)
        self._unsent = 0
        if self._stuck_timer is not None:
            self._stuck_timer.cancel()
            self._stuck_timer = None
