"""A file that an operator asked for, until it is whole: it stands under its name only once it is durable.

The one module of `console` that calls fsync and rename (docs/decisions/0012). Data directories are not its
matter: `engine/ports/durable.py` has those.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from console.write_at import write_at
from protocol.errors import Busy, FarshoreError, Refused, UsageError

SUFFIX = ".partial"
FILE_MODE = 0o600
OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
# One that another run finishes in between is opened anew; so many in a row are a writer at work.
OPEN_TRIES = 4

# renameat2(2)
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1


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
        self._replace = replace
        self.descriptor = self._opened()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def _opened(self) -> int:
        for _ in range(OPEN_TRIES):
            try:
                descriptor = os.open(self.partial, OPEN_FLAGS, FILE_MODE)
            except OSError as error:
                raise FarshoreError(
                    f"cannot write {self.partial}: {error.strerror}", subject=str(self.path)
                ) from error
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_unfinished(descriptor):
                    os.ftruncate(descriptor, 0)
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                break
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
        raise Busy(
            f"another command writes {self.partial}", subject=str(self.path), next_step="wait for its end"
        )

    def _is_unfinished(self, descriptor: int) -> bool:
        """Whether the file that is locked has this name and no other. Else it is whole: another run gave it
        its name since it was opened here, or was killed before it took away the partial one."""
        held = os.fstat(descriptor)
        try:
            same = os.path.samestat(held, os.lstat(self.partial))
        except FileNotFoundError:
            return False
        if same and held.st_nlink > 1:
            os.unlink(self.partial)
        return same and held.st_nlink == 1

    def write(self, data: bytes) -> None:
        """All of it, from the start on. OSError."""
        write_at(self.descriptor, data, 0)

    def make_durable(self) -> None:
        """The bytes are on the disk, and read from there from now on. OSError."""
        os.fsync(self.descriptor)
        os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def finish(self) -> None:
        """Give it its name, durably; after `make_durable`. Refused if that is taken by now and not to be
        replaced: then it stays as the partial file. OSError."""
        if self._replace:
            os.rename(self.partial, self.path)
        else:
            self._name_unless_taken()
        self._sync_directory()
        self.close()

    def _name_unless_taken(self) -> None:
        try:
            os.link(self.partial, self.path)
        except FileExistsError as error:
            raise self._kept("came to be meanwhile") from error
        except OSError:
            # FAT has no links, and not every network file system.
            self._rename_unless_taken()
        else:
            os.unlink(self.partial)

    def _rename_unless_taken(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        names = os.fsencode(self.partial), os.fsencode(self.path)
        if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE):
            number = ctypes.get_errno()
            taken = number == errno.EEXIST
            raise self._kept("came to be meanwhile" if taken else f"was not made: {os.strerror(number)}")

    def _kept(self, why: str) -> Refused:
        """What is whole is not thrown away for want of a name."""
        self._sync_directory()
        self.close()
        return Refused(
            f"{self.path} {why}; what was written is whole, as {self.partial}",
            subject=str(self.path),
            next_step=f"give {self.partial} another name",
        )

    def _sync_directory(self) -> None:
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def discard(self) -> None:
        """Remove it, unless it is finished or was kept."""
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
