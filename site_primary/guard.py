"""The guard: a process of its own that freezes hosts for a backup and thaws them whatever happens.

    python -P -B …/farshore/launch.py site_primary.guard     orders and reports as in protocol/guarding.py

Rules. It thaws when it is told to, when the time-out is over, when its input ends (whoever started it was
killed), and on SIGTERM: also after a freeze that failed or hung, which is killed first, because it may have
frozen some of what it should. While anything may be frozen a note lies in the data directory,
`frozen/HOOK.json`, so that the next start of the daemon thaws what a guard that was killed too left behind.
The lock `frozen/HOOK.lock` is held from before the note until it ends: no two guards freeze or thaw with one
hook at a time.

It is a session of its own, so that no Ctrl-C in a terminal reaches it or the hook's commands.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

from engine.ports.clock import Clock, SystemClock
from engine.ports.durable import FileLock, RealDisk, lock_file
from engine.ports.rights import keep_out_others
from protocol.errors import RemoteProtocolError
from protocol.guarding import THAW_LINE, GuardOrder, GuardReport, decode_order, encode_line

FROZEN_DIRECTORY = "frozen"
LOCK_RETRY_S = 0.05
# What a killed command may take to go. One that sits in the kernel does not, and the thaw is what frees it.
KILL_WAIT_S = 1.0
# How long the thaw may take, and the pauses before it is tried again.
THAW_TIMEOUT_S = 10.0
THAW_PAUSES_S = (0.0, 0.2, 1.0)
SAID_BYTES_MAX = 500
ORDER_BYTES_MAX = 256 << 10


def note_path(hook: str) -> str:
    """Where the note of a hook lies, below the data directory."""
    return f"{FROZEN_DIRECTORY}/{hook}.json"


class HookCommand:
    """One run of a hook's command. With `waits` it is to begin only when `go` is called, or when this process
    is gone: the start of a program is the longest part of a thaw, and hosts need not be frozen for it."""

    def __init__(
        self, order: GuardOrder, words: tuple[str, ...], clock: Clock, *, waits: bool = False
    ) -> None:
        self._order = order
        self._words = words
        self._clock = clock
        self._waits = waits
        self._process: asyncio.subprocess.Process | None = None
        self._failure = ""
        # In memory: a file could lie on the very file system that is being frozen, and a pipe could be held
        # open by what the command leaves running.
        self._said = os.fdopen(os.memfd_create("said"), "w+b")

    @property
    def started(self) -> bool:
        """Whether it was."""
        return self._process is not None or bool(self._failure)

    async def start(self) -> None:
        """A command that cannot be started fails; `outcome` says so."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._words, stdin=subprocess.PIPE if self._waits else subprocess.DEVNULL,
                stdout=self._said, stderr=self._said, env=self._environment(), start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._failure = f"{self._words[0]}: {error.strerror}"
        except ValueError as error:
            # A NUL in a word. The other command may have frozen hosts: this must not end the guard.
            self._failure = f"{self._words[0]}: {error}"

    def go(self) -> None:
        """Begin, if it waits."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(b"\n")
            self._process.stdin.close()

    async def outcome(self, deadline: float, stop: asyncio.Future[None] | None) -> str:
        """Wait until it ends, or `deadline` or `stop`, then kill it; why it failed, or nothing."""
        with self._said:
            process, name = self._process, self._words[0]
            if process is None:
                return self._failure
            ending = asyncio.ensure_future(process.wait())
            left_s = max(0.0, deadline - self._clock.monotonic())
            stops: list[asyncio.Future[Any]] = [ending] if stop is None else [ending, stop]
            await asyncio.wait(stops, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await asyncio.wait([ending], timeout=KILL_WAIT_S)
                stopped = stop is not None and stop.done()
                return f"{name} was stopped" if stopped else f"{name} did not end in time"
            if process.returncode == 0:
                return ""
            self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - SAID_BYTES_MAX))
            text = self._said.read().decode(errors="replace").strip()
            return f"{name} ended with {process.returncode}" + (f": {text}" if text else "")

    def _environment(self) -> dict[str, str]:
        # `farshore-hook` lies beside the interpreter, which need not be on a service's path. A thaw in Python
        # that wrote its bytecode could wait for the very file system that it is to thaw.
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), os.path.dirname(sys.executable)])
        variables = {
            "PATH": path,
            "PYTHONDONTWRITEBYTECODE": "1",
            "FARSHORE_HOOK": self._order.hook,
            "FARSHORE_GROUP": self._order.group,
            "FARSHORE_DATA": self._order.directory,
        }
        return dict(os.environ) | variables | ({"FARSHORE_WAIT": "1"} if self._waits else {})


class Guard:
    """One order, carried out."""

    def __init__(self, order: GuardOrder, orders: asyncio.StreamReader, clock: Clock) -> None:
        self._order = order
        self._clock = clock
        self._orders = orders
        self._told = False
        self._thawed_at = 0.0
        self._disk = RealDisk(pathlib.Path(order.directory), None) if order.directory else None
        # Done as soon as nothing may stay frozen any longer: an order, the input's end, or a signal.
        self._release: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listening = asyncio.get_running_loop().create_task(self._listen(), name="orders")

    def release(self) -> None:
        """Thaw now; twice is fine."""
        if not self._release.done():
            self._release.set_result(None)

    async def run(self) -> None:
        """Freeze, report, wait, thaw, report."""
        deadline = self._clock.monotonic() + self._order.timeout_s
        lock = await self._lock(None if not self._order.freeze else deadline)
        if self._disk is not None and lock is None:
            failure = f"another backup holds hook {self._order.hook}"
            self._report(GuardReport(state="ended", failure=failure, timed_out=True))
            return
        try:
            if self._order.freeze:
                await self._freeze_and_thaw()
                return
            thaw = HookCommand(self._order, self._order.thaw, self._clock)
            if self._disk is not None and self._disk.exists(note_path(self._order.hook)):
                self._report(GuardReport(state="ended", stuck=await self._thaw(thaw), late=True))
            else:
                self._report(GuardReport(state="ended"))
        finally:
            self._listening.cancel()
            if lock is not None:
                lock.close()

    async def _freeze_and_thaw(self) -> None:
        try:
            self._note()
        except OSError as error:
            self._report(GuardReport(state="ended", failure=f"no note could be written: {error}"))
            return
        thaw = HookCommand(self._order, self._order.thaw, self._clock, waits=self._order.thaw_waits)
        if self._order.thaw_waits:
            await thaw.start()
        began = self._clock.monotonic()
        deadline = began + self._order.timeout_s
        freeze = HookCommand(self._order, self._order.freeze, self._clock)
        await freeze.start()
        failure = await freeze.outcome(deadline, self._release)
        frozen_at = self._clock.monotonic()
        timed_out = bool(failure) and frozen_at >= deadline
        if not failure:
            self._report(GuardReport(state="frozen", freeze_ms=_ms(began, frozen_at)))
            await asyncio.wait([self._release], timeout=max(0.0, deadline - frozen_at))
        late = not self._told
        stuck = await self._thaw(thaw)
        self._report(
            GuardReport(
                state="ended",
                freeze_ms=_ms(began, frozen_at),
                frozen_ms=None if failure else _ms(frozen_at, self._thawed_at),
                failure=failure,
                timed_out=timed_out,
                late=late,
                stuck=stuck,
            )
        )

    async def _thaw(self, thaw: HookCommand) -> str:
        """Why it failed, after several tries; nothing if it did not."""
        stuck = ""
        for pause_s in THAW_PAUSES_S:
            await asyncio.sleep(pause_s)
            if pause_s:
                thaw = HookCommand(self._order, self._order.thaw, self._clock)
            if not thaw.started:
                await thaw.start()
            thaw.go()
            stuck = await thaw.outcome(self._clock.monotonic() + THAW_TIMEOUT_S, None)
            self._thawed_at = self._clock.monotonic()
            if not stuck:
                self._remove_note()
                break
        return stuck

    async def _lock(self, deadline: float | None) -> FileLock | None:
        """The hook's lock; None without a directory, or if it was not free by `deadline`."""
        if self._disk is None:
            return None
        self._disk.make_directory(FROZEN_DIRECTORY)
        path = self._disk.root / FROZEN_DIRECTORY / f"{self._order.hook}.lock"
        while True:
            try:
                return lock_file(path)
            except BlockingIOError:
                if deadline is not None and (self._release.done() or self._clock.monotonic() >= deadline):
                    return None
                await asyncio.sleep(LOCK_RETRY_S)

    def _note(self) -> None:
        if self._disk is not None:
            self._disk.replace_file(note_path(self._order.hook), encode_line(self._order))

    def _remove_note(self) -> None:
        if self._disk is not None:
            with contextlib.suppress(FileNotFoundError):
                self._disk.remove(note_path(self._order.hook))
            self._disk.sync([], [FROZEN_DIRECTORY])

    async def _listen(self) -> None:
        while line := await self._orders.readline():
            if line == THAW_LINE:
                self._told = True
                break
        self.release()

    @staticmethod
    def _report(report: GuardReport) -> None:
        # Whoever started it may be gone; what is left to do does not depend on being heard.
        with contextlib.suppress(BrokenPipeError):
            os.write(sys.stdout.fileno(), encode_line(report))


def _ms(began: float, ended: float) -> float:
    return round((ended - began) * 1e3, 2)


async def guard() -> int:
    """Read the order and carry it out."""
    # The hooks keep the daemon's rights: freezing a file system takes them.
    keep_out_others()
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(limit=ORDER_BYTES_MAX, loop=loop)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders, loop=loop), sys.stdin)
    line = await orders.readline()
    if not line:
        return 0
    try:
        order = decode_order(line)
    except RemoteProtocolError as error:
        print(f"guard: {error}", file=sys.stderr)
        return 2
    job = Guard(order, orders, SystemClock(loop))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, job.release)
    await job.run()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(guard()))
