"""Standard output and error as this command writes to them.

Standard output that takes no more (a full disk, /dev/full) is an error of its own, told apart from that of
any file that a command writes. Standard error only tells: what it does not take is lost, and no command
fails by it.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


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
    """Make sys.stdout and sys.stderr what is said above, unless something else stands in for them."""
    if (out := sys.__stdout__) is not None and sys.stdout is out:
        sys.stdout = _text(_Output, out)
    if (err := sys.__stderr__) is not None and sys.stderr is err:
        sys.stderr = _text(_Notes, err)


def abandon_stdout() -> None:
    """Nobody takes standard output. Python flushes once more at exit: into nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _text(kind: Callable[..., io.FileIO], before: TextIO) -> TextIO:
    raw = kind(before.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding,
        errors=before.errors,
        line_buffering=bool(before.line_buffering),
    )
