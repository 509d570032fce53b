"""Frames: what goes in comes out, and nothing that is not a frame is taken for one."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import msgpack
import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_128_digest

from protocol.events import TRIM, WRITE, ZERO, Row, VolumeCreated
from protocol.frames import (
    NO_DIGEST,
    PREFIX_BYTES,
    Frame,
    FrameError,
    FramePrefix,
    check_frame,
    decode_rows,
    encode_frame,
    parse_prefix,
)
from protocol.limits import (
    BLOCK_BYTES,
    BLOCKS_MAX,
    FRAME_BYTES_MAX,
    FRAME_EVENTS_MAX,
    FRAME_TABLE_BYTES_MAX,
)
from protocol.positions import POSITION_MAX

TIMELINE = 0x1122334455667788
BLOCK = bytes(range(256)) * 16
PREVIOUS = bytes(range(16))


def frame_of(rows: list[Row], payload: bytes = b"", *, previous: bytes = PREVIOUS) -> Frame:
    return encode_frame(
        timeline=TIMELINE,
        position=8192,
        utc_ns=1_700_000_000_000_000_000,
        durable=4096,
        previous_digest=previous,
        rows=rows,
        payload=[payload] if payload else [],
        payload_bytes=len(payload),
    )


def forged(
    table: bytes, payload: bytes = b"", *, events: int = 1, opening: bytes = b"\x92", bin_head: bytes = b""
) -> Frame:
    """A frame as the module's docstring has it, put together by hand: CRC and digest right, the rest free."""
    bin_head = bin_head or b"\xc6" + struct.pack(">I", len(payload))
    body = opening + table + bin_head + payload
    fields = (b"FSHF", 1, events, len(body), len(payload), 8192, TIMELINE, 1_700_000_000_000_000_000, 4096)
    head = struct.pack(">4sHHIIQQQQII", *fields, crc32c(body), 0)
    raw = head + xxh3_128_digest(PREVIOUS + head + xxh3_128_digest(body)) + body
    return Frame(parse_prefix(raw), raw)


def read_back(raw: bytes, previous: bytes = PREVIOUS) -> tuple[Row, ...]:
    """All that a reader does with bytes that claim to be a frame."""
    prefix = parse_prefix(raw)
    check_frame(prefix, raw[: prefix.frame_bytes], previous)
    return decode_rows(prefix, raw)


SMALL = frame_of([VolumeCreated(name="root", size_bytes=1 << 30).to_row()])
WHOLE = frame_of([(WRITE, 96, 7, 1), (ZERO, 96, 0, 5)], BLOCK)

