"""An image that comes by standard input, or goes by standard output: `-` in place of a file.

A pipe is read once and from the start. A raw image of a size that is said goes straight into a volume; of any
other one its end must be known first, or what stands there: it is kept in a file without a name meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from console.images.containers import opened_image
from console.images.copying import Step
from console.images.formats import HEAD_BYTES, RAW, require_disk
from console.images.image import PIECE_BYTES, Range, ReadableImage, pieces_of, rounded
from console.streams import require_open_stdout
from console.write_at import write_at
from protocol.content_digest import ContentDigest, data_runs
from protocol.errors import FarshoreError, UsageError, system_error
from protocol.limits import BLOCK_BYTES

STREAM = "-"
_IN, _OUT = 0, 1
KEPT_IN = "/var/tmp"


class StreamImage:
    """See `ReadableImage`: a pipe that is to give `size_bytes`, each once and in order."""

    def __init__(self, descriptor: int, size_bytes: int, name: str) -> None:
        self._descriptor = descriptor
        self._size_bytes = size_bytes
        self._name = name
        self._ahead = b""

    @property
    def size_bytes(self) -> int:
        """See `ReadableImage.size_bytes`."""
        return self._size_bytes

    def head(self, length: int) -> bytes:
        """Its first bytes, before anything else is read."""
        self._ahead = self._take(min(length, self._size_bytes))
        return self._ahead

    def data_ranges(self) -> Iterator[Range]:
        """See `ReadableImage.data_ranges`: a pipe does not say."""
        yield 0, self._size_bytes

    def read(self, pieces: Iterable[Range]) -> Iterator[tuple[int, bytes]]:
        """See `ReadableImage.read`. FarshoreError for a pipe with more or fewer bytes."""
        for offset, length in pieces:
            ahead, self._ahead = self._ahead[:length], self._ahead[length:]
            data = ahead + self._take(length - len(ahead))
            if offset + length == self._size_bytes and os.read(self._descriptor, 1):
                raise self._other("more")
            yield offset, data

    def _take(self, length: int) -> bytes:
        parts: list[bytes] = []
        while length:
            part = os.read(self._descriptor, min(length, PIECE_BYTES))
            if not part:
                raise self._other("only a part")
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def _other(self, what: str) -> FarshoreError:
        return FarshoreError(
            f"{self._name} has {what} of the {self._size_bytes} bytes that were said",
            subject=self._name,
            next_step="look at what writes to the pipe; --size is the size of the disk",
        )


@contextmanager
def opened_source(
    file: str, kind: str, *, chain: bool, sure: bool, size_bytes: int | None
) -> Iterator[ReadableImage]:
    """An image to be read: a file, or standard input for `-`. See `opened_image` for `sure`; `size_bytes` is
    that of a stream, if it is said."""
    if file != STREAM:
        if size_bytes is not None:
            raise UsageError("--size is for a stream: a file has its own", next_step="leave it out")
        with opened_image(Path(file), kind, chain=chain, sure=sure) as source:
            yield source
        return
    if chain:
        raise UsageError("a stream builds on no files", next_step="give FILE a name, or leave out --chain")
    if os.isatty(_IN):
        raise UsageError(
            "standard input is a terminal",
            next_step="`farshore volume import - G/V`, with <FILE or PROGRAM | before it",
        )
    name = "standard input"
    if size_bytes is not None and kind == RAW:
        stream = StreamImage(_IN, size_bytes, name)
        if not sure:
            require_disk(stream.head(HEAD_BYTES), name)
        yield stream
        return
    with _as_file() as descriptor:
        place = Path(f"/proc/self/fd/{descriptor}")
        with opened_image(place, kind, chain=False, sure=sure) as source:
            if size_bytes is not None and source.size_bytes != size_bytes:
                raise FarshoreError(
                    f"{name} has {source.size_bytes} bytes, and not {size_bytes}", subject=name
                )
            yield source


@contextmanager
def _as_file() -> Iterator[int]:
    """Standard input as a file that can be read anywhere: itself if it is one, or a copy."""
    mode = os.fstat(_IN).st_mode
    if (stat.S_ISREG(mode) or stat.S_ISBLK(mode)) and os.lseek(_IN, 0, os.SEEK_CUR) == 0:
        yield _IN
        return
    try:
        with tempfile.TemporaryFile(dir=os.environ.get("TMPDIR") or KEPT_IN) as kept:
            at = 0
            while data := os.read(_IN, PIECE_BYTES):
                for start, end in data_runs(data):
                    write_at(kept.fileno(), data[start:end], at + start)
                at += len(data)
            os.ftruncate(kept.fileno(), at)
            yield kept.fileno()
    except OSError as error:
        raise system_error(error) from error


def require_stdout() -> None:
    """UsageError if standard output is a terminal, or the caller closed it: nobody would have the image."""
    require_open_stdout()
    if os.isatty(_OUT):
        raise UsageError(
            "standard output is a terminal: it does not take an image",
            next_step="add >FILE or | PROGRAM",
        )


def require_stream(kind: str, *, as_json: bool) -> None:
    """That an image of that format can go to standard output. UsageError."""
    if kind != RAW:
        raise UsageError(
            f"only a {RAW} image goes to standard output: other formats are written here and there",
            next_step="write it to a FILE",
        )
    if as_json:
        raise UsageError("--json and the image both want standard output", next_step="write it to a FILE")
    require_stdout()


def write_stream(source: ReadableImage, step: Step) -> ContentDigest:
    """A raw image to standard output; the digest of what was read. Holes stay holes in a new file."""
    digest = ContentDigest()
    seekable, at = _takes_holes(), 0
    ranges = rounded(source.data_ranges(), BLOCK_BYTES, source.size_bytes)
    for offset, data in source.read(pieces_of(ranges)):
        runs = data_runs(data)
        digest.add(offset, data, runs)
        for start, end in runs:
            _skip(offset + start - at, seekable=seekable)
            _write(data[start:end])
            at = offset + end
        step(offset + len(data))
    _skip(source.size_bytes - at, seekable=seekable)
    if seekable:
        os.ftruncate(_OUT, source.size_bytes)
    return digest


def _takes_holes() -> bool:
    if not stat.S_ISREG(os.fstat(_OUT).st_mode) or fcntl.fcntl(_OUT, fcntl.F_GETFL) & os.O_APPEND:
        return False
    return os.fstat(_OUT).st_size == os.lseek(_OUT, 0, os.SEEK_CUR) == 0


def _skip(length: int, *, seekable: bool) -> None:
    if seekable:
        os.lseek(_OUT, length, os.SEEK_CUR)
        return
    zeroes = bytes(min(length, PIECE_BYTES))
    while length:
        part = min(length, PIECE_BYTES)
        _write(zeroes[:part])
        length -= part


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(_OUT, view) :]
