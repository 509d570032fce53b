"""Putting mended rows back into a group's index: a request to its one writer.

What is put is checked first against the bytes that it names, so that a mistake cannot make things worse.

Called by the indexer process.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from engine.index.requests import IndexRequest
from engine.index.runs import versions_in
from engine.index.versions import VERSION_KEY, check_bytes
from engine.integrity.verify import all_lanes, load_segments
from engine.journal.segments import SegmentMap
from engine.ports.store import Store
from protocol.limits import BLOCK_BYTES, KEY_BYTES_MAX


class RepairIndex(IndexRequest, frozen=True, kw_only=True, tag="mend-index"):
    """Set `key` of a table to `value`; `head` are the stored bytes that go with a stored version's row, else
    empty. No figures."""

    table: Literal["versions", "records"]
    key: Annotated[bytes, Meta(min_length=1, max_length=KEY_BYTES_MAX)]
    value: bytes
    head: bytes = b""


def handle_repair(store: Store, segments: SegmentMap, row: tuple[Any, ...]) -> tuple[int, ...]:
    """A `MendIndex` request. Corruption if it would put what cannot be read."""
    request = RepairIndex.from_row(row)
    table, key, value, head = request.table, request.key, request.value, request.head
    if table == "versions":
        with store.read() as transaction:
            lanes = all_lanes(transaction)
        load_segments(segments, lanes)
        lane = VERSION_KEY.unpack(key)[0]
        for version in versions_in(key, value):
            if version.tail:
                check_bytes(version, head + version.tail)
            elif not version.zero:
                check_bytes(version, segments.read_bytes(lane, version.number, BLOCK_BYTES))
    with store.write() as write:
        write.put(table, key, value)
        if head:
            write.put("blocks", key, head)
    return ()