numbers = st.integers(0, POSITION_MAX)
zero_rows = st.tuples(
    st.sampled_from([ZERO, TRIM]), numbers, st.integers(0, BLOCKS_MAX // 2), st.integers(1, BLOCKS_MAX // 2)
)
write_rows = st.tuples(st.just(WRITE), numbers, st.integers(0, BLOCKS_MAX - 3), st.integers(1, 3))


@dataclass(frozen=True)
class Sample:
    """What a frame is made of."""

    rows: list[Row]
    payload: bytes
    fields: tuple[int, int, int, int]
    previous: bytes


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    rows = draw(st.lists(zero_rows | write_rows, min_size=1, max_size=8))
    blocks = sum(row[3] for row in rows if row[0] == WRITE)
    seed = draw(st.binary(min_size=1, max_size=32))
    payload = (seed * (blocks * BLOCK_BYTES // len(seed) + 1))[: blocks * BLOCK_BYTES]
    places = st.integers(0, POSITION_MAX - FRAME_BYTES_MAX)
    fields = draw(st.tuples(st.integers(1, (1 << 64) - 1), places, numbers, numbers))
    return Sample(rows, payload, fields, draw(st.binary(min_size=16, max_size=16)))


@given(samples())
def test_what_is_encoded_is_decoded(sample: Sample) -> None:
    timeline, position, utc_ns, unsynced_bytes = sample.fields
    durable = max(0, position - unsynced_bytes)
    middle = len(sample.payload) // 3
    frame = encode_frame(
        timeline=timeline,
        position=position,
        utc_ns=utc_ns,
        durable=durable,
        previous_digest=sample.previous,
        rows=sample.rows,
        payload=[sample.payload[:middle], memoryview(sample.payload)[middle:]],
        payload_bytes=len(sample.payload),
    )
    prefix = parse_prefix(b"before" + frame.raw, len(b"before"))
    assert prefix == frame.prefix
    assert (prefix.timeline, prefix.position, prefix.utc_ns) == (timeline, position, utc_ns)
    assert prefix.durable == durable
    check_frame(prefix, frame.raw, sample.previous)
    assert decode_rows(prefix, frame.raw) == tuple(sample.rows)
    assert prefix.end == position + len(frame.raw)
    assert frame.raw[prefix.payload_at - position :] == sample.payload


def test_the_bytes_of_a_frame_never_change() -> None:
    """Journals of years must stay readable: whoever changes this line changes the format's version."""
    assert SMALL.raw.hex() == (
        "46534846" "0001" "0001" "00000013" "00000000"
        "0000000000002000" "1122334455667788" "17979cfe362a0000" "0000000000001000"
        "64e67ca6" "00000000" "3d14c046ef525eb9582ca0f33376e3f3"
        "92" "91" "9311a4726f6f74ce40000000" "c600000000"
    )  # fmt: skip


@pytest.mark.parametrize("frame", [SMALL, WHOLE])
def test_a_frame_is_what_the_byte_table_says(frame: Frame) -> None:
    """Read by hand with nothing but struct, msgpack and the two checksums."""
    raw = bytes(frame.raw)
    rows, payload = msgpack.unpackb(raw[PREFIX_BYTES:])
    assert tuple(map(tuple, rows)) == decode_rows(frame.prefix, raw)
    assert forged(msgpack.packb(rows), payload, events=len(rows)).raw == raw


def test_the_digest_chains() -> None:
    """The same frame after another history is another frame."""
    frame = frame_of([(WRITE, 1, 0, 1)], BLOCK)
    check_frame(frame.prefix, frame.raw, PREVIOUS)
    with pytest.raises(FrameError, match="digest"):
        check_frame(frame.prefix, frame.raw, NO_DIGEST)
    other = frame_of([(WRITE, 1, 0, 1)], BLOCK, previous=NO_DIGEST)
    assert other.raw[PREFIX_BYTES:] == frame.raw[PREFIX_BYTES:]
    assert other.prefix.digest != frame.prefix.digest


def test_every_bit_of_a_small_frame_is_guarded() -> None:
    for at in range(len(SMALL.raw)):
        for bit in range(8):
            damaged = bytearray(SMALL.raw)
            damaged[at] ^= 1 << bit
            with pytest.raises(FrameError):
                read_back(bytes(damaged))


def test_every_byte_of_a_frame_with_data_is_guarded() -> None:
    for at in range(len(WHOLE.raw)):
        damaged = bytearray(WHOLE.raw)
        damaged[at] ^= 0xFF
        with pytest.raises(FrameError):
            read_back(bytes(damaged))


def test_a_frame_cut_at_any_byte_is_none() -> None:
    raw = bytes(WHOLE.raw)
    for length in range(len(raw)):
        with pytest.raises(FrameError):
            read_back(raw[:length])
        with pytest.raises(FrameError):
            read_back(raw[:length] + bytes(len(raw) - length))
    assert read_back(raw)


def test_a_check_wants_the_whole_frame_and_no_more() -> None:
    with pytest.raises(FrameError, match="bytes says"):
        check_frame(SMALL.prefix, bytes(SMALL.raw) + b"\0", PREVIOUS)


def test_without_the_digest_before_the_body_is_still_checked() -> None:
    check_frame(WHOLE.prefix, WHOLE.raw, None)
    damaged = bytearray(WHOLE.raw)
    damaged[-1] ^= 1
    with pytest.raises(FrameError, match="CRC"):
        check_frame(WHOLE.prefix, damaged, None)


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, b"FSHG"),
        (4, struct.pack(">H", 2)),
        (6, struct.pack(">H", 0)),
        (6, struct.pack(">H", FRAME_EVENTS_MAX + 1)),
        (8, struct.pack(">I", FRAME_BYTES_MAX - PREFIX_BYTES + 1)),
        (8, struct.pack(">I", (1 << 32) - 1)),
        (8, struct.pack(">I", 5)),
        (12, struct.pack(">I", 4095)),
        (12, struct.pack(">I", (1 << 32) - BLOCK_BYTES)),
        (40, struct.pack(">Q", 8193)),
        (52, struct.pack(">I", 1)),
    ],
)
def test_a_prefix_outside_its_limits_is_refused_before_anything_is_read(offset: int, value: bytes) -> None:
    raw = bytearray(SMALL.raw)
    raw[offset : offset + len(value)] = value
    with pytest.raises(FrameError):
        parse_prefix(raw)


