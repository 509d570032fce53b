"""What a copy reads from and writes to: an image of so many bytes, of which some ranges may hold data.

Ranges are (offset, bytes), ascending and apart, at multiples of 4 KiB but for the last one's end. Outside of
those that `data_ranges` gives, an image reads as zeroes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from protocol.content_digest import ContentDigest, data_runs
from protocol.limits import BLOCK_BYTES

Range = tuple[int, int]

PIECE_BYTES = 512 << 10


class ReadableImage(Protocol):
    """Something to copy from, or to compare with."""

    @property
    def size_bytes(self) -> int:
        """How long it is."""

    def data_ranges(self) -> Iterator[Range]:
        """Where there may be data."""

    def read(self, pieces: Iterable[Range]) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of each piece, in the order asked. FarshoreError or OSError if one cannot be
        read."""


class WritableImage(Protocol):
    """Something to copy to."""

    def write(self, offset: int, data: bytes) -> None:
        """Put bytes there, soon."""

    def zero(self, offset: int, length: int) -> None:
        """Have zeroes there, soon."""

    def flush(self) -> None:
        """All of it is there, durably. FarshoreError or OSError if not."""


def pieces_of(ranges: Iterable[Range]) -> Iterator[Range]:
    """Ranges cut into pieces that one request may ask for."""
    for offset, length in ranges:
        for at in range(offset, offset + length, PIECE_BYTES):
            yield at, min(PIECE_BYTES, offset + length - at)


def rounded(ranges: Iterable[Range], unit: int, size_bytes: int) -> Iterator[Range]:
    """The same ranges grown to multiples of `unit`, those that meet joined."""
    start = end = 0
    for offset, length in ranges:
        low = offset // unit * unit
        high = min(size_bytes, -(-(offset + length) // unit) * unit)
        if low > end or start == end:
            if start < end:
                yield start, end - start
            start = low
        end = max(end, high)
    if start < end:
        yield start, end - start


def content_of(image: ReadableImage, ranges: Iterable[Range] | None = None) -> ContentDigest:
    """The digest of an image, or of what it holds within some ranges."""
    digest = ContentDigest()
    chosen = rounded(image.data_ranges(), BLOCK_BYTES, image.size_bytes) if ranges is None else ranges
    for offset, data in image.read(pieces_of(chosen)):
        digest.add(offset, data, data_runs(data))
    return digest
