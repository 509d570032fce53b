"""Holding hosts still for a backup: the daemon's end of the guard (`site_primary/guard.py`).

The order is always: the guard runs, then it freezes, then it says so, then the mark goes into the journal,
then the thaw is asked for. Whatever fails in between, the guard thaws.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from engine.group.compartment import attempt_async
from engine.ports.clock import Clock
from engine.ports.disk import Disk
from engine.ports.durable import lock_file
from farshore.children import child_words
from protocol.errors import NotFound, RemoteProtocolError
from protocol.guarding import THAW_LINE, GuardOrder, GuardReport, decode_order, decode_report, encode_line
from site_primary.guard import FROZEN_DIRECTORY, note_path

GONE = GuardReport(state="ended", failure="the guard process ended")
BY_HAND = "thaw the hosts by hand"
Emit = Callable[..., None]


class OnFailure(Enum):
    """What becomes of a backup whose freeze failed."""

    REFUSE = "refuse"
    CRASH_CONSISTENT = "crash-consistent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """How one kind of host is held still: command words, and how long it may stay frozen."""

    freeze: tuple[str, ...]
    thaw: tuple[str, ...]
    thaw_waits: bool
    timeout_s: float
    on_failure: OnFailure


class GuardProcess:
    """A guard and the pipes to it. Not asyncio's own process: that kills the child when it is forgotten, and
    this one must live on to thaw."""

    def __init__(self, process: subprocess.Popen[bytes], reports: asyncio.StreamReader) -> None:
        self._process = process
        self._reports = reports

    @classmethod
    async def start(cls, order: GuardOrder) -> GuardProcess:
        """Raises OSError."""
        process = _spawn()
        reports = asyncio.StreamReader()
        guard = cls(process, reports)
        try:
            loop = asyncio.get_running_loop()
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reports), process.stdout)
            guard._write(encode_line(order))
        except BaseException:
            guard.release()
            raise
        return guard

    async def next_report(self) -> GuardReport:
        """Its next report; `GONE` if it ended without one."""
        line = await self._reports.readline()
        try:
            return decode_report(line) if line else GONE
        except RemoteProtocolError:
            return GONE

    def release(self) -> None:
        """Ask for the thaw; twice is fine."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            try:
                self._write(THAW_LINE)
            finally:
                self._process.stdin.close()

    async def wait(self) -> None:
        """Until it has ended."""
        await asyncio.get_running_loop().run_in_executor(None, self._process.wait)

    def _write(self, line: bytes) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it is gone: its next report says so
                self._process.stdin.write(line)


class Quiesced:
    """One freeze that was tried. `failure` says why it failed, or nothing; `release` must be called."""

    def __init__(self, hook: Hook, guard: GuardProcess | None, first: GuardReport, deadline: float) -> None:
        self.hook = hook
        self.failure = "" if first.state == "frozen" else first.failure
        self.timed_out = first.timed_out
        self.freeze_ms = first.freeze_ms
        self._guard = guard
        self._ended = None if first.state == "frozen" or first is GONE else first
        self._deadline = deadline

    def still_frozen(self, clock: Clock) -> bool:
        """Whether the guard cannot have thawed yet: its own time began later than ours."""
        return not self.failure and clock.monotonic() < self._deadline

    def release(self) -> None:
        """Ask for the thaw; twice is fine."""
        if self._guard is not None:
            self._guard.release()

    async def ended(self) -> GuardReport | None:
        """The guard's last report, once it has thawed; None if it was killed before."""
        if self._guard is None:
            return self._ended
        if self._ended is None:
            last = await self._guard.next_report()
            self._ended = None if last is GONE else last
        await self._guard.wait()
        return self._ended