def test_the_largest_table_is_a_limit() -> None:
    body_bytes = FRAME_TABLE_BYTES_MAX + 6
    raw = bytearray(SMALL.raw)
    raw[8:12] = struct.pack(">I", body_bytes)
    assert parse_prefix(raw).body_bytes == body_bytes
    raw[8:12] = struct.pack(">I", body_bytes + 1)
    with pytest.raises(FrameError):
        parse_prefix(raw)


def test_too_large_a_frame_is_not_built() -> None:
    blocks = FRAME_BYTES_MAX // BLOCK_BYTES
    with pytest.raises(ValueError, match="limits"):
        frame_of([(WRITE, 1, 0, blocks)], bytes(blocks * BLOCK_BYTES))


def test_a_payload_of_another_length_is_not_built() -> None:
    with pytest.raises(ValueError, match="limits"):
        encode_frame(
            timeline=1,
            position=0,
            utc_ns=0,
            durable=0,
            previous_digest=NO_DIGEST,
            rows=[(WRITE, 1, 0, 1)],
            payload=[bytes(4095)],
            payload_bytes=4096,
        )


def packed(*rows: object) -> bytes:
    table: bytes = msgpack.packb(rows)
    return table


NESTED_DEEP = b"\x91" * 60_000 + b"\x90"
NESTED_EMPTY = b"\xdc\xff\xff" + b"\x90" * 65_000

HOSTILE_TABLES = {
    "nested deep": NESTED_DEEP,
    "an array with more elements than events may be": NESTED_EMPTY,
    "an array that promises four billion": b"\xdd\xff\xff\xff\xff",
    "a string that promises four billion": b"\x91\x91\xdb\xff\xff\xff\xff",
    "a long string": packed((17, "x" * 5000, 1)),
    "a map": packed({1: 2}),
    "a map in a row": packed((1, {}, 0, 1)),
    "bytes in a row": packed((17, b"name", 1)),
    "an extension": packed((msgpack.ExtType(5, b"1234"), 2, 3, 4)),
    "a small extension": b"\x91\x94" + b"\xd4\x05\x00" + b"\x02\x03\x04",
    "a time": b"\x91\x94\x02\x01\x00" + b"\xd6\xff\x00\x00\x00\x00",
    "text that is not UTF-8": b"\x91\x93\x11\xa1\xff\x01",
    "trailing bytes": packed((2, 1, 0, 1)) + b"\x00",
    "nothing whole": packed((2, 1, 0, 1))[:-1],
    "no array": msgpack.packb("rows"),
    "no rows": packed(),
    "more rows than said": packed((2, 1, 0, 1), (2, 1, 0, 1)),
    "a row that is a number": packed(2),
    "an empty row": packed(()),
    "a kind that is no number": packed(("2", 1, 0, 1)),
    "a kind that is a truth": packed((True, 1, 0, 1)),
    "kind nought": packed((0, 1, 0, 1)),
    "a negative kind": packed((-1, 1, 0, 1)),
    "a data kind not known": packed((4, 1, 0, 1)),
    "three fields": packed((2, 1, 0)),
    "five fields": packed((2, 1, 0, 1, 1)),
    "a volume that is text": packed((2, "1", 0, 1)),
    "a float": packed((2, 1, 0.0, 1)),
    "not a number": packed((2, 1, 0, float("nan"))),
    "a negative volume": packed((2, -1, 0, 1)),
    "a negative block": packed((2, 1, -1, 1)),
    "no blocks": packed((2, 1, 0, 0)),
    "more blocks than any volume": packed((2, 1, 0, BLOCKS_MAX + 1)),
    "a block past any volume": packed((2, 1, BLOCKS_MAX, 1)),
    "a range that ends past any volume": packed((2, 1, BLOCKS_MAX - 1, 2)),
    "a write without its payload": packed((1, 1, 0, 1)),
    "a write of no blocks (C1)": packed((1, 1, 0, 0)),
    "data and a record": packed((2, 1, 0, 1), (18, 1)),
    "a record and data": packed((18, 1), (2, 1, 0, 1)),
}


