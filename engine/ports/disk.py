"""Disk as a port: the few file operations that the journal needs, with their durability spelled out.

Paths are relative to the disk's root and use `/`. Nothing here is durable unless its docstring says so.
The real form is `engine.ports.durable.RealDisk`, the only module that calls fsync and rename.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

Buffer = bytes | bytearray | memoryview
SyncDone = Callable[[OSError | None], None]


class DiskFile(Protocol):
    """One open file."""

    path: str

    def pread(self, length: int, offset: int) -> bytes:
        """Up to `length` bytes at `offset`; shorter only at the end of the file."""

    def pwrite(self, data: Buffer, offset: int) -> None:
        """Write all of `data` at `offset`, or raise OSError (some of it may then be there). Not durable."""

    def truncate(self, size_bytes: int) -> None:
        """Cut the file to `size_bytes`, giving its space back. Not durable."""

    def size(self) -> int:
        """Bytes in the file."""

    def data_end(self) -> int:
        """From where on every byte is zero, as far as that is known without reading them: at most the
        size."""

    def close(self) -> None:
        """Close; twice is fine."""


class Disk(Protocol):
    """One directory tree."""

    def open(self, path: str) -> DiskFile:
        """Open an existing file for reading and writing; FileNotFoundError if there is none."""

    def exists(self, path: str) -> bool:
        """Whether a file or directory is there."""

    def list_directory(self, path: str) -> list[str]:
        """Sorted names in a directory; empty if there is no such directory."""

    def make_directory(self, path: str) -> None:
        """Make it, with its parents; durable on return."""

    def preallocate(self, path: str, size_bytes: int) -> DiskFile:
        """A new file of zeroes with its space taken; file and directory durable on return. ENOSPC leaves
        nothing behind."""

    def start_preallocate(self, path: str, size_bytes: int, done: SyncDone) -> None:
        """`preallocate` away from the caller's thread, closing the file; `done` is called on the caller's
        loop."""

    def rename(self, source: str, target: str) -> None:
        """Rename a file. Durable only after a sync of the target's directory."""

    def remove(self, path: str) -> None:
        """Remove a file or an empty directory. Not durable."""

    def sync(self, files: Sequence[DiskFile], directories: Sequence[str]) -> None:
        """Make the files' contents and the directories' entries durable before returning, or raise
        OSError."""

    def forget_cached(self, files: Sequence[DiskFile]) -> None:
        """Read these files, which were just synced, from the disk from now on: after a sync that failed the
        cache may hold what the disk does not, and the next sync reports nothing."""

    def wrote_once(self, path: str, size_bytes: int) -> None:
        """A file has all that will be written to it, and little of it is read soon: it may leave the cache
        for others, oldest first. What is not on the disk yet stays."""

    def start_sync(self, files: Sequence[DiskFile], directories: Sequence[str], done: SyncDone) -> None:
        """`sync` away from the caller's thread; `done(error or None)` is called on the caller's loop. Files
        may be closed, and files and directories removed, meanwhile."""

    def replace_file(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """Put `data` where `path` was: afterwards either the old or the new content is there, durably the
        new one on return."""

    def read_file(self, path: str) -> bytes:
        """The whole content; FileNotFoundError if there is none."""

    def free_bytes(self) -> int:
        """Bytes that can still be written to the file system. OSError (ENODEV) if the root has gone."""

    def why_full(self, error: OSError) -> str:
        """What there is none left of, in words, after ENOSPC or EDQUOT: room, inodes, or a quota."""
