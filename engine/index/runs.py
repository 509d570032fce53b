"""Runs: neighbouring blocks that were written at once, as one row of `versions`.

A large write would take a row a block. Cut where their numbers are multiples of a run's size, its pieces are
runs of 4, 16 or 256 blocks, and what is left over at both ends are single blocks:

    key      as of a single block, with the level in the top byte of `block`: 1 for 4 blocks, 2 for 16, 3 for
             256; the rest of it is the first block, and `number` is that of the first block
    value    u8 kind 4, and of every block u32 CRC-32C of the key and bytes that it would have by itself
             zeroes: as of a single block; every block of the run has the same number then

So a block's newest version is the newest of one seek on each level, however often it was written, and a run
falls apart into single blocks without a look at its bytes. Stored versions are single blocks: truncation
takes runs apart.

Pure but for the cursors that it is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from crc32c import crc32c

from engine.history.visibility import Interval
from engine.index.levels import (
    ALL_LEVELS,
    FIRST_MASK,
    LEVEL_SHIFT,
    blocks_at,
    level_and_first,
    pieces,
    run_blocks,
    tagged,
)
from engine.index.versions import (
    NUMBER_MASK,
    VERSION_KEY,
    VERSION_VALUE,
    IndexedVersion,
    VersionKind,
    newest_single,
    read_version,
    row_damaged,
    unpack_version_key,
    version_key,
    version_value,
)
from engine.integrity.faults import DamagedVersion
from engine.ports.disk import Buffer
from engine.ports.store import Cursor, ReadTransaction
from protocol.limits import BLOCK_BYTES

_PLACE = Struct(">IQQ")  # the front of a key: lane, volume, block with its level
_KEY_FRONT, _KEY_END = Struct(">IQ"), Struct(">QQ")  # a key in two: lane and volume; block and ~number
_CRC = Struct(">I")


def run_key(lane: int, volume: int, level: int, first: int, number: int) -> bytes:
    """28 bytes. `number` is that of the run's first block."""
    return VERSION_KEY.pack(lane, volume, tagged(level, first), number ^ NUMBER_MASK)


