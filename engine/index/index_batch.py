"""What one transaction adds to the index: versions, records and regions, collected frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from engine.history.unread import read_frame
from engine.index.levels import pieces
from engine.index.runs import indexed_blocks, run_key, run_value
from engine.index.versions import (
    NUMBER_MASK,
    RECORD_KEY,
    REGION_BLOCKS,
    REGION_KEY,
    REGION_VALUE,
    VERSION_KEY,
    version_value,
)
from engine.ports.disk import Buffer
from engine.ports.store import Cursor, WriteTransaction
from protocol.events import LAST_DATA_KIND, WRITE
from protocol.frames import Frame
from protocol.limits import BLOCK_BYTES
from protocol.rows import pack_row


@dataclass(slots=True)
class IndexBatch:
    """What one transaction adds. `regions`: the newest number by (lane, volume, region); `written`: lane,
    volume, first block and blocks of each write; `zeroed`: the same and the number of each range."""

    versions: dict[bytes, bytes] = field(default_factory=dict)
    regions: dict[tuple[int, int, int], int] = field(default_factory=dict)
    written: list[tuple[int, int, int, int]] = field(default_factory=list)
    zeroed: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    records: dict[bytes, bytes] = field(default_factory=dict)
    _blocks: dict[tuple[int, int], set[int]] = field(default_factory=dict)

    def blocks(self) -> dict[tuple[int, int], set[int]]:
        """The blocks written, by lane and volume. Only ranges of zeroes ask for them."""
        for lane, volume, first, count in self.written:
            self._blocks.setdefault((lane, volume), set()).update(range(first, first + count))
        self.written.clear()
        return self._blocks


def put_batch(write: WriteTransaction, batch: IndexBatch) -> None:
    """Put what a batch adds."""
    write.put_sorted("versions", sorted(batch.versions.items()))
    write.put_sorted("records", sorted(batch.records.items()))
    for place, number in sorted(batch.regions.items()):
        key = REGION_KEY.pack(*place)
        before = write.get("regions", key)
        if before is None or len(before) != REGION_VALUE.size or REGION_VALUE.unpack(before)[0] < number:
            write.put("regions", key, REGION_VALUE.pack(number))


def take_frame(batch: IndexBatch, cursor: Cursor, lanes: list[int], lane: int, frame: Frame) -> None:
    """Add one checked frame, whose versions go into `lane`, to the batch. `lanes` are those in which an older
    version may lie under a zeroed block."""
    prefix = frame.prefix
    number = prefix.payload_at
    said = read_frame(frame)
    if said.unread is not None:
        key = RECORD_KEY.pack(prefix.timeline, prefix.position)
        batch.records[key] = pack_row((prefix.utc_ns, prefix.position, said.unread.to_row()))
    for index, row in enumerate(said.rows):
        kind = row[0]
        if kind == WRITE:
            _, volume, first, count = row
            _apply_write(batch, lane, volume, first, count, number, frame.raw, number - prefix.position)
            number += count * BLOCK_BYTES
        elif kind <= LAST_DATA_KIND:
            _, volume, first, count = row
            _apply_zero(batch, cursor, lanes, lane, volume, first, count, number - 1)
        else:
            key = RECORD_KEY.pack(prefix.timeline, prefix.position + index)
            batch.records[key] = pack_row((prefix.utc_ns, prefix.position, row))


def _apply_write(
    batch: IndexBatch, lane: int, volume: int, first: int, count: int, number: int, raw: Buffer, at: int
) -> None:
    versions = batch.versions
    with memoryview(raw) as view:
        for level, start, size in pieces(first, count):
            if level:
                key = run_key(lane, volume, level, start, number)
                data = view[at : at + size * BLOCK_BYTES]
                versions[key] = run_value(lane, volume, start, number, data)
                data.release()
                number += size * BLOCK_BYTES
                at += size * BLOCK_BYTES
                continue
            inverted = number ^ NUMBER_MASK
            for block in range(start, start + size):
                key = VERSION_KEY.pack(lane, volume, block, inverted)
                versions[key] = version_value(key, view[at : at + BLOCK_BYTES])
                inverted -= BLOCK_BYTES
                at += BLOCK_BYTES
            number += size * BLOCK_BYTES
    batch.written.append((lane, volume, first, count))
    for region in range(first // REGION_BLOCKS, (first + count - 1) // REGION_BLOCKS + 1):
        batch.regions[lane, volume, region] = number


def _apply_zero(
    batch: IndexBatch,
    cursor: Cursor,
    lanes: list[int],
    lane: int,
    volume: int,
    first: int,
    count: int,
    number: int,
) -> None:
    """Tombstones over the blocks of a range that have an older version; the others read as zeroes anyway."""
    older = _written_within(batch, lane, volume, first, count)
    for each in lanes:
        older.update(indexed_blocks(cursor, each, volume, first, first + count))
    _put_zeroes(batch, lane, volume, older, number)
    batch.zeroed.append((lane, volume, first, count, number))


def cover_other_lanes(batch: IndexBatch) -> None:
    """Tombstones over what the batch itself has in other lanes, once all of it is there: what a restore put
    under a zeroed range may come after it, as timelines are taken one by one."""
    lanes: dict[int, list[int]] = {}
    for lane, volume in batch.blocks():
        lanes.setdefault(volume, []).append(lane)
    for lane, volume, first, count, number in batch.zeroed:
        older: set[int] = set()
        for each in lanes.get(volume, ()):
            if each != lane:
                older |= _written_within(batch, each, volume, first, count)
        _put_zeroes(batch, lane, volume, older, number)


def _written_within(batch: IndexBatch, lane: int, volume: int, first: int, count: int) -> set[int]:
    written = batch.blocks().get((lane, volume), ())
    end = first + count
    if len(written) < count:
        return {block for block in written if first <= block < end}
    return {block for block in range(first, end) if block in written}


def _put_zeroes(batch: IndexBatch, lane: int, volume: int, blocks: set[int], number: int) -> None:
    for start, size in _neighbours(blocks):
        for level, at, count in pieces(start, size):
            for block in (at,) if level else range(at, at + count):
                key = run_key(lane, volume, level, block, number)
                batch.versions[key] = version_value(key, None)
    for region in {block // REGION_BLOCKS for block in blocks}:
        batch.regions[lane, volume, region] = max(number, batch.regions.get((lane, volume, region), 0))


def _neighbours(blocks: set[int]) -> Iterator[tuple[int, int]]:
    """(first, count) of what stands side by side."""
    first = end = -1
    for block in sorted(blocks):
        if block != end:
            if end > first:
                yield first, end - first
            first = block
        end = block + 1
    if end > first:
        yield first, end - first
