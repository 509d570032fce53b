"""Verification's look at the index: every row decodes and names bytes that are there; deep, the right ones,
and the journal's frames have their rows."""

from __future__ import annotations

from collections.abc import Sequence

from engine.index.runs import missing_rows, versions_in
from engine.index.versions import (
    NUMBER_MASK,
    RECORD_KEY,
    VERSION_KEY,
    check_bytes,
    stored_bytes,
    unpack_version_key,
)
from engine.integrity.faults import DamagedVersion, Fault
from engine.integrity.verified import Verified
from engine.journal.segments import SegmentMap
from engine.ports.store import ReadTransaction, Store
from protocol.errors import Corruption
from protocol.events import LAST_DATA_KIND, WRITE, Row
from protocol.frames import FrameError, FramePrefix
from protocol.limits import BLOCK_BYTES
from protocol.rows import pack_row

ROWS_PER_SLICE = 1000  # of versions


def verify_rows(found: Verified, segments: SegmentMap, store: Store, start: bytes, deep: bool) -> bytes:
    """Check some rows from key `start`, and that no stored bytes among them are without one; the key to go
    on from, or nothing. One transaction: one that lived for the whole scan would keep LMDB from using pages
    again."""
    with store.read() as transaction:
        cursor = transaction.cursor("versions")
        keys: set[bytes] = set()
        more = cursor.set_range(start)
        stop = found.versions + ROWS_PER_SLICE
        while more and found.versions < stop:
            key = bytes(cursor.key())
            keys.add(key)
            _verify_row(found, segments, transaction, key, bytes(cursor.value()), deep)
            more = cursor.next()
        following = bytes(cursor.key()) if more else b""
        _verify_orphans(found, transaction, start, following, keys)
    return following


def _verify_row(
    found: Verified, segments: SegmentMap, transaction: ReadTransaction, key: bytes, value: bytes, deep: bool
) -> None:
    lane, volume, _, _ = unpack_version_key(key)
    try:
        versions = versions_in(key, value)
    except DamagedVersion as error:
        found.versions += max(1, len(error.damage.block_range))
        found.add(error.damage.fault, *error.damage.place)
        return
    found.versions += len(versions)
    for version in versions:
        try:
            if version.tail:
                check_bytes(version, stored_bytes(transaction, version))
            elif not version.zero:
                data = segments.read_bytes(lane, version.number, BLOCK_BYTES if deep else 1)
                if deep:
                    check_bytes(version, data)
            else:
                continue
            found.version_bytes += BLOCK_BYTES
        except DamagedVersion as error:
            found.add(error.damage.fault, *error.damage.place)
        except (Corruption, FrameError):
            found.add(Fault.JOURNAL, lane, volume, unpack_version_key(version.key)[2], version.number)


def _verify_orphans(
    found: Verified, transaction: ReadTransaction, start: bytes, following: bytes, keys: set[bytes]
) -> None:
    """Stored bytes whose row has gone: a read would go on to an older version and call it the truth."""
    cursor = transaction.cursor("blocks")
    more = cursor.set_range(start)
    while more:
        key = bytes(cursor.key())
        if following and key >= following:
            return
        if key not in keys:
            lane, volume, block, inverted = VERSION_KEY.unpack(key)
            found.add(Fault.ROW_MISSING, lane, volume, block, inverted ^ NUMBER_MASK)
        more = cursor.next()


def require_rows(found: Verified, store: Store, lane: int, prefix: FramePrefix, rows: Sequence[Row]) -> None:
    """Every block of an indexed frame has its row, and every record is in the index as it is here."""
    number = prefix.payload_at
    with store.read() as transaction:
        for index, row in enumerate(rows):
            if row[0] > LAST_DATA_KIND:
                place = (prefix.timeline, prefix.position + index)
                expected = pack_row((prefix.utc_ns, prefix.position, row))
                if transaction.get("records", RECORD_KEY.pack(*place)) != expected:
                    found.add(Fault.RECORD, *place, prefix.position)
            if row[0] != WRITE:
                continue
            _, volume, first, count = row
            for place in missing_rows(transaction, lane, volume, first, count, number):
                found.add(Fault.ROW_MISSING, lane, volume, *place)
            number += count * BLOCK_BYTES
