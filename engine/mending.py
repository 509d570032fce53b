"""Putting mended rows back into a group's index: a request to its one writer.

What is put is checked first against the bytes that it names, so that a mistake cannot make things worse.

Called by the indexer process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from engine.journal.segments import SegmentMap
from engine.ports.store import Store
from engine.verify import all_lanes, load_segments
from engine.versions import VERSION_KEY, check_bytes, read_version
from protocol.errors import Corruption
from protocol.limits import BLOCK_BYTES
from protocol.rows import check_row

TABLES = ("versions", "records")


@dataclass(frozen=True, slots=True, kw_only=True)
class MendIndex:
    """Set `key` of a table to `value`; `head` are the stored bytes that go with a stored version's row, else
    empty. No figures."""

    KIND: ClassVar[str] = "mend-index"
    URGENT: ClassVar[bool] = False

    table: str
    key: bytes
    value: bytes
    head: bytes = b""

    def to_row(self) -> tuple[object, ...]:
        """See `IndexRequest.to_row`."""
        return (self.table, self.key, self.value, self.head)


def handle_mend(store: Store, segments: SegmentMap, row: tuple[Any, ...]) -> tuple[int, ...]:
    """A `MendIndex` request. Corruption if it would put what cannot be read."""
    table, key, value, head = check_row(row, str, bytes, bytes, bytes)
    if table not in TABLES:
        raise Corruption(f"nothing is mended in table {table}")
    if table == "versions":
        version = read_version(key, value)
        if version.tail:
            check_bytes(version, head + version.tail)
        elif not version.zero:
            with store.read() as transaction:
                lanes = all_lanes(transaction)
            load_segments(segments, lanes)
            lane = VERSION_KEY.unpack(key)[0]
            check_bytes(version, segments.read_bytes(lane, version.number, BLOCK_BYTES))
    with store.write() as write:
        write.put(table, key, value)
        if head:
            write.put("blocks", key, head)
    return ()
