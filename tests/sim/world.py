"""One virtual clock, one event queue and one random generator for a whole simulated system.

Rules. Everything that happens is an event of this queue, ordered by (time, order of scheduling); every choice
comes from `SimWorld.random`. So one seed gives one run, whatever PYTHONHASHSEED says: nothing here, or in the
other parts of the simulator, may depend on id(), on hashes or on the order of a set.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable

from engine.ports.clock import Uptime

NS = 1_000_000_000
# 2024-01-01T00:00:00Z: any fixed date does, and an early one shows code that confuses it with monotonic time.
UTC_START_NS = 1_704_067_200 * NS
# Events at one instant: far more than any moment has, so whatever goes round and round is found.
AT_ONCE_MAX = 1_000_000


class Crashed(RuntimeError):
    """A handle from before a crash was used: the code that holds it should be dead."""


class SimTimer:
    """One event to come."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """See `Timer.cancel`."""
        self.callback = None


class SimWorld:
    """Time in whole nanoseconds, so that sums of delays do not drift."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now_ns = 0
        self.boots = 1
        self.booted_ns = 0
        self.steps = 0
        self._at_once = 0
        self._queue: list[tuple[int, int, SimTimer]] = []
        self._scheduled = 0
        self._trace = hashlib.sha256()

    def schedule(self, delay_s: float, callback: Callable[[], None]) -> SimTimer:
        """Run `callback` after `delay_s` virtual seconds; at 0, after all that is scheduled for now."""
        timer = SimTimer(callback)
        self._scheduled += 1
        # Time goes on by a tick at least: who waits for the last of it asks the clock, and again.
        when_ns = self.now_ns + max(1 if delay_s > 0 else 0, round(delay_s * NS))
        heapq.heappush(self._queue, (when_ns, self._scheduled, timer))
        return timer

    def step(self) -> bool:
        """Run the next event; False if there is none."""
        while self._queue:
            when_ns, _, timer = heapq.heappop(self._queue)
            callback = timer.callback
            if callback is None:
                continue
            timer.callback = None
            self._at_once = self._at_once + 1 if when_ns == self.now_ns else 0
            if self._at_once > AT_ONCE_MAX:
                raise RuntimeError(f"{AT_ONCE_MAX} events and no time goes by: {callback}")
            self.now_ns = when_ns
            self.steps += 1
            callback()
            return True
        return False

    def run_until(self, condition: Callable[[], bool], limit_s: float = 60.0) -> bool:
        """Run events until `condition` holds. False if it does not within `limit_s` virtual seconds."""
        end_ns = self.now_ns + round(limit_s * NS)
        while not condition():
            next_ns = self._next_ns()
            if next_ns is None or next_ns > end_ns:
                self.now_ns = end_ns
                return condition()
            self.step()
        return True

    def run_for(self, duration_s: float) -> None:
        """Run the events of the next `duration_s` virtual seconds."""
        self.run_until(lambda: False, duration_s)

    def reboot(self) -> None:
        """The machines lose count of how long they have been up."""
        self.boots += 1
        self.booted_ns = self.now_ns

    def note(self, *fields: object) -> None:
        """Take what happened into the trace. Fields must print the same in every run: numbers, text,
        bytes."""
        self._trace.update(repr((self.now_ns, *fields)).encode())

    def trace_hash(self) -> str:
        """Of everything noted so far: equal for equal runs."""
        return self._trace.hexdigest()

    def _next_ns(self) -> int | None:
        while self._queue and self._queue[0][2].callback is None:
            heapq.heappop(self._queue)
        return self._queue[0][0] if self._queue else None


class SimClock:
    """The clock of one process. Its wall clock may be set to jump; monotonic time is the world's."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world
        self._utc_offset_ns = UTC_START_NS
        self._stopped = False

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward, or back."""
        self._utc_offset_ns += round(seconds * NS)

    def stop(self) -> None:
        """The process died: no pending callback runs, and any further use raises `Crashed`."""
        self._stopped = True

    def utc_ns(self) -> int:
        """See `Clock.utc_ns`."""
        self._check()
        return self._world.now_ns + self._utc_offset_ns

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        self._check()
        return self._world.now_ns / NS

    def uptime(self) -> Uptime:
        """See `Clock.uptime`."""
        self._check()
        return Uptime(f"boot {self._world.boots}", self._world.now_ns - self._world.booted_ns)

    def call_soon(self, callback: Callable[[], None]) -> SimTimer:
        """See `Clock.call_soon`."""
        return self.call_later(0.0, callback)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> SimTimer:
        """See `Clock.call_later`."""
        self._check()

        def run() -> None:
            if not self._stopped:
                callback()

        return self._world.schedule(delay_s, run)

    def _check(self) -> None:
        if self._stopped:
            raise Crashed("this clock's process has died")
