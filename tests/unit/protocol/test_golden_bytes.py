"""What commit 0fa55f3 encoded is decoded to the same values and encoded to the same bytes.

Whoever changes a form on disk or on the wire makes this fail: sites of both versions must pair, and a site
must read its own files after an upgrade.
"""

from __future__ import annotations

import msgspec
import pytest

from engine.copies.copy_marks import copy_marks
from engine.group.clone_rows import clone_rows
from engine.group.site_state import SITE_TABLES, SiteState
from engine.history.base_rows import load_bases, load_pending
from engine.index.indexed_history import timeline_row
from engine.index.versions import TIMELINE_KEY
from engine.integrity.drills import Drills
from engine.retention.needed import Retention
from protocol.base_messages import encode_parts, records_in, timelines_in
from protocol.envelopes import decode_answer, decode_request, encode_answer, encode_request
from protocol.errors import UsageError
from protocol.events import record_from_row
from protocol.frames import check_frame, decode_rows, encode_frame, parse_prefix
from protocol.messages import decode_message
from protocol.rows import pack_row, unpack_row
from tests.golden.encoded import encoded, load
from tests.golden.engine_samples import BASE, DATA_ROWS, RETENTION, TIMELINES, filled_state
from tests.golden.samples import BASES, MESSAGES, PEER_REQUESTS, RECORD_ROWS, RECORDS, TIMELINE_ROWS
from tests.sim.sim_store import SimStore, StoreFile

KEPT = load()


@pytest.mark.parametrize("kind", KEPT)
def test_the_same_bytes_come_out(kind: str) -> None:
    now = encoded()
    assert list(now) == list(KEPT)
    assert len(KEPT[kind]) > 0
    assert now[kind] == KEPT[kind]


def test_events_are_read_as_before() -> None:
    rows = [unpack_row(data) for data in KEPT["events"]]
    assert [record_from_row(row) for row in rows[: len(RECORDS)]] == RECORDS
    assert rows[len(RECORDS) :] == DATA_ROWS


def test_site_messages_are_read_as_before() -> None:
    expected = [*MESSAGES, *BASES, *PEER_REQUESTS]
    found = [decode_message(data) for data in KEPT["messages"]]
    assert found == expected
    assert [message.encode() for message in found] == KEPT["messages"]


def test_parts_of_a_base_are_read_as_before() -> None:
    (part,) = KEPT["base parts"]
    assert timelines_in(part) == TIMELINE_ROWS
    assert records_in(part) == RECORD_ROWS
    assert encode_parts(timelines_in(part), records_in(part)) == [part]


def test_frames_are_read_as_before() -> None:
    digest = bytes(16)
    rows = [(record.to_row(),) for record in RECORDS] + [tuple(DATA_ROWS)]
    for raw, expected in zip(KEPT["frames"], rows, strict=True):
        prefix = parse_prefix(raw)
        check_frame(prefix, raw, digest)
        assert decode_rows(prefix, raw) == expected
        frame = encode_frame(
            timeline=prefix.timeline,
            position=prefix.position,
            utc_ns=prefix.utc_ns,
            durable=prefix.durable,
            previous_digest=digest,
            rows=decode_rows(prefix, raw),
            payload=[raw[len(raw) - prefix.payload_bytes :]],
            payload_bytes=prefix.payload_bytes,
        )
        assert bytes(frame.raw) == raw
        digest = prefix.digest


def test_control_messages_are_read_as_before() -> None:
    for raw in KEPT["control"]:
        try:
            again = encode_request(decode_request(raw))
        except UsageError:
            again = encode_answer(decode_answer(raw))
        assert again == raw


def test_a_site_state_is_read_as_before() -> None:
    store = SimStore(StoreFile(), SITE_TABLES)
    with store.write() as write:
        for data in KEPT["state rows"]:
            table, key, value = msgspec.msgpack.decode(data, type=tuple[str, bytes, bytes])
            write.put(table, key, value)
    now, expected = SiteState(store), filled_state()
    assert now.groups() == expected.groups()
    assert len(now.groups()) == 4
    pairs = [f"g{number}" for number in range(50)]
    assert [now.pair(group) for group in pairs] == [expected.pair(group) for group in pairs]
    assert now.pair("g0") is not None
    for ask in (
        SiteState.shipped, SiteState.heard, SiteState.drops, SiteState.leases, SiteState.lease_ends,
        copy_marks,
    ):  # fmt: skip
        assert ask(now, "vm1") == ask(expected, "vm1")
        assert ask(now, "vm1")
    assert now.closed("vm1", 197) == "turned back"
    assert clone_rows(now, "vm1") == clone_rows(expected, "vm1") != []
    drills = Drills(store).of("vm1")
    assert [len(drill.steps) for drill in drills] == [2]
    assert (drills[0].data_age_ms, drills[0].cut_utc_ns, drills[0].volumes) == (-1, 0, ("root", "log"))


def test_index_rows_are_read_as_before() -> None:
    one, other, retention, empty, base, pending = KEPT["index rows"]
    assert timeline_row(TIMELINES[1], 1 << 33, bytes(range(16))) == one
    assert timeline_row(TIMELINES[0], 0, b"") == other
    assert Retention.from_value(retention) == RETENTION
    assert Retention.from_value(empty) == Retention()
    store = SimStore(StoreFile(), ("meta",))
    with store.write() as write:
        key = b"base" + TIMELINE_KEY.pack(BASE.timeline)
        write.put("meta", key, base.removeprefix(key))
        write.put("meta", b"pending-base", pending.removeprefix(b"pending-base"))
    with store.read() as transaction:
        assert load_bases(transaction) == [BASE]
        found = load_pending(transaction)
    assert found is not None
    assert (found.timeline, found.lane, found.indexed) == (5, 1 << 31, 70_000)


def test_requests_to_the_indexer_are_rows_with_a_kind() -> None:
    """What is done with them is tests/unit/engine/index/test_requests.py's."""
    for data in KEPT["index requests"]:
        row = unpack_row(data, 1 << 20)
        assert type(row[0]) is str
        assert pack_row(row) == data
