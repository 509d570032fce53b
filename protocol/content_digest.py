"""One digest of a volume's content, the same for every image of it, sparse or not.

    xxh3-128 over: for each 4 KiB block that is not all zeroes, in order: u64 big-endian number, its bytes;
                   then u64 big-endian size of the volume in bytes

Written `xxh3:` and 32 hex digits. A last block that is shorter counts with zeroes behind it. Zeroes are not
looked at twice and holes not at all, so a large empty volume costs nothing.
"""

from __future__ import annotations

from struct import Struct

from xxhash import xxh3_128

from protocol.limits import BLOCK_BYTES

_U64 = Struct(">Q")
_ZEROES = bytes(BLOCK_BYTES)

Buffer = bytes | bytearray | memoryview


def data_runs(data: Buffer) -> list[tuple[int, int]]:
    """Half-open ranges of bytes within `data`, whole blocks of 4 KiB from its start, that are not zeroes."""
    runs: list[tuple[int, int]] = []
    whole = bytes(data)
    length = len(whole)
    for at in range(0, length, BLOCK_BYTES):
        block = whole[at : at + BLOCK_BYTES]
        if block == _ZEROES[: len(block)]:
            continue
        end = min(at + BLOCK_BYTES, length)
        if runs and runs[-1][1] == at:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((at, end))
    return runs


class ContentDigest:
    """Fed in order of offset; what is left out is zeroes. `data_bytes` counts what is not."""

    def __init__(self) -> None:
        self.data_bytes = 0
        self._hash = xxh3_128()

    def add(self, offset: int, data: Buffer, runs: list[tuple[int, int]]) -> None:
        """Bytes from `offset` on, a multiple of 4 KiB, with their `data_runs`."""
        update = self._hash.update
        whole = bytes(data)
        for start, end in runs:
            self.data_bytes += end - start
            for at in range(start, end, BLOCK_BYTES):
                update(_U64.pack((offset + at) // BLOCK_BYTES))
                update(whole[at : min(at + BLOCK_BYTES, end)].ljust(BLOCK_BYTES, b"\0"))

    def text(self, size_bytes: int) -> str:
        """The digest of a volume of that size, all of which was given."""
        final = self._hash.copy()
        final.update(_U64.pack(size_bytes))
        return f"xxh3:{final.hexdigest()}"
