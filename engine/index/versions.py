"""The versions table: where every block's content is, for every version up to the checkpoint.

    table       key (big-endian)                                value
    versions    u32 lane, u64 volume, u64 block, u64 ~number    u8 kind, u32 CRC-32C of key and bytes
                                                                stored: also the last 16 bytes of the block
    blocks      the same                                        the first 4,080 bytes of a stored block
    regions     u32 lane, u64 volume, u64 block // 16,384       u64 newest number among its versions, or more
    timelines   u64 timeline                                    see `engine.index.indexed_history`
    records     u64 timeline, u64 position                      see `engine.index.indexed_history`
    meta        text                                            see `engine.index.indexed_history`

Kinds: 1 the bytes are in the journal at position `number`; 2 zeroes (a tombstone: older versions lie below);
3 stored: the bytes were moved here when the journal was truncated; 4 a run of blocks in the journal, whose
rows `engine.index.runs` says. `~number` sorts newest first, so that one seek to
(lane, volume, block, ~(high - 1)) lands on the newest version below `high`.

A page of LMDB offers 4,080 bytes to a value: a whole block would take two, so its end stands in the row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from struct import Struct
from struct import error as StructError
from typing import NamedTuple

from crc32c import crc32c

from engine.history.visibility import Interval
from engine.integrity.faults import Damage, DamagedVersion, Fault
from engine.ports.disk import Buffer
from engine.ports.store import Cursor, ReadTransaction
from protocol.errors import Corruption, RemoteProtocolError
from protocol.limits import BLOCK_BYTES

TABLES = ("versions", "blocks", "regions", "timelines", "records", "meta")

VERSION_KEY = Struct(">IQQQ")
VERSION_KEY_BYTES = VERSION_KEY.size
VERSION_VALUE = Struct(">BI")
STORED_TAIL_BYTES = 16
STORED_HEAD_BYTES = BLOCK_BYTES - STORED_TAIL_BYTES
STORED_VALUE = Struct(f">BI{STORED_TAIL_BYTES}s")
LANE_PREFIX = Struct(">I")
BLOCK_PREFIX = Struct(">IQQ")
REGION_KEY = Struct(">IQQ")
REGION_VALUE = Struct(">Q")
REGION_BLOCKS = 16_384
TIMELINE_KEY = Struct(">Q")
RECORD_KEY = Struct(">QQ")
NUMBER_MASK = (1 << 64) - 1


class VersionKind(IntEnum):
    """Where a version's bytes are."""

    JOURNAL = 1
    ZERO = 2
    STORED = 3
    RUN = 4


_JOURNAL, _STORED = int(VersionKind.JOURNAL), int(VersionKind.STORED)  # quicker to pack, millions of times


class IndexedVersion(NamedTuple):
    """A version found in the table. `tail` is the end of a stored block, empty for the other kinds."""

    number: int
    zero: bool
    crc: int
    key: bytes
    tail: bytes = b""


def version_key(lane: int, volume: int, block: int, number: int) -> bytes:
    """28 bytes that sort by lane, volume, block and newest first."""
    return VERSION_KEY.pack(lane, volume, block, number ^ NUMBER_MASK)


def version_value(key: bytes, data: Buffer | None) -> bytes:
    """5 bytes for a block's content, or for zeroes if `data` is None."""
    if data is None:
        return VERSION_VALUE.pack(VersionKind.ZERO, crc32c(key))
    return VERSION_VALUE.pack(_JOURNAL, crc32c(data, crc32c(key)))


def single_value(version: IndexedVersion) -> bytes:
    """The row of a version by itself that was in a run: 5 bytes."""
    return VERSION_VALUE.pack(VersionKind.ZERO if version.zero else VersionKind.JOURNAL, version.crc)


def stored_value(crc: int, data: Buffer) -> bytes:
    """The row of a version whose bytes `data` move from the journal into `blocks`: 21 bytes."""
    return STORED_VALUE.pack(_STORED, crc, bytes(data[STORED_HEAD_BYTES:]))


