"""A file that an operator asked for, until it is whole: it stands under its name only once it is durable.

The one module of `console` that calls fsync and rename (docs/decisions/0012). Data directories are not its
matter: `engine/durable.py` has those.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from protocol.errors import Busy, FarshoreError, Refused, UsageError

SUFFIX = ".partial"
FILE_MODE = 0o600


class UnfinishedFile:
    """`FILE.partial`, made empty and locked; what a killed run left of it is overwritten. Refused if `path`
    is taken and not to be replaced, Busy if another run writes it, UsageError if either name is one of the
    files open at `needed`, which the new one is of no use without."""

    def __init__(self, path: Path, *, replace: bool, needed: Iterable[int] = ()) -> None:
        self.path = path
        # `/` and `.` have no name that another one could be made of.
        if not path.name or not _may_be_file(path):
            raise UsageError(f"{path} is no file", subject=str(path), next_step="name a file")
        self.partial = path.with_name(path.name + SUFFIX)
        _require_others((path, self.partial), needed)
        if os.path.lexists(path) and not replace:
            raise Refused(
                f"{path} exists already", subject=str(path), next_step="choose another name, or add --replace"
            )
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self.descriptor = os.open(self.partial, flags, FILE_MODE)
        except OSError as error:
            raise FarshoreError(
                f"cannot write {self.partial}: {error.strerror}", subject=str(path)
            ) from error
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self.descriptor, 0)
        except BlockingIOError as error:
            os.close(self.descriptor)
            raise Busy(
                f"another command writes {self.partial}", subject=str(path), next_step="wait for its end"
            ) from error

    def make_durable(self) -> None:
        """The bytes are on the disk, and read from there from now on. OSError."""
        os.fsync(self.descriptor)
        os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def finish(self) -> None:
        """Give it its name, durably; after `make_durable`. OSError."""
        os.rename(self.partial, self.path)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self.close()

    def discard(self) -> None:
        """Remove it, unless it is finished."""
        if self.descriptor >= 0:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.partial)
            self.close()

    def close(self) -> None:
        """Let go of it; twice is fine."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _may_be_file(path: Path) -> bool:
    """Whether there is a file, or nothing yet. FarshoreError if that cannot be seen."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError as error:
        raise FarshoreError(f"cannot write {path}: {error.strerror}", subject=str(path)) from error


def _require_others(paths: Iterable[Path], needed: Iterable[int]) -> None:
    """None of the paths leads to one of the files, be it by a link."""
    kept = [os.fstat(descriptor) for descriptor in needed]
    for path in paths:
        try:
            found = path.stat()
        except OSError:
            continue
        if any(os.path.samestat(found, each) for each in kept):
            raise UsageError(
                f"{path} is one of the files that the new one builds on",
                subject=str(path),
                next_step="choose another name",
            )
