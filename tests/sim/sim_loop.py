"""An asyncio loop in virtual time, for what production writes as coroutines: one process's.

It has what tasks, futures and time-outs ask of a loop, and no input or output. Its callbacks are events of
the world like all others, so a run stays a function of its seed.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, cast

from tests.sim.world import SimClock, SimTimer


class SimLoop:
    """See the module's docstring; `asyncio` is this loop under the type that asyncio wants. What ends a
    process or a run (no `Exception`) passes through every task, as it does through everything else."""

    def __init__(self, clock: SimClock) -> None:
        self.asyncio = cast(asyncio.AbstractEventLoop, self)
        self._clock = clock
        self._closed = False
        self._tasks: dict[asyncio.Task[Any], bool] = {}  # each with whether `begin` made it
        self._first: list[Callable[[], None]] | None = None  # where a task that begins at once puts its step

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine: now, as far as it goes without waiting. It must handle its own errors."""
        first: list[Callable[[], None]] = []
        self._first = first
        try:
            self._tasks[asyncio.Task(work, loop=self.asyncio)] = True
        finally:
            self._first = None
        first[0]()

    def close(self) -> None:
        """The process ended: what waits goes no further."""
        self._closed = True
        for task in list(self._tasks):
            if not task.done() and task is not asyncio.current_task(self.asyncio):
                task.get_coro().close()
        self._tasks.clear()

    # The loop, as asyncio knows it.

    def time(self) -> float:
        """Seconds of monotonic time."""
        return self._clock.monotonic()

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> SimTimer:
        """After all that is ready now."""
        return self.call_later(0.0, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, **more: Any) -> SimTimer:
        """At a moment of `time`."""
        return self.call_later(max(0.0, when - self.time()), callback, *args, **more)

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> SimTimer:
        """After so many seconds."""
        run = partial(self._run, context or contextvars.copy_context(), partial(callback, *args))
        if self._closed:
            return SimTimer(run)  # a task that ended with the process: nobody is told
        if self._first is not None:
            self._first.append(run)
            return SimTimer(run)
        return self._clock.call_later(delay, run)

    def create_future(self) -> asyncio.Future[Any]:
        """One of this loop."""
        return asyncio.Future(loop=self.asyncio)

    def create_task(self, coro: Coroutine[Any, Any, Any], **named: Any) -> asyncio.Task[Any]:
        """Its first step comes after all that is ready now."""
        task = asyncio.Task(coro, loop=self.asyncio, **named)
        self._tasks[task] = False
        return task

    def get_debug(self) -> bool:
        """See `asyncio`."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Of tasks that were pending when their process died; others are looked at in `_run`."""

    # Inside.

    def _run(self, context: contextvars.Context, callback: Callable[[], object]) -> None:
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self.asyncio)
        try:
            context.run(callback)
        finally:
            asyncio._set_running_loop(before)
        for task in [task for task in self._tasks if task.done()]:
            begun = self._tasks.pop(task)
            error = None if task.cancelled() else task.exception()
            if error is not None and (begun or not isinstance(error, Exception)):
                raise error
