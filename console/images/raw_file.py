"""A raw file as an image: byte for byte the volume, with holes where it reads as zeroes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from console.images.image import Range
from console.write_at import write_at
from protocol.errors import FarshoreError, NotFound


def open_image(path: Path) -> int:
    """A descriptor of a file or block device to read. NotFound; FarshoreError if it cannot be read or is
    neither."""
    try:
        # Or opening a pipe waits until somebody writes to it; files and block devices are read as ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}", subject=str(path)) from error
    except OSError as error:
        raise FarshoreError(f"cannot read {path}: {error.strerror}", subject=str(path)) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        os.close(descriptor)
        raise FarshoreError(f"{path} is neither a file nor a block device", subject=str(path))
    return descriptor


class RawFile:
    """See `ReadableImage` and `WritableImage`. Writing needs a `descriptor` that may write, to a file of
    zeroes; `close` leaves that open."""

    def __init__(self, descriptor: int, path: Path, size_bytes: int) -> None:
        self._descriptor = descriptor
        self._path = path
        self._size_bytes = size_bytes

    @property
    def size_bytes(self) -> int:
        """See `ReadableImage.size_bytes`."""
        return self._size_bytes

    def data_ranges(self) -> Iterator[Range]:
        """See `ReadableImage.data_ranges`: what the file system has no hole for."""
        at = 0
        while at < self._size_bytes:
            try:
                start = os.lseek(self._descriptor, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                if error.errno != errno.EINVAL:
                    raise
                # A block device does not say what is there.
                yield at, self._size_bytes - at
                return
            at = min(os.lseek(self._descriptor, start, os.SEEK_HOLE), self._size_bytes)
            if start < at:
                yield start, at - start

    def read(self, pieces: Iterable[Range]) -> Iterator[tuple[int, bytes]]:
        """See `ReadableImage.read`."""
        for offset, length in pieces:
            data = os.pread(self._descriptor, length, offset)
            while len(data) < length:
                more = os.pread(self._descriptor, length - len(data), offset + len(data))
                if not more:
                    raise FarshoreError(f"{self._path} ends early", subject=str(self._path))
                data += more
            yield offset, data

    def write(self, offset: int, data: bytes) -> None:
        """See `WritableImage.write`."""
        write_at(self._descriptor, data, offset)

    def zero(self, offset: int, length: int) -> None:
        """See `WritableImage.zero`: it is so."""

    def flush(self) -> None:
        """See `WritableImage.flush`: whoever opened it makes it durable."""


class RawSource(RawFile):
    """A file or block device to read."""

    def __init__(self, path: Path) -> None:
        """See `open_image`."""
        descriptor = self._owned = open_image(path)
        super().__init__(descriptor, path, os.lseek(descriptor, 0, os.SEEK_END))

    def head(self, length: int) -> bytes:
        """Its first bytes, or all of a shorter one."""
        return os.pread(self._owned, length, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; twice is fine."""
        descriptor, self._owned = self._owned, -1
        if descriptor >= 0:
            os.close(descriptor)
