"""What a volume must hold: every write goes to it and to an image in memory."""

from __future__ import annotations

import random
from collections.abc import Iterable

from console.demo.host import Host
from tests.support.sites import Site

BLOCK_BYTES = 4096
READ_BYTES = 16 << 20


class Oracle:
    """`image` is the content, `size_bytes` of it; what is written is random."""

    def __init__(self, size_bytes: int, seed: int) -> None:
        self.image = bytearray(size_bytes)
        self._rng = random.Random(seed)

    def copy(self, seed: int) -> Oracle:
        """Another one that goes on from the same content."""
        other = Oracle(0, seed)
        other.image = bytearray(self.image)
        return other

    def some_blocks(self, count: int) -> list[int]:
        """Numbers of `count` blocks, the same ones again among them."""
        return [self._rng.randrange(len(self.image) // BLOCK_BYTES) for _ in range(count)]

    def write(self, host: Host, blocks: Iterable[int]) -> int:
        """Write these blocks, one after another with many in flight; the bytes, all acknowledged."""

        def writes() -> Iterable[tuple[int, bytes]]:
            for block in blocks:
                at, data = block * BLOCK_BYTES, self._rng.randbytes(BLOCK_BYTES)
                self.image[at : at + BLOCK_BYTES] = data
                yield at, data

        return host.write_all(writes())


def content(site: Site, export: str) -> bytes:
    """All that an export holds, for volumes of some MiB."""
    with Host(site.nbd_socket, export) as host:
        size = host.size_bytes
        return b"".join(host.read(at, min(READ_BYTES, size - at)) for at in range(0, size, READ_BYTES))
