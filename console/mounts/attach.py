"""A volume as a file: nbdfuse over a private directory.

    DIRECTORY/           0700, one for each attached volume
      files/volume       the volume; `files` is where nbdfuse is mounted
      pid                of nbdfuse
      log                what nbdfuse said

Everything that `close` needs is in the directory, so that `release` cleans up after a process that is gone,
after nbdfuse was killed, and twice.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from console.local_time import monotonic, pause
from console.mounts import launcher as launching
from console.mounts.launcher import END_WITH_PARENT, SAID
from console.mounts.programs import call, find_program
from protocol.errors import Busy, FarshoreError, TimedOut

READY_TIMEOUT_S = 20.0
END_TIMEOUT_S = 10.0
LET_GO_TIMEOUT_S = 10.0
POLL_S = 0.02


class Attached:
    """A volume that is a file until `close`; also a context manager."""

    def __init__(self, directory: Path, warning: str) -> None:
        """`warning` says what the kernel did not allow, or is empty."""
        self.directory = directory
        self.warning = warning

    @property
    def path(self) -> Path:
        """The volume's file."""
        return self.directory / "files" / "volume"

    def close(self) -> None:
        """Take the file away; twice is fine. Raises Busy while something has it open."""
        release(self.directory)

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def attach(uri: str, *, read_only: bool, directory: Path | None = None, lasting: bool = False) -> Attached:
    """The volume behind an NBD URI as a file; returns when it can be opened.

    `directory` must not exist; by default it is a new temporary one. Without `lasting` nbdfuse ends with the
    thread that called. Raises NotFound without nbdfuse, FarshoreError with what it said, TimedOut."""
    nbdfuse = find_program("nbdfuse")
    if directory is None:
        directory = Path(tempfile.mkdtemp(prefix="farshore-"))
    else:
        directory.mkdir(mode=0o700)
    try:
        (directory / "files").mkdir()
        return _start(nbdfuse, uri, read_only=read_only, directory=directory, lasting=lasting)
    except BaseException:
        with suppress(Busy):
            release(directory)
        raise


def release(directory: Path) -> None:
    """Unmount, end nbdfuse, remove the directory: what of it is left. Raises Busy while the file is open."""
    files = directory / "files"
    if is_mounted(files):
        _unmount(files)
    _end(directory)
    shutil.rmtree(directory, ignore_errors=True)


def is_mounted(path: Path) -> bool:
    """Whether something is mounted there; a dead nbdfuse's mount, which cannot be looked into, counts."""
    where = os.path.realpath(path.parent) + "/" + path.name
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        return any(_unescaped(line.split(" ")[4]) == where for line in lines)


def _unescaped(field: str) -> str:
    """proc(5): space, tab, newline and backslash are octal there."""
    for character in " \t\n\\":
        field = field.replace(f"\\{ord(character):03o}", character)
    return field


def _start(nbdfuse: str, uri: str, *, read_only: bool, directory: Path, lasting: bool) -> Attached:
    ready, log = directory / "ready", directory / "log"
    # nbdfuse writes its process id there once it serves: a pipe says so at once, and then its closing.
    os.mkfifo(ready, 0o600)
    waiting = os.open(ready, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        options = ["-P", str(ready), *(["-r"] if read_only else [])]
        # By its path and without site-packages: it needs nothing of ours, and starts in a few milliseconds.
        launcher = [sys.executable, "-I", "-S", launching.__file__]
        ending = [] if lasting else [END_WITH_PARENT]
        with log.open("wb") as said:
            process = subprocess.Popen(
                [*launcher, *ending, nbdfuse, *options, str(directory / "files" / "volume"), uri],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                # Ctrl-C at the terminal is for the caller, which then closes.
                start_new_session=True,
                cwd="/",
            )
        (directory / "pid").write_text(f"{process.pid}\n", encoding="ascii")
        _await_ready(process, waiting, log, uri)
    finally:
        os.close(waiting)
        ready.unlink()
    said_first = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return Attached(
        directory, "; ".join(line.removeprefix(SAID) for line in said_first if line.startswith(SAID))
    )


def _await_ready(process: subprocess.Popen[bytes], waiting: int, log: Path, uri: str) -> None:
    ended = os.pidfd_open(process.pid)
    try:
        poller = select.poll()
        poller.register(waiting, select.POLLIN)
        poller.register(ended, select.POLLIN)
        events = poller.poll(READY_TIMEOUT_S * 1000)
    finally:
        os.close(ended)
    said = [
        line
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
        if not line.startswith(SAID)
    ]
    if not events:
        raise TimedOut(f"nbdfuse was not ready after {READY_TIMEOUT_S:g} s", subject=uri)
    if waiting not in [handle for handle, _ in events]:
        raise FarshoreError(
            f"nbdfuse ended with {process.wait()}: {' '.join(said)[-2000:]}",
            subject=uri,
            next_step="`farshore volume list`: is the export there, and online?",
        )


def _unmount(files: Path) -> None:
    # fusermount3 is there where nbdfuse works without root. A loop device that another program looked at
    # while it was given back lets its file go after the kernel says it is free, once what it held is written.
    deadline = monotonic() + LET_GO_TIMEOUT_S
    while True:
        code, said = call("fusermount3", "-u", files)
        if code == 0 or not is_mounted(files) or monotonic() > deadline:
            break
        pause(POLL_S)
    if code != 0 and is_mounted(files):
        raise Busy(
            f"{files} cannot be unmounted: {said}",
            subject=str(files),
            next_step=f"close what has files there open: fuser -vm {files}",
        )


def _end(directory: Path) -> None:
    """nbdfuse ends by itself once it is unmounted; if not in time, it is made to."""
    for number in (0, signal.SIGTERM, signal.SIGKILL):
        process = _process(directory)
        if process is None:
            return
        if number:
            with suppress(ProcessLookupError):
                os.kill(process, number)
        deadline = monotonic() + END_TIMEOUT_S
        while _process(directory) is not None and monotonic() < deadline:
            pause(POLL_S)


def _process(directory: Path) -> int | None:
    """nbdfuse's process id while it runs; a number that is another process by now is not taken for it."""
    try:
        process = int((directory / "pid").read_text(encoding="ascii"))
        words = Path(f"/proc/{process}/cmdline").read_bytes()
        state = (
            Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(") ")[2]
        )
    except (OSError, ValueError):
        return None
    if state.startswith("Z"):
        # Ours, if we started it.
        with suppress(ChildProcessError):
            os.waitpid(process, 0)
        return None
    # A process that is about to end has no words any more.
    return process if os.fsencode(directory) in words or not words else None
