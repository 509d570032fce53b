"""Reading a volume through a visibility: memtable first, then LMDB, then the journal's bytes.

A view of the past never changes; the live view is made anew when the head or a revert changes what is
visible. Runs of blocks that stand side by side in one segment are fetched with one read.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import NamedTuple, Self

from engine.history.visibility import Interval
from engine.index.deep_view import Strand, newest_kept, newest_stored, strands_of
from engine.index.memtable import NOT_FOUND, Memtable
from engine.index.versions import (
    BLOCK_PREFIX,
    IndexedVersion,
    check_bytes,
    newest_indexed,
    stored_bytes,
    unpack_version_key,
)
from engine.journal.segments import SegmentMap
from engine.ports.store import Cursor, ReadTransaction, Store
from protocol.limits import BLOCK_BYTES

ZERO_BLOCK = bytes(BLOCK_BYTES)
_ZEROES = bytes(1 << 20)
# Of one scan, which holds up other hosts: some milliseconds.
SCAN_WINDOW_BLOCKS = 2048
SCAN_BLOCKS_MAX = 128 * SCAN_WINDOW_BLOCKS
# QEMU asks for one extent at a time: a whole window for each would make a map quadratic.
ONE_WINDOW_BLOCKS = 64


class Place(NamedTuple):
    """Where a block's bytes are: a lane and version number, with its index row if it came from LMDB."""

    lane: int
    number: int
    indexed: IndexedVersion | None

    @property
    def stored(self) -> bool:
        """Whether the bytes are in the index and no longer in the journal."""
        return self.indexed is not None and bool(self.indexed.tail)


class ReadBatch:
    """One read transaction, begun when first needed, for everything that is read in one wake-up."""

    __slots__ = ("_context", "_cursor", "_store", "_transaction")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._context: AbstractContextManager[ReadTransaction] | None = None
        self._transaction: ReadTransaction | None = None
        self._cursor: Cursor | None = None

    def transaction(self) -> ReadTransaction:
        """The transaction."""
        if self._transaction is None:
            context = self._context = self._store.read()
            self._transaction = context.__enter__()
        return self._transaction

    def cursor(self) -> Cursor:
        """A cursor on `versions`."""
        if self._cursor is None:
            self._cursor = self.transaction().cursor("versions")
        return self._cursor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._context is not None:
            self._cursor = self._transaction = None
            self._context.__exit__(kind, error, trace)


