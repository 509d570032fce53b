"""Lines for a descriptor that others read, or do not: a log must never hold up or break what it speaks of.

    write → bounded queue → a thread → the descriptor

Whoever reads may be slow, stopped or dead, its disk full, or the descriptor closed: `write` returns at once
and never fails. What does not fit into the queue, and what the descriptor refuses, is dropped and counted;
the next line that gets through is preceded by one that says how many are missing.

Rule: nothing here may log or raise, in the thread least of all.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import select
import stat
import threading
from collections.abc import Callable

from protocol.limits import LOG_QUEUE_BYTES_MAX, LOG_RETRY_S, LOG_STOP_S

READ_BYTES = 64 << 10
# What a line that waits takes besides its bytes, so that empty ones are bounded too.
LINE_COST_BYTES = 128
STANDARD_DESCRIPTORS = (0, 1, 2)


class LogWriter:
    """Writes to one descriptor. `lost_line` makes the line that says how many were dropped."""

    def __init__(
        self,
        descriptor: int,
        lost_line: Callable[[int], bytes],
        *,
        bytes_max: int = LOG_QUEUE_BYTES_MAX,
        retry_s: float = LOG_RETRY_S,
    ) -> None:
        self.dropped = 0  # in all
        self._descriptor = descriptor
        self._lost_line = lost_line
        self._bytes_max = bytes_max
        self._retry_s = retry_s
        self._unsaid = 0  # dropped, and not said yet
        self._waiting_bytes = 0
        # Reentrant, and a queue whose `put` is: the collector may run a finalizer that warns in the middle.
        self._lock = threading.RLock()
        self._lines: queue.SimpleQueue[bytes | threading.Event] = queue.SimpleQueue()
        self._within_line = False  # the descriptor took a part of a line, and then no more
        self._ending = threading.Event()
        # Not waited for at the end of the process: it may be stuck in a write for good.
        threading.Thread(target=self._run, name=f"log {descriptor}", daemon=True).start()

    def write(self, line: bytes) -> None:
        """Queue a line with its end, or drop and count it. From any thread; never blocks or raises."""
        cost = len(line) + LINE_COST_BYTES
        with self._lock:
            if self._waiting_bytes + cost > self._bytes_max:
                self._drop(1)
                return
            self._waiting_bytes += cost
        self._lines.put(line)

    def close(self, timeout_s: float = LOG_STOP_S) -> None:
        """Let what is queued out, if it goes within the time. Lines may still come, and are treated so."""
        flushed = threading.Event()
        self._lines.put(flushed)
        flushed.wait(timeout_s)
        self._ending.set()

    def _drop(self, count: int) -> None:
        with self._lock:
            self.dropped += count
            self._unsaid += count

    def _run(self) -> None:
        while True:
            line = self._lines.get()
            if isinstance(line, threading.Event):
                line.set()
                continue
            with self._lock:
                self._waiting_bytes -= len(line) + LINE_COST_BYTES
                unsaid = self._unsaid
            if unsaid and self._put(self._lost_line(unsaid)):
                with self._lock:
                    self._unsaid -= unsaid
            if not self._put(line):
                self._drop(1)
                # Every line that comes meanwhile waits, or is counted.
                self._ending.wait(self._retry_s)

    def _put(self, line: bytes) -> bool:
        """Write all of a line, waiting for as long as its reader takes; whether it went."""
        rest = memoryview(b"\n" + line if self._within_line else line)
        while rest:
            try:
                written = os.write(self._descriptor, rest)
            except BlockingIOError:  # somebody who shares the descriptor made it so
                self._wait_for_room()
            except OSError:
                return False
            else:
                rest = rest[written:]
                self._within_line = bool(rest)
        return True

    def _wait_for_room(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        poll.poll(self._retry_s * 1000)


class LogStream(io.TextIOBase):
    """What stands for sys.stdout or sys.stderr: text goes to a `LogWriter`. A child process that is given it
    as its own writes to `child_descriptor`, if there is one."""

    def __init__(self, writer: LogWriter, child_descriptor: int | None = None) -> None:
        super().__init__()
        self._writer = writer
        self._child_descriptor = child_descriptor

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """See `io.TextIOBase`."""
        return "utf-8"

    def writable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def write(self, text: str) -> int:
        """See `LogWriter.write`."""
        self._writer.write(text.encode(errors="backslashreplace"))
        return len(text)

    def fileno(self) -> int:
        """What a child may write to. io.UnsupportedOperation without one."""
        if self._child_descriptor is None:
            return super().fileno()
        return self._child_descriptor


def relay(writer: LogWriter) -> int:
    """The end of a pipe that children write to. All that comes goes to `writer` at once, so that no child
    ever waits for whoever reads the log. It stays open as long as this process."""
    source, sink = os.pipe()

    def run() -> None:
        with contextlib.suppress(OSError):
            while part := os.read(source, READ_BYTES):
                writer.write(part)

    threading.Thread(target=run, name="log of children", daemon=True).start()
    return sink


def fill_standard_descriptors() -> None:
    """Open /dev/null for those of 0, 1 and 2 that are closed. The next file that is opened would get the
    number, and what is then printed would go into it: it may be a database."""
    for descriptor in STANDARD_DESCRIPTORS:
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:  # one above is free too
                os.dup2(opened, descriptor)
                os.close(opened)
            os.set_inheritable(descriptor, True)


def keep_from_blocking(descriptor: int) -> None:
    """See to it that code which writes to this descriptor itself, as libraries do with their last words, is
    not held up by its reader. The mode of a pipe or terminal is shared with other processes, so it is opened
    anew. A file never blocks; a socket cannot be opened again and stays as it is, and so does what may not
    be."""
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISFIFO(mode) and not os.isatty(descriptor):
        return
    with contextlib.suppress(OSError):
        anew = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        os.dup2(anew, descriptor)
        os.close(anew)