def stored_bytes(transaction: ReadTransaction, version: IndexedVersion) -> bytes:
    """The bytes of a stored version, as they are. Corruption if they are not there."""
    head = transaction.get("blocks", version.key)
    if head is None or len(head) != STORED_HEAD_BYTES:
        raise _damaged(version, "stored bytes", "are missing")
    return head + version.tail


@contextmanager
def index_row(table: str, key: bytes) -> Iterator[None]:
    """While a row of `timelines`, `records` or `meta` is read: RemoteProtocolError, which names the row,
    whatever its bytes raise."""
    try:
        yield
    except (RemoteProtocolError, ValueError, StructError) as error:
        shown = key.decode() if table == "meta" and key.isascii() else bytes(key).hex()
        raise RemoteProtocolError(f"the row {table} {shown} cannot be read: {error}") from error


def newest_single(cursor: Cursor, volume: int, block: int, interval: Interval) -> IndexedVersion | None:
    """The newest version of a block within an interval that has a row of its own, or None. Corruption if its
    row cannot be read."""
    lane, low, high = interval
    if not cursor.set_range(VERSION_KEY.pack(lane, volume, block, (high - 1) ^ NUMBER_MASK)):
        return None
    key = bytes(cursor.key())
    if len(key) != VERSION_KEY_BYTES:
        raise _bad_key(key)
    found_lane, found_volume, found_block, inverted = VERSION_KEY.unpack(key)
    number = inverted ^ NUMBER_MASK
    if found_block != block or found_volume != volume or found_lane != lane or number < low:
        return None
    return read_version(key, cursor.value())


def unpack_version_key(key: bytes) -> tuple[int, int, int, int]:
    """Lane, volume, block and ~number. Corruption for a key of another length, which is no version's."""
    if len(key) != VERSION_KEY_BYTES:
        raise _bad_key(key)
    lane, volume, block, inverted = VERSION_KEY.unpack(key)
    return lane, volume, block, inverted


def _bad_key(key: bytes) -> Corruption:
    return Corruption(
        f"the row versions {bytes(key).hex()} has a key that no version has",
        subject="index.mdb",
        next_step="`farshore verify GROUP --deep` lists what is affected",
    )


def region_number(value: bytes | None) -> int:
    """The newest number that a row of `regions` says; one past all if there is none, or none that can be
    read: then nothing may be skipped."""
    return REGION_VALUE.unpack(value)[0] if value is not None and len(value) == REGION_VALUE.size else 1 << 64


def read_version(key: bytes, value: bytes) -> IndexedVersion:
    """Decode one row of `versions`."""
    number = unpack_version_key(key)[3] ^ NUMBER_MASK
    if len(value) == VERSION_VALUE.size:
        kind, crc = VERSION_VALUE.unpack(value)
        if kind == VersionKind.JOURNAL:
            return IndexedVersion(number, False, crc, key)
        if kind == VersionKind.ZERO and crc == crc32c(key):
            return IndexedVersion(number, True, crc, key)
    elif len(value) == STORED_VALUE.size:
        kind, crc, tail = STORED_VALUE.unpack(value)
        if kind == VersionKind.STORED:
            return IndexedVersion(number, False, crc, key, tail)
    raise row_damaged(key)


def row_damaged(key: bytes) -> DamagedVersion:
    """What is said of a row whose value cannot be read."""
    lane, volume, block, inverted = VERSION_KEY.unpack(key)
    return DamagedVersion(
        f"index row of volume {volume:x} block {block} is damaged",
        Damage(Fault.ROW, (lane, volume, block, inverted ^ NUMBER_MASK)),
    )


def check_bytes(version: IndexedVersion, data: Buffer) -> None:
    """Corruption unless `data` is what was indexed."""
    if crc32c(data, crc32c(version.key)) != version.crc:
        raise _damaged(version, "stored bytes" if version.tail else "journal bytes", "do not match the index")


def _damaged(version: IndexedVersion, what: str, how: str) -> DamagedVersion:
    lane, volume, block, _ = VERSION_KEY.unpack(version.key)
    fault = Fault.STORED if version.tail else Fault.JOURNAL
    return DamagedVersion(
        f"{what} of volume {volume:x} block {block} {how}",
        Damage(fault, (lane, volume, block, version.number)),
    )
