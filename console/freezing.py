"""Hooks given on the command line: `farshore` holds the hosts still, as its own user, while the site marks.

The guard that the daemon uses too (`site_primary/guard.py`, a process of its own) freezes and thaws, so that
Ctrl-C and kill -9 of this command thaw as well. Both commands run in a shell.
"""

from __future__ import annotations

import subprocess

from msgspec import field

from console.client import CALL_TIMEOUT_S
from console.session import Session
from farshore.children import child_words
from protocol.commands.backup import (
    BackupCreate,
    BackupCreateReply,
    BackupInfo,
    BackupShow,
    FreezeInfo,
    ProvenInfo,
)
from protocol.commands.base import WAIT_S_MAX
from protocol.commands.pair import WaitFor
from protocol.cut_text import CutBackup
from protocol.errors import FarshoreError, RemoteProtocolError, TimedOut, Unsafe, UsageError
from protocol.guarding import THAW_LINE, GuardOrder, GuardReport, decode_report, encode_line

HOOK_NAME = "command-line"
GONE = GuardReport(state="ended", failure="the guard process ended")


class FrozenBackup(BackupCreateReply, frozen=True, kw_only=True):
    """The backup as it is once the sites have it, and its exports; `proven` as `backup show` has it."""

    exports: list[str]
    proven: list[ProvenInfo] = field(default_factory=list)


def frozen_backup(
    session: Session, command: BackupCreate, order: GuardOrder, wait_s: float
) -> BackupCreateReply:
    """Freeze, mark, thaw, wait until the sites have it; the answer of `backup.create`.

    Raises TimedOut or Unsafe if the freeze failed: then nothing was marked, and TimedOut if the guard had
    thawed by itself before the mark was surely made.
    """
    guard = _Guard(order)
    try:
        first = guard.report()
        if first.state != "frozen":
            kind = TimedOut if first.timed_out else Unsafe
            raise kind(
                f"the freeze failed, so there is no backup: {first.failure}{_stuck_text(first)}",
                subject=command.group,
                next_step="mend the command, or take a crash-consistent backup without it",
            )
        data = session.call(command, wait_s)
    except BaseException:
        guard.release()
        guard.finish()
        raise
    guard.release()
    last = guard.finish()
    if last.late:
        raise TimedOut(
            f"thawed by the guard before the mark was surely made: take backup "
            f"{data.label or data.id} for crash-consistent",
            subject=command.group,
            position=data.cut.text,
            next_step="take another one, with a longer --freeze-timeout",
        )
    wait_s = min(wait_s, WAIT_S_MAX)
    session.call(WaitFor(group=command.group, timeout_s=wait_s), wait_s + CALL_TIMEOUT_S)
    shown = session.call(BackupShow(group=command.group, cut=CutBackup(data.id)))
    return FrozenBackup(
        **{name: getattr(shown, name) for name in BackupInfo.__struct_fields__},
        exports=shown.exports,
        proven=shown.proven,
        took_ms=data.took_ms,
        freeze=FreezeInfo(
            hook=HOOK_NAME,
            freeze_ms=last.freeze_ms,
            frozen_ms=last.frozen_ms,
            failure="",
            stuck=last.stuck,
        ),
    )


def command_line_order(group: str, freeze: str | None, thaw: str | None, timeout_s: float) -> GuardOrder:
    """Raises UsageError unless both commands are given."""
    if not freeze or not thaw:
        raise UsageError(
            "--freeze-command and --thaw-command go together: what is frozen must be thawed",
            next_step="give both",
        )
    return GuardOrder(
        hook=HOOK_NAME,
        group=group,
        freeze=("/bin/sh", "-c", freeze),
        thaw=("/bin/sh", "-c", thaw),
        timeout_s=timeout_s,
    )


def _stuck_text(report: GuardReport) -> str:
    return f"; the thaw failed too: {report.stuck}" if report.stuck else ""


class _Guard:
    """The guard process, spoken to over its pipes."""

    def __init__(self, order: GuardOrder) -> None:
        try:
            self._process = subprocess.Popen(
                child_words("site_primary.guard", bytecode=False),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise FarshoreError(f"the guard could not be started: {error}") from error
        self._write(encode_line(order))

    def report(self) -> GuardReport:
        """Its next report; `GONE` if it ended without one."""
        line = self._process.stdout.readline() if self._process.stdout else b""
        try:
            return decode_report(line) if line else GONE
        except RemoteProtocolError:
            return GONE

    def release(self) -> None:
        """Ask for the thaw."""
        self._write(THAW_LINE)
        if self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass

    def finish(self) -> GuardReport:
        """Wait until it has thawed; its last report."""
        last = GONE
        while (report := self.report()) is not GONE:
            last = report
        self._process.wait()
        return last

    def _write(self, line: bytes) -> None:
        if self._process.stdin is not None and not self._process.stdin.closed:
            try:
                self._process.stdin.write(line)
                self._process.stdin.flush()
            except BrokenPipeError:
                pass  # it is gone: the next report says so
