"""What makes things happen in a contract test: the simulator's event queue, or a real asyncio loop.

A test waits for a condition, never for time. Callbacks go through `watch`, so that a real loop looks at the
condition when one was called; it looks by itself, too, for what changes without one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

from engine.ports.clock import Clock, SystemClock
from tests.sim.world import SimClock, SimWorld

P = ParamSpec("P")
R = TypeVar("R")
TIMEOUT_S = 20.0
LOOK_EVERY_S = 0.02


class Driver(Protocol):
    """Runs what is under way."""

    clock: Clock

    def watch(self, callback: Callable[P, R]) -> Callable[P, R]:
        """The same callback, after which `run_until` looks again."""

    def run_until(self, condition: Callable[[], bool]) -> None:
        """Go on until `condition` holds; fails after a generous time."""


class SimDriver:
    """The simulator."""

    def __init__(self, seed: int = 1) -> None:
        self.world = SimWorld(seed)
        self.clock: Clock = SimClock(self.world)

    def watch(self, callback: Callable[P, R]) -> Callable[P, R]:
        """See `Driver.watch`."""
        return callback

    def run_until(self, condition: Callable[[], bool]) -> None:
        """See `Driver.run_until`."""
        assert self.world.run_until(condition, TIMEOUT_S)


class LoopDriver:
    """A real loop; a callback's exception that reaches it fails the test at `close`."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock: Clock = SystemClock(self.loop)
        self.failures: list[str] = []
        self._changed = asyncio.Event()
        self.loop.set_exception_handler(lambda _, context: self.failures.append(str(context)))

    def watch(self, callback: Callable[P, R]) -> Callable[P, R]:
        """See `Driver.watch`."""

        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return callback(*args, **kwargs)
            finally:
                self._changed.set()

        return called

    def run_until(self, condition: Callable[[], bool]) -> None:
        """See `Driver.run_until`."""

        async def wait() -> None:
            while not condition():
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), LOOK_EVERY_S)

        self.loop.run_until_complete(asyncio.wait_for(wait(), TIMEOUT_S))

    def close(self) -> None:
        """End the loop."""
        self.loop.close()
        assert not self.failures
