"""When a host's write may be acknowledged in the modes `sync` and `sync-strict`: once the peer has it.

One gate a group, also for a group without a pair. Connections ask it; the shipper tells it what the peer has.

    phase      mode          in force  writes wait  entered
    OPEN       async         no        no           by the mode
    OPEN       sync, strict  no        no           by a new pair, a fallback, a split: the peer may lack some
    RETURNING  sync, strict  no        yes          when the peer keeps up
    IN_FORCE   sync, strict  yes       yes          when the peer has all that was written before RETURNING

In force means: the peer has everything that hosts were told is written. What `fallen_back` says of it is
durable at this site, and on the safe side of the truth whenever the process dies: true before the first write
is acknowledged without the peer, false only after the last such write has reached it.

A wait longer than the time-out ends in a fallback (`sync`) or in an error for the host (`sync-strict`, in
force). While the peer is away the time counts from when it left, so that not every host waits for as long
again. Positions are those of the head's lineage, so waiters stand in order; where the head goes back to what
another site wrote, those past the place where it leaves are told that the peer will never have theirs.

Time is a port; it does no I/O but by the callbacks that it is given.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial

from engine.group.core import GroupCore
from engine.journal.writer import DurableCallback
from engine.peering.pair_states import Mode
from engine.ports.clock import Timer
from protocol.errors import FarshoreError
from protocol.limits import SYNC_RETURN_DELAY_MAX_S, SYNC_RETURN_DELAY_S
from protocol.positions import Cut
from site_primary.hosted import Hosted

# The peer keeps up if what is written reaches it within this part of the time-out.
KEEPS_UP_PART = 0.25
# A timer may run a hair early: one that was then set for that hair would run again and again.
TIMER_LEAST_S = 0.001


class GatePhase(Enum):
    """Where a synchronous group stands with its peer; one row each of the module's table."""

    OPEN = "open"
    RETURNING = "returning"
    IN_FORCE = "in force"


@dataclass(slots=True)
class _Waiter:
    position: int
    due_s: float
    callback: DurableCallback


