"""Standard input, output and error as this command uses them.

Standard output that takes no more (a full disk, /dev/full) is an error of its own, told apart from that of
any file that a command writes. Standard error only tells: what it does not take is lost, and no command
fails by it. A stream that the caller closed (`>&-`) is /dev/null, so that no file gets its descriptor.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from protocol.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


# Descriptors that the caller had closed.
_closed: set[int] = set()


class StdoutFailed(OSError):
    """Standard output takes no more; `errno` and `strerror` say why."""


class _Output(io.FileIO):
    """Standard output's descriptor. Raises StdoutFailed; BrokenPipeError when the reader went away."""

    def write(self, data: ReadableBuffer, /) -> int:
        """See `io.FileIO.write`."""
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StdoutFailed(error.errno, error.strerror) from error


class _Notes(io.FileIO):
    """Standard error's descriptor."""

    def write(self, data: ReadableBuffer, /) -> int:
        """See `io.FileIO.write`; what cannot be written counts as written."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def take_streams() -> None:
    """Make them what is said above, unless something else stands in for them. To be called before anything
    opens a file that stays open."""
    _open_closed()
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Notes(2, "w", closefd=False), sys.stderr)


def require_open_stdout() -> None:
    """Before content goes there that is nowhere else. UsageError if the caller closed it."""
    if sys.stdout is not None and _closed and sys.stdout.fileno() in _closed:
        raise UsageError(
            "standard output is closed: nobody would have what is written there",
            subject="standard output",
            next_step="add >FILE or | PROGRAM",
        )


def abandon_stdout() -> None:
    """Nobody takes standard output. Python flushes once more at exit: into nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_closed() -> None:
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            _closed.add(descriptor)
            # It gets the lowest number that is free: this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _text(raw: io.FileIO, before: TextIO | None) -> TextIO:
    """With the encoding of the one before (None: there was none, as its descriptor was closed), which may
    lack characters: they are escaped, since by then the command was carried out."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before else "utf-8",
        errors="backslashreplace",
        # PYTHONUNBUFFERED says the latter: what both streams say stays in order.
        line_buffering=isinstance(before, io.TextIOWrapper)
        and (before.line_buffering or before.write_through),
    )