def run_value(lane: int, volume: int, first: int, number: int, data: memoryview) -> bytes:
    """The row of a run whose blocks' bytes are `data`, from block `first` on."""
    # A block's checksum is over its key and its bytes: what all of the keys begin with is taken once.
    pack, inverted = _KEY_END.pack, number ^ NUMBER_MASK
    begun = crc32c(_KEY_FRONT.pack(lane, volume))
    crcs = [
        crc32c(data[at : at + BLOCK_BYTES], crc32c(pack(first + at // BLOCK_BYTES, inverted - at), begun))
        for at in range(0, len(data), BLOCK_BYTES)
    ]
    return bytes((VersionKind.RUN,)) + Struct(f">{len(crcs)}I").pack(*crcs)


def levels_of(cursor: Cursor, lane: int, volume: int) -> tuple[int, ...]:
    """Levels at which the index has rows of a volume in a lane, of 0 to 3. With runs, 0 is always among them:
    a truncation takes runs apart, and what it committed can be read before anybody is told."""
    found = []
    for level in (0, *ALL_LEVELS):
        if cursor.set_range(_PLACE.pack(lane, volume, tagged(level, 0))):
            key_lane, key_volume, block, _ = unpack_version_key(cursor.key())
            if (key_lane, key_volume, block >> LEVEL_SHIFT) == (lane, volume, level):
                found.append(level)
    return (0, *found) if found and found[0] else tuple(found)


def newest_indexed(
    cursor: Cursor, volume: int, block: int, interval: Interval, levels: tuple[int, ...]
) -> IndexedVersion | None:
    """The newest version of a block within an interval, or None. Corruption if its row cannot be read: that
    of an older version, at another level, hides nothing. `levels` are those at which the volume has rows in
    the interval's lane (`levels_of`)."""
    best: IndexedVersion | None = None
    failed: DamagedVersion | None = None
    for level in levels:
        try:
            if level == 0:
                found = newest_single(cursor, volume, block, interval)
            else:
                found = _newest_in_runs(cursor, volume, block, interval, level)
        except DamagedVersion as error:
            if failed is None or error.number > failed.number:
                failed = error
        else:
            if found is not None and (best is None or found.number > best.number):
                best = found
    if failed is not None and (best is None or failed.number > best.number):
        raise failed
    return best


def newest_number(
    cursor: Cursor, volume: int, block: int, interval: Interval, levels: tuple[int, ...]
) -> int | None:
    """The number of that version, though its row's value cannot be read."""
    numbers = []
    lane, low, high = interval
    for level in levels:
        for key, value in versions_of(cursor, (lane, volume, block), high, level):
            number = number_of(key, value, block)
            if number < high:
                if number >= low:
                    numbers.append(number)
                break
    return max(numbers, default=None)


def versions_of(
    cursor: Cursor, place: tuple[int, int, int], high: int, level: int
) -> Iterator[tuple[bytes, bytes]]:
    """The rows of a level that a block (lane, volume, block) has a version in, newest first, from those whose
    first block is numbered below `high` on."""
    lane, volume, block = place
    first = block & -run_blocks(level)
    prefix = _PLACE.pack(lane, volume, tagged(level, first))
    more = high > 0 and cursor.set_range(
        VERSION_KEY.pack(lane, volume, tagged(level, first), (high - 1) ^ NUMBER_MASK)
    )
    while more:
        key = bytes(cursor.key())
        if not key.startswith(prefix):
            return
        yield key, cursor.value()
        more = cursor.next()


def number_of(key: bytes, value: Buffer, block: int) -> int:
    """The number of a block's version in a row: of a run, later than that of its first block by what lies
    between, unless all of it is zeroes. So is the number of a row that says neither: it is met, and refused,
    wherever the run could have been found."""
    _, _, tag, inverted = unpack_version_key(key)
    number: int = inverted ^ NUMBER_MASK
    if _says(value, VersionKind.RUN):
        return number + (block - (tag & FIRST_MASK)) * BLOCK_BYTES
    return number


def _says(value: Buffer, kind: VersionKind) -> bool:
    """Whether a row is of this kind, by its length too."""
    zeroes = len(value) == VERSION_VALUE.size
    return len(value) > 0 and value[0] == kind and zeroes == (kind == VersionKind.ZERO)


def _newest_in_runs(
    cursor: Cursor, volume: int, block: int, interval: Interval, level: int
) -> IndexedVersion | None:
    lane, low, high = interval
    for key, value in versions_of(cursor, (lane, volume, block), high, level):
        number = number_of(key, value, block)
        if number < high:
            return version_in(key, value, block) if number >= low else None
    return None


def version_in(key: bytes, value: bytes, block: int) -> IndexedVersion:
    """A block's version in a row of any level. DamagedVersion if the row cannot be read."""
    lane, volume, tag, inverted = unpack_version_key(key)
    level, first = level_and_first(tag)
    if level == 0:
        return read_version(key, value)
    number = inverted ^ NUMBER_MASK
    if len(value) and value[0] == VersionKind.ZERO:
        read_version(key, value)  # the whole row is checked by its own CRC
        single = VERSION_KEY.pack(lane, volume, block, inverted)
        return IndexedVersion(number, True, crc32c(single), single)
    if len(value) != 1 + 4 * len(blocks_at(tag)) or value[0] != VersionKind.RUN:
        raise row_damaged(key)
    number += (block - first) * BLOCK_BYTES
    (crc,) = _CRC.unpack_from(value, 1 + 4 * (block - first))
    return IndexedVersion(number, False, crc, VERSION_KEY.pack(lane, volume, block, number ^ NUMBER_MASK))


def versions_in(key: bytes, value: bytes) -> list[IndexedVersion]:
    """Every block's version in a row, in order. DamagedVersion if the row cannot be read."""
    blocks = blocks_at(unpack_version_key(key)[2])
    if not blocks:
        raise row_damaged(key)
    return [version_in(key, value, block) for block in blocks]


def row_holding(
    transaction: ReadTransaction, lane: int, volume: int, block: int, number: int
) -> tuple[bytes, bytes] | None:
    """Key and value of the row that has the version of a block with that number; None if there is none. For a
    field `block` that means a run, the run's."""
    tag_level, first = level_and_first(block)
    for level in (tag_level,) if tag_level else (0, *ALL_LEVELS):
        start = first & -run_blocks(level)
        skip = (first - start) * BLOCK_BYTES
        for at, other in ((number - skip, VersionKind.ZERO), (number, VersionKind.RUN)):
            value = transaction.get("versions", run_key(lane, volume, level, start, at)) if at >= 0 else None
            # One that says neither, because it is damaged, may be either.
            if value is not None and not (skip and _says(value, other)):
                return run_key(lane, volume, level, start, at), value
    return None


def exact_version(
    transaction: ReadTransaction, lane: int, volume: int, block: int, number: int
) -> IndexedVersion | None:
    """The version of a block with that number, whatever row it is in; None if there is none. DamagedVersion
    if the row cannot be read."""
    row = row_holding(transaction, lane, volume, block, number)
    return version_in(*row, block) if row is not None else None


def place_of(key: bytes) -> tuple[int, int, int, int, int]:
    """Lane, volume, first block, blocks and number of a row."""
    lane, volume, tag, inverted = unpack_version_key(key)
    level, first = level_and_first(tag)
    return lane, volume, first, run_blocks(level), inverted ^ NUMBER_MASK


def row_value(key: bytes, data: bytes | None) -> bytes:
    """The row of a key whose blocks' bytes in the journal are `data`, of zeroes if None."""
    lane, volume, first, blocks, number = place_of(key)
    if data is None or blocks == 1:
        return version_value(key, data)
    with memoryview(data) as view:
        return run_value(lane, volume, first, number, view)


def missing_rows(
    transaction: ReadTransaction, lane: int, volume: int, first: int, count: int, number: int
) -> list[tuple[int, int]]:
    """Field `block` and number of rows that a write of `count` blocks should have, and has not. A version
    before runs put one for each block."""
    found: list[tuple[int, int]] = []
    for level, start, size in pieces(first, count):
        run = (tagged(level, start), number)
        if not level or not _has_row(transaction, lane, volume, *run):
            singles = [(start + at, number + at * BLOCK_BYTES) for at in range(size)]
            missing = [each for each in singles if not _has_row(transaction, lane, volume, *each)]
            found += [run] if level and len(missing) == size else missing
        number += size * BLOCK_BYTES
    return found


def _has_row(transaction: ReadTransaction, lane: int, volume: int, block: int, number: int) -> bool:
    return transaction.get("versions", version_key(lane, volume, block, number)) is not None


def indexed_blocks(cursor: Cursor, lane: int, volume: int, first: int, end: int) -> list[int]:
    """Blocks in [first, end) with any version in the table, in order: one seek for each row's place."""
    found: set[int] = set()
    for level in (0, *ALL_LEVELS):
        found.update(
            block
            for run in indexed_runs(cursor, lane, volume, level, first, end)
            for block in range(max(first, run), min(end, run + run_blocks(level)))
        )
    return sorted(found)


def indexed_runs(cursor: Cursor, lane: int, volume: int, level: int, first: int, end: int) -> Iterator[int]:
    """First blocks of the places of a level that reach into [first, end) and have any version, in order. The
    cursor stands on the newest row of each, and may be moved."""
    size = run_blocks(level)
    more = cursor.set_range(_PLACE.pack(lane, volume, tagged(level, first & -size)))
    while more:
        key_lane, key_volume, tag, _ = unpack_version_key(cursor.key())
        key_level, at = level_and_first(tag)
        if (key_lane, key_volume, key_level) != (lane, volume, level) or at >= end:
            return
        yield at
        more = cursor.set_range(_PLACE.pack(lane, volume, tagged(level, at + size)))