class SyncGate:
    """Holds answers to hosts until the peer has what they promise. `timeout_s`: how long a host waits for a
    silent peer."""

    def __init__(self, group: Hosted, timeout_s: float) -> None:
        self.mode = Mode.ASYNC
        self.phase = GatePhase.OPEN
        self.closed = False  # whether writes wait for the peer: what a connection looks at first
        self.connected = False
        self.refusing = ""  # why writes are refused, in strict mode
        self.remote_written = 0
        self.remote_durable = 0
        self.timeout_s = timeout_s
        self._group = group
        self._clock = group.clock
        self._persist: Callable[[Mode, bool], None] = _nothing_to_keep
        self._ask_durable: Callable[[int], None] = _nobody_to_ask
        self._lost_at = self._clock.monotonic()
        self._writes: deque[_Waiter] = deque()
        self._flushes: deque[_Waiter] = deque()
        self._timer: Timer | None = None
        self._asked = 0  # up to where the peer was asked to be durable, in this session
        self._goal = 0  # of RETURNING
        self._probe: tuple[int, float] | None = None  # an end of the journal, and when it was that
        self._return_delay_s = SYNC_RETURN_DELAY_S
        self._returned_at = self._lost_at
        self._no_return_before_s = self._lost_at
        if isinstance(group, GroupCore):  # a clone's head never moves, and it has no peer
            group.listeners.head.append(self._head_moved)

    # -- what the site says

    def start(
        self,
        mode: Mode,
        *,
        fallen_back: bool,
        persist: Callable[[Mode, bool], None],
        ask_durable: Callable[[int], None],
    ) -> None:
        """The group has a pair, as its durable row says; `fallen_back` is true in that of a new one.

        `persist(mode, fallen_back)` returns once both are durable, and raises FarshoreError or OSError
        otherwise. `ask_durable(position)` asks the peer to make everything before it durable soon."""
        self.mode = mode
        self._persist = persist
        self._ask_durable = ask_durable
        self._lost_at = self._clock.monotonic()
        if mode is not Mode.ASYNC and not fallen_back:
            self._enter(GatePhase.IN_FORCE)

    def stop(self) -> None:
        """The pair is gone, durably: nobody waits for a peer any more."""
        self.mode = Mode.ASYNC
        self._persist, self._ask_durable = _nothing_to_keep, _nobody_to_ask
        self.on_session(connected=False)
        self._open()

    def close(self) -> None:
        """The group closes. Who waits is not answered."""
        self._cancel_timer()
        self._writes.clear()
        self._flushes.clear()
        listeners = self._group.history.listeners.head
        if self._head_moved in listeners:
            listeners.remove(self._head_moved)

    def _head_moved(self, _left: Cut, position: int) -> None:
        """Up to `position` the head's lineage is what it was. Who waits for more is told soon: the move is in
        the middle of it."""
        error = OSError(errno.EIO, "the group goes on with another site's history, which does not have it")
        for queue in (self._writes, self._flushes):
            while queue and queue[-1].position > position:
                self._clock.call_soon(partial(queue.pop().callback, error))
        self.remote_written = min(self.remote_written, position)
        self.remote_durable = min(self.remote_durable, position)
        self._asked = min(self._asked, position)
        self._goal = min(self._goal, position)
        self._probe = None

    @property
    def fallen_back(self) -> bool:
        """Whether the mode promises more than what is so now: the peer may lack what hosts were told is
        written."""
        return self.mode is not Mode.ASYNC and self.phase is not GatePhase.IN_FORCE

    @property
    def in_force(self) -> Mode:
        """The mode whose promise holds now."""
        return self.mode if self.phase is GatePhase.IN_FORCE else Mode.ASYNC

    def set_mode(self, mode: Mode) -> None:
        """Change the mode, durably; a mode stronger than async is in force once the peer has everything.
        FarshoreError or OSError: nothing changed."""
        was_async = self.mode is Mode.ASYNC
        self._persist(mode, mode is not Mode.ASYNC and (was_async or self.fallen_back))
        self.mode = mode
        self.refusing = ""
        if mode is Mode.ASYNC:
            self._open()
        elif was_async:
            self._no_return_before_s = self._clock.monotonic()
            self._look()

    def suspend(self, reason: str) -> None:
        """An operator parts the sites: go on without the peer, in strict mode too. FarshoreError or OSError:
        nothing changed."""
        if self.phase is GatePhase.IN_FORCE:
            self._persist(self.mode, True)
            self._emit("pair.fallback", reason=reason)
        if self.closed:
            self._open()

    # -- what the shipper says

    def on_session(self, *, connected: bool) -> None:
        """A session with the peer began or ended. What is durable there stays so; what was only written may
        be lost with the peer."""
        if connected == self.connected:
            return
        self.connected = connected
        self._asked = 0
        self._probe = None
        if connected:
            if self._flushes:
                self._ask(self._flushes[-1].position)
            return
        self._lost_at = self._clock.monotonic()
        self.remote_written = self.remote_durable
        if self.phase is GatePhase.RETURNING:
            self._open()

    def on_compared(self, written: int, durable: int) -> None:
        """What the peer has of this head, found by comparing. What it said of another head counts no more."""
        self.remote_written, self.remote_durable = written, durable

    def on_marks(self, written: int, durable: int) -> None:
        """Where the peer is by now. Also to be called while nothing changes, once a second or so."""
        self.remote_written = written
        self.remote_durable = durable
        waiting = self._writes
        while waiting and waiting[0].position <= written:
            waiting.popleft().callback(None)
        waiting = self._flushes
        while waiting and waiting[0].position <= durable:
            waiting.popleft().callback(None)
        if self.phase is GatePhase.IN_FORCE:
            if self.refusing:
                self.refusing = ""
                self._emit("pair.accepting")
        elif self.mode is not Mode.ASYNC:
            self._look()

    # -- what connections ask

    def passes(self, position: int) -> bool:
        """Whether a write that ends at `position` may be acknowledged now."""
        return not self.closed or position <= self.remote_written

    def admit(self) -> OSError | None:
        """Why no write may even begin: strict mode, and the peer has been gone for longer than the
        time-out."""
        if self.mode is not Mode.SYNC_STRICT or self.phase is not GatePhase.IN_FORCE or self.connected:
            return None
        if self._clock.monotonic() < self._lost_at + self.timeout_s:
            return None
        return self._refusal()

    def wait(self, position: int, callback: DurableCallback) -> None:
        """Call back once a write that ends at `position` may be acknowledged, or with an error once it is
        known that it will not be. May call back at once."""
        if self.passes(position):
            callback(None)
        else:
            self._queue(self._writes, position, callback)

    def wait_durable(self, position: int, callback: DurableCallback) -> None:
        """As `wait`, for everything before `position` to survive a power loss at the peer."""
        if not self.closed or position <= self.remote_durable:
            callback(None)
            return
        self._queue(self._flushes, position, callback)
        if self.connected and position > self._asked:
            self._ask(position)

    def _ask(self, position: int) -> None:
        self._asked = position
        self._ask_durable(position)

    # -- the time-out

    def _queue(self, waiting: deque[_Waiter], position: int, callback: DurableCallback) -> None:
        now_s = self._clock.monotonic()
        due_s = now_s + self.timeout_s
        if not self.connected:
            due_s = min(due_s, max(now_s, self._lost_at + self.timeout_s))
        waiting.append(_Waiter(position, due_s, callback))
        if due_s <= now_s:
            self._expire()
        elif self._timer is None:
            self._timer = self._clock.call_later(due_s - now_s, self._on_timer)

    def _on_timer(self) -> None:
        """One timer for all: it was set for one who may be answered by now."""
        self._timer = None
        self._expire()

    def _next_due_s(self) -> float | None:
        """Who came first is due first, in either queue."""
        return min((queue[0].due_s for queue in (self._writes, self._flushes) if queue), default=None)

    def _expire(self) -> None:
        now_s = self._clock.monotonic()
        due_s = self._next_due_s()
        if due_s is None:
            return
        if due_s <= now_s:
            if self.phase is GatePhase.RETURNING:
                self._put_off_return()
                self._open()
            elif self.mode is Mode.SYNC:
                self._fall_back(now_s)
            else:
                self._refuse_due(now_s, self._refusal())
            due_s = self._next_due_s()
        if due_s is not None and self._timer is None:
            self._timer = self._clock.call_later(max(TIMER_LEAST_S, due_s - now_s), self._on_timer)

    def _fall_back(self, now_s: float) -> None:
        """Nobody is answered before the fallback is durable: a takeover after a crash must not find a row
        that says the peer has everything."""
        try:
            self._persist(self.mode, True)
        except (FarshoreError, OSError) as error:
            text = f"the peer is silent and the fallback cannot be kept: {error}"
            self._refuse_due(now_s, OSError(errno.EIO, text))
            return
        self._put_off_return()
        self._emit("pair.fallback", reason=self._silence())
        self._open()

    def _refusal(self) -> OSError:
        if not self.refusing:
            self.refusing = f"sync-strict: {self._silence()}"
            self._emit("pair.refusing", reason=self.refusing)
        return OSError(errno.EIO, self.refusing)

    def _silence(self) -> str:
        state = "has not answered" if self.connected else "has been away"
        return f"the peer {state} for {self.timeout_s:g} s"

    def _refuse_due(self, now_s: float, error: OSError) -> None:
        for queue in (self._writes, self._flushes):
            while queue and queue[0].due_s <= now_s:
                queue.popleft().callback(error)

    # -- phases

    def _enter(self, phase: GatePhase) -> None:
        self.phase = phase
        self.closed = phase is not GatePhase.OPEN

    def _open(self) -> None:
        """Nobody waits any more."""
        self._enter(GatePhase.OPEN)
        self._cancel_timer()
        self._probe = None
        self.refusing = ""
        for queue in (self._writes, self._flushes):
            while queue:
                queue.popleft().callback(None)

    def _look(self) -> None:
        """Out of force: go on towards it as far as the peer is."""
        now_s = self._clock.monotonic()
        if self.phase is GatePhase.OPEN and self.connected and self._keeps_up(now_s):
            # From here on no write is acknowledged without the peer; once it has what came before too, the
            # promise holds again.
            self._goal = self._group.writer.written
            self._enter(GatePhase.RETURNING)
        if self.phase is GatePhase.RETURNING and self.remote_written >= self._goal:
            self._return(now_s)

    def _keeps_up(self, now_s: float) -> bool:
        if self._probe is None:
            self._probe = (self._group.writer.written, now_s)
        position, at_s = self._probe
        if self.remote_written < position:
            return False
        self._probe = None
        soon = now_s - at_s <= self.timeout_s * KEEPS_UP_PART
        return soon and now_s >= self._no_return_before_s

    def _return(self, now_s: float) -> None:
        try:
            self._persist(self.mode, False)
        except (FarshoreError, OSError) as error:
            self._put_off_return()
            self._open()
            self._emit("pair.sync_put_off", reason=str(error))
            return
        self._enter(GatePhase.IN_FORCE)
        self._returned_at = now_s
        self._emit("pair.sync_again")

    def _put_off_return(self) -> None:
        """A link that is too slow for the hosts would else make them wait for a time-out again and again."""
        now_s = self._clock.monotonic()
        if now_s - self._returned_at > SYNC_RETURN_DELAY_MAX_S and self.phase is GatePhase.IN_FORCE:
            self._return_delay_s = SYNC_RETURN_DELAY_S
        self._no_return_before_s = now_s + self._return_delay_s
        self._return_delay_s = min(2 * self._return_delay_s, SYNC_RETURN_DELAY_MAX_S)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _emit(self, kind: str, **fields: str) -> None:
        group = self._group
        self._group.emit(kind, group=group.name, mode=self.mode.value, position=str(group.end), **fields)


def _nothing_to_keep(mode: Mode, fallen_back: bool) -> None:
    """A group without a pair has no row."""


def _nobody_to_ask(position: int) -> None:
    """A group without a pair has no peer."""
