"""Failure has a compartment: what an exception that nobody expected may take with it.

    a group          its timers, disk and indexer call back through a `Compartment`; hosts and peers act on it
                     through methods marked in engine/group/whole.py. A defect in either stops the group, no
                     other.
    a connection,    `attempt` calls the handler: one that fails ends what it was called for, and its caller
    a session        says so to whoever waits

A defect is logged here once, with its traceback. What the machine refused (no disk, no room, no descriptor)
is none, and is logged in words. What is in no compartment (the loop's own callbacks, sockets, authentication,
the site's state) still stops the daemon: docs/durability.md lists that.

This is the one module on the data path that catches everything. It does not know what it guards.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ParamSpec

import structlog

from engine.ports.clock import Clock, Timer, Uptime
from protocol.errors import machine_refused

if TYPE_CHECKING:
    from engine.index.requests import Indexer, IndexerDone, IndexRequest

P = ParamSpec("P")
Defect = Callable[[Exception], None]

log = structlog.get_logger()


def attempt(what: str, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> Exception | None:
    """Call `work`; what it raised, logged as `what`, or None."""
    try:
        work(*args, **kwargs)
    except Exception as defect:
        _log(what, defect)
        return defect
    return None


def succeeds(work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> bool:
    """Whether `work` was done. What it raised is not said: whoever needs it does it again, and meets it."""
    try:
        work(*args, **kwargs)
    except Exception:
        return False
    return True


async def attempt_async(what: str, work: Awaitable[object]) -> Exception | None:
    """The same of what is awaited. Its cancellation passes."""
    try:
        await work
    except Exception as defect:
        _log(what, defect)
        return defect
    return None


def _log(what: str, defect: Exception, **where: str) -> None:
    if machine_refused(defect):
        log.error(what, error=str(defect), **where)
    else:
        log.error(what, exc_info=defect, **where)


class Compartment:
    """What belongs together and ends together. `on_defect` is called once; nothing that is held runs
    afterwards."""

    def __init__(self, name: str, on_defect: Defect) -> None:
        self.name = name
        self.broken = False
        self._on_defect = on_defect

    def broke(self, defect: Exception) -> None:
        """Something in it failed that may not."""
        if not self.broken:
            self.broken = True
            _log("group.defect", defect, group=self.name)
            attempt("group.defect", self._on_defect, defect)

    def run(self, callback: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call back inside."""
        if self.broken:
            return
        try:
            callback(*args, **kwargs)
        except Exception as defect:
            self.broke(defect)

    def hold(self, callback: Callable[P, object]) -> Callable[P, None]:
        """The callback, inside."""

        def held(*args: P.args, **kwargs: P.kwargs) -> None:
            self.run(callback, *args, **kwargs)

        return held


class HeldClock:
    """A clock that calls back into a compartment."""

    def __init__(self, clock: Clock, compartment: Compartment) -> None:
        self._clock = clock
        self._compartment = compartment

    def utc_ns(self) -> int:
        """See `Clock.utc_ns`."""
        return self._clock.utc_ns()

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self._clock.monotonic()

    def uptime(self) -> Uptime:
        """See `Clock.uptime`."""
        return self._clock.uptime()

    def call_soon(self, callback: Callable[[], None]) -> Timer:
        """See `Clock.call_soon`."""
        return self._clock.call_soon(self._compartment.hold(callback))

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """See `Clock.call_later`."""
        return self._clock.call_later(delay_s, self._compartment.hold(callback))


class HeldIndexer:
    """An indexer that calls back into a compartment, `changed` before whoever asked."""

    def __init__(self, indexer: Indexer, compartment: Compartment, changed: Callable[[], None]) -> None:
        self._indexer = indexer
        self._compartment = compartment
        self._changed = changed

    def start(self, request: IndexRequest, done: IndexerDone) -> None:
        """See `Indexer.start`."""

        def ended(error: Exception | None, figures: tuple[int, ...]) -> None:
            self._changed()
            done(error, figures)

        self._indexer.start(request, self._compartment.hold(ended))
