"""The digest of a file's content: the same whether its zeroes are stored or are holes."""

from __future__ import annotations

import xxhash

from console.files.source import FileSource
from console.files.walk import Item
from protocol.file_stream import Data, Extents

_ZEROES = bytes(1 << 20)


class ContentDigest:
    """Takes what `FileSource.content` gives, in order."""

    def __init__(self) -> None:
        self._digest = xxhash.xxh3_128()
        self._at = 0
        self._size = 0

    def take(self, piece: Extents | Data) -> None:
        """The next piece."""
        if isinstance(piece, Extents):
            self._size = piece.size_bytes
            return
        self._fill(piece.offset)
        self._digest.update(piece.data)
        self._at += len(piece.data)

    def digest(self) -> bytes:
        """16 bytes, once everything was taken."""
        self._fill(self._size)
        return self._digest.digest()

    def _fill(self, to: int) -> None:
        while self._at < to:
            count = min(len(_ZEROES), to - self._at)
            self._digest.update(_ZEROES[:count])
            self._at += count


def content_digest(source: FileSource, item: Item) -> bytes:
    """Of a file. Raises Failed."""
    digest = ContentDigest()
    for piece in source.content(item.path, item.entry):
        digest.take(piece)
    return digest.digest()
