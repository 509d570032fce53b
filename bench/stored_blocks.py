"""`python -m bench.stored_blocks [DIRECTORY]`: where the blocks that truncation keeps are cheapest to store.

Processor time for each block of a transaction as one truncation makes it: rows of scattered blocks come and
older ones go, and the bytes are put into LMDB beside them, at the end of a new file, over one that was
written before, or nowhere. The files leave out what they need besides: the space of what was deleted found
again, and a second place to check. It judges nothing.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.index.index_file import open_index
from engine.index.versions import STORED_HEAD_BYTES, version_key
from engine.ports.store import Store
from protocol.limits import BLOCK_BYTES

VOLUME_BLOCKS = 1 << 18
BLOCKS = 16_000  # of a segment of 64 MiB
ROUNDS = 5
FILLING = 40
ROW = bytes(21)
PIECES = 512  # to one system call
Keep = Callable[[list[bytes]], None]


def spent_us(store: Store, keep: Keep | None, kept: dict[int, bytes], rng: random.Random) -> float:
    """Processor time for each block: rows in one transaction, bytes in it too, or by `keep`. `kept` are the
    keys of the blocks that are stored."""
    content = memoryview(rng.randbytes(BLOCK_BYTES))[:STORED_HEAD_BYTES]
    blocks = sorted(rng.sample(range(VOLUME_BLOCKS), BLOCKS))
    keys = [version_key(1, 1, block, rng.getrandbits(40)) for block in blocks]
    began_s = time.process_time()
    if keep is not None:
        keep(keys)
    with store.write() as write:
        for block in blocks:
            if block in kept:
                write.delete("versions", kept[block])
                if keep is None:
                    write.delete("blocks", kept[block])
        write.put_sorted("versions", ((key, ROW) for key in keys))
        if keep is None:
            write.put_sorted("blocks", ((key, content) for key in keys))
    kept.update(zip(blocks, keys, strict=True))
    return (time.process_time() - began_s) * 1e6 / BLOCKS


def appended(path: Path, rng: random.Random) -> Keep:
    """Bytes at the start of a file, made if need be, and synced."""
    pieces = [rng.randbytes(BLOCK_BYTES)] * PIECES

    def keep(keys: list[bytes]) -> None:
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            for at in range(0, len(keys), PIECES):
                os.pwritev(descriptor, pieces[: len(keys) - at], at * BLOCK_BYTES)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    return keep


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    rng = random.Random(1)
    with tempfile.TemporaryDirectory(dir=words[0] if words else None) as made:
        store = open_index(Path(made))
        kept: dict[int, bytes] = {}
        for _ in range(FILLING):
            spent_us(store, None, kept, rng)
        old = Path(made) / "old"
        appended(old, rng)([b""] * BLOCKS)
        cases: list[tuple[str, list[Keep | None]]] = [
            ("in LMDB", [None] * ROUNDS),
            ("at the end of new files", [appended(Path(made) / f"new{at}", rng) for at in range(ROUNDS)]),
            ("over an old file", [appended(old, rng)] * ROUNDS),
            ("nowhere", [lambda _: None] * ROUNDS),
        ]
        for what, keeps in cases:
            figures = [spent_us(store, keep, kept, rng) for keep in keeps]
            print(f"{what}: {', '.join(f'{each:.1f}' for each in figures)} µs a block")
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
