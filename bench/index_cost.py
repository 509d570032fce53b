"""What the index takes for a write: rows, bytes of the file and processor time, of large and of small writes.

    python -m bench.index_cost

In this process, on a file system in memory where there is one: frames as they stand in the journal are put
into a new index as a checkpoint does it. Processor time, so that other work on the machine
changes it little.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from engine.index.index_batch import IndexBatch, put_batch, take_frame
from engine.index.memtable import Memtable
from engine.index.versions import TABLES
from engine.ports.lmdb_store import LmdbStore
from protocol.events import WRITE, Row
from protocol.frames import NO_DIGEST, Frame, encode_frame
from protocol.limits import BLOCK_BYTES

MIB_BLOCKS = 256
VOLUME_BLOCKS = 1 << 20
TOTAL_BLOCKS = 32 * MIB_BLOCKS
TRANSACTION_FRAMES = 16 * MIB_BLOCKS
TIMELINE = 7
CASES = {
    "1 MiB writes, in order": (MIB_BLOCKS, MIB_BLOCKS),
    "1 MiB writes, at any 4 KiB": (MIB_BLOCKS, 1),
    "64 KiB writes, at any 4 KiB": (16, 1),
    "16 KiB writes, at any 16 KiB": (4, 4),
    "4 KiB writes, anywhere": (1, 1),
}


def frames(blocks: int, align: int) -> Iterator[tuple[Row, Frame]]:
    """Frames of one write each, at places that are multiples of `align`."""
    rng, position, digest = random.Random(1), 1 << 20, NO_DIGEST
    payload = rng.randbytes(blocks * BLOCK_BYTES)
    for _ in range(TOTAL_BLOCKS // blocks):
        first = rng.randrange((VOLUME_BLOCKS - blocks) // align) * align
        row: Row = (WRITE, 1, first, blocks)
        frame = encode_frame(
            timeline=TIMELINE,
            position=position,
            utc_ns=1,
            durable=position,
            previous_digest=digest,
            rows=[row],
            payload=[payload],
            payload_bytes=len(payload),
        )
        yield row, frame
        position, digest = frame.prefix.end, frame.prefix.digest


def main() -> None:
    """Print a row a case."""
    memory = Path("/dev/shm")
    for name, (blocks, align) in CASES.items():
        made = list(frames(blocks, align))
        directory = Path(tempfile.mkdtemp(prefix="farshore-", dir=memory if memory.is_dir() else None))
        store = LmdbStore(directory / "index.mdb", 1 << 36, TABLES)
        try:
            memtable, before_s = Memtable(), time.process_time()
            for row, frame in made:
                memtable.apply(0, [row], frame.prefix.payload_at)
            memtable_s = time.process_time() - before_s
            rows, before_s = 0, time.process_time()
            for at in range(0, len(made), TRANSACTION_FRAMES):
                batch = IndexBatch()
                with store.read() as transaction:
                    cursor = transaction.cursor("versions")
                    for _, frame in made[at : at + TRANSACTION_FRAMES]:
                        take_frame(batch, cursor, [0], 0, frame)
                rows += len(batch.versions)
                with store.write() as write:
                    put_batch(write, batch)
            index_s = time.process_time() - before_s
            used_bytes, _ = store.space()
        finally:
            store.close()
            shutil.rmtree(directory)
        mib = TOTAL_BLOCKS / MIB_BLOCKS
        print(
            f"{name:30} {rows / mib:6.1f} rows {used_bytes / mib:6.0f} bytes "
            f"{memtable_s / mib * 1e6:5.0f} µs memtable {index_s / mib * 1e6:5.0f} µs index, a MiB"
        )


if __name__ == "__main__":
    main()
