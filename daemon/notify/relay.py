"""The daemon's end of notifications: hands events to the child process, and says how that goes.

Nothing here waits for the child: what its pipe does not take is counted and left out, a child that ends is
started again later and later, and gets what has happened meanwhile from the event log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count

import msgspec

from daemon.event_log import EventLog, weight_of
from daemon.notify.config import NotifyConfig
from daemon.notify.messages import (
    LINE_BYTES_MAX,
    Alive,
    Notice,
    Report,
    Setup,
    ToChild,
    Tried,
    Try,
    decode_report,
    encode,
)
from daemon.restarts import restart_for_ever
from engine.ports.clock import Clock
from farshore.children import child_words
from protocol.commands.event import EventInfo
from protocol.cut_text import time_text
from protocol.errors import NotFound, Unreachable

ALIVE_EVERY_S = 5.0
UNSENT_BYTES_MAX = 4 << 20
EVENTS_AT_ONCE = 100
STOP_S = 8.0
# Beyond a target's own time-out.
TEST_GRACE_S = 5.0


class Relay:
    """One site's. `start` on its loop; `close` before the site stops."""

    def __init__(
        self, site: str, targets: Mapping[str, NotifyConfig], events: EventLog, clock: Clock
    ) -> None:
        self.reports: dict[str, Report] = {}
        self.targets = dict(targets)
        self.lost = 0  # events that the child could not take
        self._site = site
        self._events = events
        self._clock = clock
        self._seq = events.last  # of the last event that was handed over
        self._well: Callable[[], bool] = lambda: True
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._tests: dict[int, asyncio.Future[Tried]] = {}
        self._test_ids = count(1)

    def start(self, well: Callable[[], bool]) -> None:
        """Begin, if anybody is to be told. `well`: whether nothing is wrong now, for pings."""
        self._well = well
        if self.targets:
            self._begin()

    def _begin(self) -> None:
        work = restart_for_ever("notify.defect", self._serve, self._clock, self._ended)
        self._task = asyncio.get_running_loop().create_task(work, name="notify")

    def change(self, targets: Mapping[str, NotifyConfig]) -> None:
        """Tell these from now on. What waits for one that stays is not lost."""
        for name in self.targets.keys() - targets.keys():
            report = self.reports.pop(name, None)
            if report is not None and report.error:
                dropped = report.dropped + report.queued
                figures = {"sent": report.sent, "dropped": dropped, "queued": 0}
                self._events.emit("notify.failing", object=name, resolved=True, **figures)
        changed, self.targets = targets != self.targets, dict(targets)
        if self._task is None and targets:
            self._seq = self._events.last  # nobody is told of what was before
            self._begin()
        process = self._process
        if not changed or process is None or process.returncode is not None:
            return  # the next one is told
        if not self._write(process, Setup(site=self._site, targets=self.targets)):
            process.kill()  # it takes nothing in

    async def close(self) -> None:
        """Hand over what has happened, give the child a while to send it, and end it."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            self._hand_over(process)
            await _end(process)

    async def test(self, name: str) -> Tried:
        """Send a test by one target, now. NotFound, Unreachable."""
        target = self.targets.get(name)
        if target is None:
            known = ", ".join(sorted(self.targets)) or "none"
            raise NotFound(
                f"there is no notification {name} at this site (known: {known})",
                subject=name,
                next_step=f"write [notify.{name}] into site.toml and reload (SIGHUP)",
            )
        number = next(self._test_ids)
        answered: asyncio.Future[Tried] = asyncio.get_running_loop().create_future()
        self._tests[number] = answered
        try:
            if self._process is None or not self._write(
                self._process, Try(id=number, name=name, event=self._test_event())
            ):
                raise Unreachable("the process that notifies does not run", subject=name)
            async with asyncio.timeout(target.timeout_s + TEST_GRACE_S):
                return await answered
        except TimeoutError:
            raise Unreachable("the process that notifies does not answer", subject=name) from None
        finally:
            del self._tests[number]

    def _test_event(self) -> EventInfo:
        return EventInfo(
            seq=0,
            time=time_text(self._clock.utc_ns()),
            level="info",
            kind="notify.test",
            group=None,
            object=self._site,
            position="",
            message="a test by `farshore notify test`",
        )

    # -- the child

    def _ended(self, _: Exception | None, again_s: float) -> None:
        self._events.emit("notify.restarted", delay_s=again_s)

    async def _serve(self) -> None:
        """One child, until it ends."""
        try:
            process = await asyncio.create_subprocess_exec(
                *child_words("daemon.notify.worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
                limit=LINE_BYTES_MAX,
            )
        except OSError as error:
            self._events.emit("notify.failing", error=f"the process could not be started: {error}")
            return
        self._process = process
        self._write(process, Setup(site=self._site, targets=self.targets))
        hearing = asyncio.get_running_loop().create_task(self._hear(process), name="notify reports")
        try:
            while not hearing.done():
                self._write(process, Alive(well=self._well()))
                self._hand_over(process)
                await self._events.wait_for_news(ALIVE_EVERY_S)
        except asyncio.CancelledError:
            raise
        else:
            await _end(process)
        finally:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)

    def _hand_over(self, process: asyncio.subprocess.Process) -> None:
        while True:
            found, following, missed = self._events.since(self._seq, EVENTS_AT_ONCE)
            self.lost += missed
            self._seq = following
            if not found:
                return
            for event in found:
                notice = Notice(event=event, weight=weight_of(event))
                self.lost += not self._write(process, notice)

    def _write(self, process: asyncio.subprocess.Process, message: ToChild) -> bool:
        """Whether it is on its way."""
        pipe = process.stdin
        if pipe is None or pipe.is_closing() or pipe.transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            return False
        pipe.write(encode(message))
        return True

    async def _hear(self, process: asyncio.subprocess.Process) -> None:
        while process.stdout is not None and (line := await process.stdout.readline()):
            try:
                message = decode_report(line)
            except msgspec.MsgspecError:
                return  # no child of ours: it is ended
            if isinstance(message, Report):
                self._reported(message)
            elif (answered := self._tests.get(message.id)) is not None and not answered.done():
                answered.set_result(message)

    def _reported(self, report: Report) -> None:
        if report.name not in self.targets:
            return  # it has just gone
        before = self.reports.get(report.name)
        self.reports[report.name] = report
        figures = {"sent": report.sent, "dropped": report.dropped, "queued": report.queued}
        if report.error and not (before and before.error):
            self._events.emit("notify.failing", object=report.name, error=report.error, **figures)
        elif not report.error and before and before.error:
            self._events.emit("notify.failing", object=report.name, resolved=True, **figures)
        if report.dropped > (before.dropped if before else 0) and not self.targets[report.name].ping:
            self._events.emit("notify.dropped", object=report.name, **figures)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
