"""The next segment of a journal, made ahead: hosts would wait for its two syncs."""

from __future__ import annotations

from contextlib import suppress

from engine.ports.disk import Disk, DiskFile


class SpareSegment:
    """`bytes`: the size of the file at `path`, 0 if there is none. With no path none is made."""

    def __init__(self, disk: Disk, path: str) -> None:
        self.bytes = 0
        self._disk = disk
        self._path = path
        self._preparing = False

    @property
    def wanted(self) -> bool:
        """Whether one may be made."""
        return bool(self._path) and not self.bytes and not self._preparing

    def prepare(self, size_bytes: int) -> None:
        """Make one, away from the caller's thread. What fails is tried again for the next segment."""
        if self._disk.exists(self._path):
            self._disk.remove(self._path)
        self._preparing = True
        self._disk.start_preallocate(self._path, size_bytes, lambda error: self._ready(error, size_bytes))

    def _ready(self, error: OSError | None, size_bytes: int) -> None:
        self._preparing = False
        if error is None:
            self.bytes = size_bytes

    def become(self, path: str) -> DiskFile:
        """Give it its name as a segment."""
        self.bytes = 0
        self._disk.rename(self._path, path)
        return self._disk.open(path)

    def drop(self) -> None:
        """Give it up: a frame does not fit into it, nor would the next of its kind."""
        if self.bytes:
            self.bytes = 0
            with suppress(OSError):
                self._disk.remove(self._path)
