"""Copying an image, and the proof that the copy is one: what was written is read back and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from console.images.image import Range, ReadableImage, WritableImage, content_of, pieces_of, rounded
from console.images.nbd_image import NbdFailed
from protocol.content_digest import ContentDigest, data_runs
from protocol.errors import Mismatch
from protocol.limits import BLOCK_BYTES

Step = Callable[[int], None]  # told of the offset that a copy has reached


def copy_content(source: ReadableImage, target: WritableImage, step: Step) -> ContentDigest:
    """Everything that is not zeroes, to a target of zeroes; the digest of what was read."""
    digest = ContentDigest()
    ranges = rounded(source.data_ranges(), BLOCK_BYTES, source.size_bytes)
    for offset, data in source.read(pieces_of(ranges)):
        runs = data_runs(data)
        digest.add(offset, data, runs)
        for start, end in runs:
            target.write(offset + start, data[start:end])
        step(offset + len(data))
    target.flush()
    return digest


def copy_ranges(
    source: ReadableImage, target: WritableImage, ranges: Iterable[Range], unit: int, step: Step
) -> int:
    """Some ranges, zeroes too, in units that are written whole or zeroed whole; bytes copied."""
    copied = 0
    for offset, data in source.read(pieces_of(ranges)):
        for at in range(0, len(data), unit):
            part = data[at : at + unit]
            if data_runs(part):
                target.write(offset + at, part)
            else:
                target.zero(offset + at, len(part))
        copied += len(data)
        step(offset + len(data))
    target.flush()
    return copied


def require_content(
    image: ReadableImage,
    expected: ContentDigest,
    size_bytes: int,
    name: str,
    next_step: str,
    ranges: Iterable[Range] | None = None,
) -> str:
    """The digest of an image that must hold what `expected` was fed with. Mismatch if it does not."""
    found, wanted = content_of(image, ranges).text(size_bytes), expected.text(size_bytes)
    if found != wanted:
        raise Mismatch(
            f"{name} does not hold what was written to it: read back {found}, written {wanted}",
            subject=name,
            next_step=next_step,
        )
    return found


class Salvage:
    """An image of which parts may be unreadable: those read as zeroes and are listed in `lost`."""

    def __init__(self, image: ReadableImage) -> None:
        self.lost: list[Range] = []
        self._image = image

    @property
    def size_bytes(self) -> int:
        """See `ReadableImage.size_bytes`."""
        return self._image.size_bytes

    def data_ranges(self) -> Iterator[Range]:
        """See `ReadableImage.data_ranges`."""
        return self._image.data_ranges()

    def read(self, pieces: Iterable[Range]) -> Iterator[tuple[int, bytes]]:
        """See `ReadableImage.read`, but that nothing readable is left out for what is not."""
        for offset, length in pieces:
            try:
                yield next(self._image.read([(offset, length)]))
            except NbdFailed:
                yield offset, b"".join(self._blocks(offset, length))

    def _blocks(self, offset: int, length: int) -> Iterator[bytes]:
        for at in range(offset, offset + length, BLOCK_BYTES):
            size = min(BLOCK_BYTES, offset + length - at)
            try:
                yield next(self._image.read([(at, size)]))[1]
            except NbdFailed:
                if self.lost and sum(self.lost[-1]) == at:
                    self.lost[-1] = (self.lost[-1][0], self.lost[-1][1] + size)
                else:
                    self.lost.append((at, size))
                yield bytes(size)
