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
from engine.index.extents import ExtentScan, trim_stretches
from engine.index.memtable import NOT_FOUND, Memtable
from engine.index.runs import levels_of, newest_indexed
from engine.index.versions import (
    IndexedVersion,
    check_bytes,
    stored_bytes,
)
from engine.journal.segments import SegmentMap
from engine.ports.store import Cursor, ReadTransaction, Store
from protocol.limits import BLOCK_BYTES

ZERO_BLOCK = bytes(BLOCK_BYTES)
_ZEROES = bytes(1 << 20)


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

    __slots__ = ("_context", "_cursor", "_levels", "_memtable", "_store", "_transaction")

    def __init__(self, store: Store, memtable: Memtable) -> None:
        self._store = store
        self._memtable = memtable
        self._levels = memtable.levels
        self._context: AbstractContextManager[ReadTransaction] | None = None
        self._transaction: ReadTransaction | None = None
        self._cursor: Cursor | None = None

    def transaction(self) -> ReadTransaction:
        """The transaction."""
        if self._transaction is None:
            # Before it begins: what is found out in it must not be noted for an index that changed since.
            self._levels = self._memtable.levels
            context = self._context = self._store.read()
            self._transaction = context.__enter__()
        return self._transaction

    def levels(self, lane: int, volume: int) -> tuple[int, ...]:
        """Levels at which the index has rows of a volume in a lane."""
        found = self._levels.get((lane, volume))
        if found is None:
            cursor = self.cursor()
            found = self._levels[lane, volume] = levels_of(cursor, lane, volume)
        return found

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
        return ReadBatch(self._store, self.memtable)

    def find(self, batch: ReadBatch, block: int) -> Place | None:
        """Where a block's bytes are; None if it reads as zeroes."""
        volume = self.volume
        if self._strands is not None:
            return self._find_deep(batch, block, self._strands)
        for interval in self.intervals:
            entry = self.memtable.newest(volume, block, interval)
            if entry != NOT_FOUND:
                return None if entry & 1 else Place(interval.lane, entry >> 1, None)
            levels = batch.levels(interval.lane, volume)
            if not levels:
                continue
            version = newest_indexed(batch.cursor(), volume, block, interval, levels)
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
                # The index has none above it in this lane that the memtable has not: those that it has were
                # there before any that are left here.
                best, entry = kept
                place = None if entry & 1 else Place(lane, entry >> 1, None)
                continue
            levels = batch.levels(lane, volume)
            if not levels:
                continue
            stored = newest_stored(batch.cursor(), volume, block, strand, best, levels)
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
        may end before `length`, as `engine.index.extents` has it, with `only_one` soon after the first."""
        first, end = offset // BLOCK_BYTES, -(-(offset + length) // BLOCK_BYTES)
        with self.batch() as batch:
            scan = ExtentScan(
                self.volume,
                self.intervals,
                self.memtable,
                batch,
                lambda block: self.find(batch, block) is not None,
            )
            stretches = scan.run(first, end, only_one=only_one)
        sized = [(blocks * BLOCK_BYTES, data) for blocks, data in stretches]
        return trim_stretches(sized, offset - first * BLOCK_BYTES, length)