class Hooks:
    """A site's hooks, by name. `disk` is the data directory's."""

    def __init__(
        self, directory: pathlib.Path, disk: Disk, hooks: Mapping[str, Hook], clock: Clock, emit: Emit
    ) -> None:
        self._directory = directory
        self._hooks = dict(hooks)
        self._clock = clock
        self._emit = emit
        self._disk = disk
        self._thawing: set[asyncio.Task[None]] = set()

    def set_hooks(self, hooks: Mapping[str, Hook]) -> None:
        """Others take their place; what is frozen is thawed as it was begun."""
        self._hooks = dict(hooks)

    def find(self, name: str) -> Hook:
        """Raises NotFound."""
        found = self._hooks.get(name)
        if found is None:
            known = ", ".join(sorted(self._hooks)) or "none"
            raise NotFound(
                f"there is no hook {name} at this site (known: {known})",
                subject=name,
                next_step=f"write [hooks.{name}] into site.toml and reload the daemon (SIGHUP)",
            )
        return found

    async def freeze(self, name: str, group: str) -> Quiesced:
        """Start a guard and have it freeze; see `Quiesced` for how that went. Raises NotFound."""
        hook = self.find(name)
        deadline = self._clock.monotonic() + hook.timeout_s
        order = GuardOrder(
            hook=name,
            group=group,
            freeze=hook.freeze,
            thaw=hook.thaw,
            thaw_waits=hook.thaw_waits,
            timeout_s=hook.timeout_s,
            directory=str(self._directory),
        )
        try:
            guard = await GuardProcess.start(order)
        except OSError as error:
            failed = GuardReport(state="ended", failure=f"the guard could not be started: {error}")
            return Quiesced(hook, None, failed, deadline)
        try:
            return Quiesced(hook, guard, await guard.next_report(), deadline)
        except BaseException:
            guard.release()  # whoever asked has gone
            raise

    def thaw_leftovers(self) -> None:
        """Thaw, in the background, what an earlier run left frozen: its guard may be gone, or about to."""
        for file in self._disk.list_directory(FROZEN_DIRECTORY):
            name, _, ending = file.rpartition(".")
            if ending == "json":
                task = asyncio.get_running_loop().create_task(self._thaw_or_say(name), name=f"thaw {name}")
                self._thawing.add(task)
                task.add_done_callback(self._thawing.discard)

    def stuck(self) -> list[str]:
        """Hooks of which a note says that something may still be frozen, and that no guard is at: their thaw
        failed."""
        found = []
        for file in self._disk.list_directory(FROZEN_DIRECTORY):
            name, _, ending = file.rpartition(".")
            if ending == "json" and not self._is_guarded(name):
                found.append(name)
        return sorted(found)

    def _is_guarded(self, name: str) -> bool:
        try:
            lock_file(self._directory / FROZEN_DIRECTORY / f"{name}.lock").close()
        except BlockingIOError:
            return True
        except OSError:
            return False  # nobody knows, so it is said
        return not self._disk.exists(note_path(name))  # it has just been thawed

    async def _thaw_or_say(self, name: str) -> None:
        defect = await attempt_async("hook.defect", self._thaw(name))
        if defect is not None:
            self._emit("hook.thaw_failed", object=name, error=str(defect), next=BY_HAND)

    async def _thaw(self, name: str) -> None:
        try:
            noted = decode_order(self._disk.read_file(note_path(name)))
            order = GuardOrder(
                hook=noted.hook,
                group=noted.group,
                thaw=noted.thaw,
                timeout_s=noted.timeout_s,
                directory=str(self._directory),
            )
            guard = await GuardProcess.start(order)
            last = await guard.next_report()
            await guard.wait()
        except FileNotFoundError:
            return  # its own guard was still there, and is done
        except (OSError, RemoteProtocolError) as error:
            self._emit("hook.thaw_failed", object=name, error=str(error), next=BY_HAND)
            return
        if last.stuck or last.failure:
            self._emit(
                "hook.thaw_failed", group=order.group, object=name, error=last.stuck or last.failure,
                next=BY_HAND,
            )  # fmt: skip
        elif last.late:
            self._emit("hook.thawed", group=order.group, object=name, reason="left frozen by an earlier run")


def _spawn() -> subprocess.Popen[bytes]:
    # Without writing bytecode: that could be to the very file system that is frozen.
    return subprocess.Popen(
        child_words("site_primary.guard", bytecode=False),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sys.stderr, start_new_session=True, bufsize=0,
    )  # fmt: skip
