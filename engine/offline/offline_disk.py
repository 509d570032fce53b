"""A group's directory that is only read: what recovery cuts or removes, it cuts and removes for itself.

So a start of the daemon can be gone through on a dead site's directory, or on read-only media, without a byte
of it being changed.
"""

from __future__ import annotations

import errno
import os
import pathlib
from collections.abc import Sequence

from engine.ports.disk import Buffer, DiskFile, SyncDone
from engine.ports.durable import data_end_of


class OfflineDisk:
    """See `Disk`. Whatever would need more than being read raises OSError (EROFS)."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self._removed: set[str] = set()
        self._sizes: dict[str, int] = {}

    def open(self, path: str) -> OfflineFile:
        """See `Disk.open`."""
        if path in self._removed:
            raise FileNotFoundError(errno.ENOENT, "removed", path)
        return OfflineFile(self, path, os.open(self._absolute(path), os.O_RDONLY | os.O_NOFOLLOW))

    def exists(self, path: str) -> bool:
        """See `Disk.exists`."""
        return path not in self._removed and os.path.lexists(self._absolute(path))

    def list_directory(self, path: str) -> list[str]:
        """See `Disk.list_directory`."""
        try:
            names = os.listdir(self._absolute(path))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if f"{path}/{name}" not in self._removed)

    def make_directory(self, path: str) -> None:
        """See `Disk.make_directory`."""
        if not self.exists(path):
            raise _read_only(path)

    def preallocate(self, path: str, size_bytes: int) -> DiskFile:
        """See `Disk.preallocate`."""
        raise _read_only(path)

    def start_preallocate(self, path: str, size_bytes: int, done: SyncDone) -> None:
        """See `Disk.start_preallocate`."""
        done(_read_only(path))

    def rename(self, source: str, target: str) -> None:
        """See `Disk.rename`."""
        raise _read_only(source)

    def remove(self, path: str) -> None:
        """See `Disk.remove`: it is not seen any more."""
        self._removed.add(path)

    def limit(self, path: str, size_bytes: int) -> None:
        """From now on a file ends there, if not earlier."""
        self._sizes[path] = min(size_bytes, self._sizes.get(path, size_bytes))

    def size_of(self, path: str, size_bytes: int) -> int:
        """The size of a file of `size_bytes` as it is seen."""
        return min(size_bytes, self._sizes.get(path, size_bytes))

    def sync(self, files: Sequence[DiskFile], directories: Sequence[str]) -> None:
        """See `Disk.sync`: nothing here is waiting to be durable."""

    def forget_cached(self, files: Sequence[DiskFile]) -> None:
        """See `Disk.forget_cached`: nobody wrote to them before."""

    def wrote_once(self, path: str, size_bytes: int) -> None:
        """See `Disk.wrote_once`: nothing is written here."""

    def start_sync(self, files: Sequence[DiskFile], directories: Sequence[str], done: SyncDone) -> None:
        """See `Disk.start_sync`."""
        done(None)

    def replace_file(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """See `Disk.replace_file`."""
        raise _read_only(path)

    def read_file(self, path: str) -> bytes:
        """See `Disk.read_file`."""
        file = self.open(path)
        try:
            return file.pread(file.size(), 0)
        finally:
            file.close()

    def why_full(self, error: OSError) -> str:
        """See `Disk.why_full`: nothing is written."""
        return str(error)

    def free_bytes(self) -> int:
        """See `Disk.free_bytes`."""
        return 0

    def _absolute(self, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"not a path below the directory: {path!r}")
        return f"{self.root}/{path}"


class OfflineFile:
    """See `DiskFile`."""

    def __init__(self, disk: OfflineDisk, path: str, descriptor: int) -> None:
        self.path = path
        self._disk = disk
        self._descriptor = descriptor

    def pread(self, length: int, offset: int) -> bytes:
        """See `DiskFile.pread`."""
        length = max(0, min(length, self.size() - offset))
        parts: list[bytes] = []
        while length > 0 and (part := os.pread(self._descriptor, length, offset)):
            parts.append(part)
            length, offset = length - len(part), offset + len(part)
        return b"".join(parts)

    def pwrite(self, data: Buffer, offset: int) -> None:
        """See `DiskFile.pwrite`."""
        raise _read_only(self.path)

    def truncate(self, size_bytes: int) -> None:
        """See `DiskFile.truncate`: it ends there for whoever reads it through this disk."""
        self._disk.limit(self.path, size_bytes)

    def size(self) -> int:
        """See `DiskFile.size`."""
        return self._disk.size_of(self.path, os.fstat(self._descriptor).st_size)

    def data_end(self) -> int:
        """See `DiskFile.data_end`."""
        return self._disk.size_of(self.path, data_end_of(self._descriptor))

    def close(self) -> None:
        """See `DiskFile.close`."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _read_only(path: str) -> OSError:
    return OSError(errno.EROFS, "the directory is only read", path)