@pytest.mark.parametrize("name", HOSTILE_TABLES)
def test_a_hostile_table_with_right_checksums_is_refused(name: str) -> None:
    frame = forged(HOSTILE_TABLES[name])
    check_frame(frame.prefix, frame.raw, PREVIOUS)
    with pytest.raises(FrameError):
        decode_rows(frame.prefix, frame.raw)


def test_data_rows_in_longer_forms_are_read() -> None:
    """Other writers' msgpack need not choose the shortest form."""
    frame = forged(
        b"\xdc\x00\x02" + b"\xdc\x00\x04\xcc\x02\xcd\x00\x01\x00\x01" + b"\x94\x03\x01\x00\x01", events=2
    )
    assert decode_rows(frame.prefix, frame.raw) == ((ZERO, 1, 0, 1), (TRIM, 1, 0, 1))


@pytest.mark.parametrize(
    ("offset", "fields"),
    [
        (16, {"position": POSITION_MAX}),
        (16, {"position": (1 << 64) - 4096}),
        (24, {"timeline": 0}),
        (32, {"utc_ns": 1 << 63}),
        (40, {"durable": 8193}),
    ],
    ids=repr,
)
def test_a_frame_outside_every_timeline_or_time_is_neither_built_nor_read(
    offset: int, fields: dict[str, int]
) -> None:
    """One that was built, journaled and acknowledged would be cut off at the next start as a torn tail."""
    usual = {"timeline": TIMELINE, "position": 8192, "utc_ns": 1, "durable": 0}
    with pytest.raises(ValueError, match="limits"):
        encode_frame(
            **(usual | fields), previous_digest=PREVIOUS, rows=[(ZERO, 1, 0, 1)], payload=(), payload_bytes=0
        )
    raw = bytearray(SMALL.raw)
    raw[offset : offset + 8] = struct.pack(">Q", *fields.values())
    with pytest.raises(FrameError):
        parse_prefix(raw)


def test_payload_without_a_write_is_refused() -> None:
    frame = forged(packed((2, 1, 0, 1)), BLOCK)
    with pytest.raises(FrameError, match="payload"):
        decode_rows(frame.prefix, frame.raw)


@pytest.mark.parametrize(
    ("opening", "bin_head"),
    [(b"\x93", b""), (b"\xc0", b""), (b"\x92", b"\xc6\0\0\x20\0"), (b"\x92", b"\xdb\0\0\x10\0")],
)
def test_a_body_that_other_readers_would_not_read_is_refused(opening: bytes, bin_head: bytes) -> None:
    """The body must be an array of two whose second is the payload, for any msgpack library."""
    frame = forged(packed((1, 1, 0, 1)), BLOCK, opening=opening, bin_head=bin_head)
    check_frame(frame.prefix, frame.raw, PREVIOUS)
    with pytest.raises(FrameError):
        decode_rows(frame.prefix, frame.raw)


@given(st.binary(max_size=200))
def test_noise_is_no_frame(noise: bytes) -> None:
    with pytest.raises(FrameError):
        read_back(noise)


@given(st.binary(min_size=1, max_size=300))
def test_a_noisy_table_is_decoded_or_refused(table: bytes) -> None:
    """Whatever bytes a peer signs with right checksums, nothing but FrameError comes of them."""
    frame = forged(table)
    try:
        rows = decode_rows(frame.prefix, frame.raw)
    except FrameError:
        return
    assert len(rows) == 1


def test_a_prefix_knows_its_places() -> None:
    prefix = WHOLE.prefix
    assert isinstance(prefix, FramePrefix)
    assert prefix.frame_bytes == len(WHOLE.raw)
    assert prefix.end == 8192 + len(WHOLE.raw)
    assert prefix.payload_at == prefix.end - BLOCK_BYTES