class VolumeView:
    """One volume at one cut. `size_bytes` bounds every request; the caller checks it."""

    def __init__(
        self,
        *,
        volume: int,
        size_bytes: int,
        intervals: tuple[Interval, ...],
        memtable: Memtable,
        segments: SegmentMap,
        store: Store,
    ) -> None:
        self.volume = volume
        self.size_bytes = size_bytes
        self.intervals = intervals
        self.memtable = memtable
        self._segments = segments
        self._store = store
        self._strands = strands_of(intervals)

    def batch(self) -> ReadBatch:
        """Begin a batch of reads."""
        return ReadBatch(self._store)

    def find(self, batch: ReadBatch, block: int) -> Place | None:
        """Where a block's bytes are; None if it reads as zeroes."""
        volume = self.volume
        if self._strands is not None:
            return self._find_deep(batch, block, self._strands)
        for interval in self.intervals:
            entry = self.memtable.newest(volume, block, interval)
            if entry != NOT_FOUND:
                return None if entry & 1 else Place(interval.lane, entry >> 1, None)
            version = newest_indexed(batch.cursor(), volume, block, interval)
            if version is not None:
                return None if version.zero else Place(interval.lane, version.number, version)
        return None

    def _find_deep(self, batch: ReadBatch, block: int, strands: list[Strand]) -> Place | None:
        """The same among many intervals."""
        volume, best, place = self.volume, len(self.intervals), None
        for strand in strands:
            if strand.at[0] >= best:
                break
            lane = strand.from_here[0].lane
            kept = newest_kept(self.memtable, volume, block, strand, best)
            if kept is not None:
                best, entry = kept
                place = None if entry & 1 else Place(lane, entry >> 1, None)
                if best == strand.at[0]:
                    break
            stored = newest_stored(batch.cursor(), volume, block, strand, best)
            if stored is not None:
                best, version = stored
                place = None if version.zero else Place(lane, version.number, version)
        return place

    def read_block(self, batch: ReadBatch, block: int) -> bytes:
        """One whole block. Corruption if its bytes are not those indexed."""
        place = self.find(batch, block)
        if place is None:
            return ZERO_BLOCK
        if place.stored:
            return self._stored(batch, place)
        data = self._segments.read_bytes(place.lane, place.number, BLOCK_BYTES)
        if place.indexed is not None:
            check_bytes(place.indexed, data)
        return data

    def _stored(self, batch: ReadBatch, place: Place) -> bytes:
        if place.indexed is None:
            raise ValueError("only indexed versions are stored")
        data = stored_bytes(batch.transaction(), place.indexed)
        check_bytes(place.indexed, data)
        return data

    def read(self, batch: ReadBatch, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, any alignment."""
        block, skip = divmod(offset, BLOCK_BYTES)
        end_block = -(-(offset + length) // BLOCK_BYTES)
        if end_block - block == 1:
            data = self.read_block(batch, block)
            return data if length == BLOCK_BYTES else data[skip : skip + length]
        pieces = self._pieces(batch, block, end_block)
        data = b"".join(pieces)
        return data if skip == 0 and len(data) == length else data[skip : skip + length]

    def _pieces(self, batch: ReadBatch, block: int, end_block: int) -> list[bytes]:
        """Contents of [block, end_block) in order, runs joined."""
        pieces: list[bytes] = []
        run: list[Place | None] = []
        for place in [self.find(batch, at) for at in range(block, end_block)]:
            if run and not self._continues(run, place):
                pieces.append(self._fetch(batch, run))
                run = []
            run.append(place)
        pieces.append(self._fetch(batch, run))
        return pieces

    def _continues(self, run: list[Place | None], place: Place | None) -> bool:
        """Whether a block's bytes come right after those of the run, in the same file."""
        last = run[-1]
        if last is None or place is None:
            return last is place and len(run) * BLOCK_BYTES < len(_ZEROES)
        if place.number != last.number + BLOCK_BYTES or place.lane != last.lane or last.stored:
            return False
        if place.stored:
            return False
        return self._segments.run_bytes(last.lane, last.number) > BLOCK_BYTES

    def _fetch(self, batch: ReadBatch, run: list[Place | None]) -> bytes:
        first = run[0]
        length = len(run) * BLOCK_BYTES
        if first is None:
            return _ZEROES[:length]
        if first.stored:
            return self._stored(batch, first)
        data = self._segments.read_bytes(first.lane, first.number, length)
        if any(place is not None and place.indexed is not None for place in run):
            whole = memoryview(data)
            for at, place in enumerate(run):
                if place is not None and place.indexed is not None:
                    check_bytes(place.indexed, whole[at * BLOCK_BYTES : (at + 1) * BLOCK_BYTES])
        return data

    def extents(self, offset: int, length: int, *, only_one: bool = False) -> list[tuple[int, bool]]:
        """(bytes, holds data) of neighbouring stretches from `offset`, in 4 KiB steps after the first. They
        may end before `length`: a scan stops after `SCAN_BLOCKS_MAX` blocks, holes left out, or
        `SCAN_WINDOW_BLOCKS` versions, with `only_one` soon after the first stretch."""
        first, looked_at = offset // BLOCK_BYTES, 0
        end = -(-(offset + length) // BLOCK_BYTES)
        stretches: list[tuple[int, bool]] = []
        seen = 0
        block = first
        window = ONE_WINDOW_BLOCKS if only_one else SCAN_WINDOW_BLOCKS
        with self.batch() as batch:
            while block < end and seen < SCAN_WINDOW_BLOCKS and looked_at < SCAN_BLOCKS_MAX:
                if only_one and len(stretches) > 1:
                    break
                stop = min(end, block + window)
                window = min(2 * window, SCAN_WINDOW_BLOCKS)
                written = self._candidates(batch.cursor(), block, stop)
                seen += len(written)
                looked_at += stop - block
                if not written:
                    stop = max(stop, self._next_written(batch.cursor(), stop, end))
                at = block
                for candidate in sorted(written):
                    if self.find(batch, candidate) is not None:
                        extend_stretches(stretches, candidate - at, False)
                        extend_stretches(stretches, 1, True)
                        at = candidate + 1
                extend_stretches(stretches, stop - at, False)
                block = stop
        sized = [(blocks * BLOCK_BYTES, data) for blocks, data in stretches]
        return trim_stretches(sized, offset - first * BLOCK_BYTES, length)

    def _next_written(self, cursor: Cursor, first: int, end: int) -> int:
        """The first block from `first` on that has any version in a lane of this view, or `end`; `first`
        where that would take long to say."""
        nearest = end
        for lane in {interval.lane for interval in self.intervals}:
            for layer in self.memtable.layers:
                versions = layer.volumes.get((lane, self.volume))
                if versions is not None:
                    if len(versions.blocks) > SCAN_WINDOW_BLOCKS:
                        return first
                    nearest = min(
                        (block for block in versions.blocks if first <= block < nearest), default=nearest
                    )
            if cursor.set_range(BLOCK_PREFIX.pack(lane, self.volume, first)):
                key_lane, key_volume, block, _ = unpack_version_key(cursor.key())
                if key_lane == lane and key_volume == self.volume:
                    nearest = min(nearest, block)
        return nearest

    def _candidates(self, cursor: Cursor, first: int, end: int) -> set[int]:
        """Blocks in [first, end) with any version in a lane of this view."""
        found: set[int] = set()
        for lane in {interval.lane for interval in self.intervals}:
            for layer in self.memtable.layers:
                versions = layer.volumes.get((lane, self.volume))
                if versions is not None:
                    blocks = versions.blocks
                    if len(blocks) < end - first:
                        found.update(block for block in blocks if first <= block < end)
                    else:
                        found.update(block for block in range(first, end) if block in blocks)
            found.update(indexed_blocks(cursor, lane, self.volume, first, end))
        return found


def indexed_blocks(cursor: Cursor, lane: int, volume: int, first: int, end: int) -> list[int]:
    """Blocks in [first, end) with any version in the table, in order: one seek for each."""
    blocks = []
    found = cursor.set_range(BLOCK_PREFIX.pack(lane, volume, first))
    while found:
        key_lane, key_volume, block, _ = unpack_version_key(cursor.key())
        if key_lane != lane or key_volume != volume or block >= end:
            break
        blocks.append(block)
        found = cursor.set_range(BLOCK_PREFIX.pack(lane, volume, block + 1))
    return blocks


def extend_stretches(stretches: list[tuple[int, bool]], blocks: int, data: bool) -> None:
    """Add `blocks` blocks to neighbouring stretches of (blocks, flag); none is fine."""
    if blocks <= 0:
        return
    if stretches and stretches[-1][1] == data:
        stretches[-1] = (stretches[-1][0] + blocks, data)
    else:
        stretches.append((blocks, data))


def trim_stretches(stretches: list[tuple[int, bool]], skip: int, length: int) -> list[tuple[int, bool]]:
    """Stretches of (bytes, flag) with `skip` bytes cut off the front and everything past `length`."""
    trimmed = []
    for size, data in stretches:
        cut = min(skip, size)
        skip -= cut
        kept = min(size - cut, length)
        length -= kept
        if kept:
            trimmed.append((kept, data))
    return trimmed
