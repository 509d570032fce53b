"""A sync that is carried out later, whatever becomes meanwhile of the files and directories that it is about.

The descriptors are duplicated, so that a file may be closed at once: otherwise its number could by then
belong to another file, which would be synced in its place and the success believed. A duplicate shares the
open file, and with it the kernel's mark of an error not yet reported. Directories are opened ahead: they may
be removed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable


def prepared_sync(files: Iterable[tuple[int, str]], directories: Iterable[str]) -> Callable[[], None]:
    """What makes these durable when it is called, once: files by descriptor and name, directories by absolute
    path. Raises OSError then, also if one of them could not be opened."""
    opened: list[tuple[Callable[[int], None], int, str]] = []
    failed: list[OSError] = []
    try:
        for descriptor, path in files:
            opened.append((os.fdatasync, os.dup(descriptor), path))
        for directory in directories:
            opened.append((os.fsync, _open_directory(directory), directory))
    except OSError as error:
        failed.append(error)

    def work() -> None:
        try:
            for error in failed:
                raise error
            for sync, descriptor, path in opened:
                synced(sync, descriptor, path)
        finally:
            for _, descriptor, _ in opened:
                os.close(descriptor)

    return work


def synced(sync: Callable[[int], None], descriptor: int, path: str) -> None:
    """Sync one. The system names no file when it cannot, and who is told must know which."""
    try:
        sync(descriptor)
    except OSError as error:
        raise OSError(error.errno, f"cannot be made durable: {error.strerror}", path) from error


def sync_directory(absolute: str) -> None:
    """Make a directory's entries durable. OSError."""
    prepared_sync((), (absolute,))()


def _open_directory(absolute: str) -> int:
    return os.open(absolute, os.O_RDONLY | os.O_DIRECTORY)
