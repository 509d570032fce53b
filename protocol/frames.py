"""Frames: the unit in which events are written, shipped and checked.

    offset  bytes  field (big-endian)
         0      4  magic "FSHF"
         4      2  format version, 1
         6      2  events in the table
         8      4  body length
        12      4  payload length, a multiple of 4,096
        16      8  position of this frame: its byte offset in the timeline
        24      8  timeline
        32      8  UTC nanoseconds, never less than in the frame before
        40      8  the writer's durable position when it wrote this, at most the frame's own
        48      4  CRC-32C of the body
        52      4  reserved, zero
        56     16  digest
        72      …  body: msgpack array of two: the event table, and one bin32 with all payloads end to end

Valid means: magic, version and reserved as above, lengths within limits and consistent, CRC right, and
digest = xxh3_128(digest of the frame before ‖ bytes 0–55 ‖ xxh3_128(body)). The first frame of a timeline
continues its parent's digest at the fork; with no parent, 16 zero bytes.

A block's version is numbered by the position of its bytes; a zeroed block's by the byte before the payload
that follows it (docs/decisions/0002). So one integer orders versions, bounds them by cuts, and finds them.

Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Annotated, NamedTuple

import msgpack
import msgspec
from crc32c import crc32c
from msgspec import Meta
from xxhash import xxh3_128_digest

from protocol.bounds import Block, BlockCount, VolumeId
from protocol.events import LAST_DATA_KIND, TRIM, WRITE, Row
from protocol.limits import (
    BLOCK_BYTES,
    BLOCKS_MAX,
    DIGEST_BYTES,
    FRAME_BYTES_MAX,
    FRAME_EVENTS_MAX,
    FRAME_TABLE_BYTES_MAX,
    UTC_NS_MAX,
)
from protocol.positions import POSITION_MAX
from protocol.wire import encode_plain

Buffer = bytes | bytearray | memoryview

MAGIC = b"FSHF"
FORMAT_VERSION = 1
NO_DIGEST = bytes(DIGEST_BYTES)

_PREFIX = Struct(">4sHHIIQQQQII16s")
_DIGESTED = Struct(">4sHHIIQQQQII")
_BIN32 = Struct(">BI")
PREFIX_BYTES = _PREFIX.size
DIGESTED_BYTES = _DIGESTED.size
_TABLE_AT = PREFIX_BYTES + 1
_BODY_OVERHEAD = 1 + _BIN32.size
_ARRAY_OF_TWO, _ARRAY_16, _BIN = 0x92, 0xDC, 0xC6  # msgpack's fixarray of two, array 16 and bin 32
_OPENING = bytes(PREFIX_BYTES) + bytes((_ARRAY_OF_TWO,))

_DataRow = tuple[Annotated[int, Meta(ge=WRITE, le=TRIM)], VolumeId, Block, BlockCount]
_DataRows = Annotated[tuple[_DataRow, ...], Meta(max_length=FRAME_EVENTS_MAX)]
_decode_data = msgspec.msgpack.Decoder(_DataRows).decode
_DATA_KINDS = range(WRITE, TRIM + 1)
# How a table of data begins: a row of four (msgpack's fixarray), and one of their kinds.
_DATA_ROW = tuple(bytes((0x94, kind)) for kind in range(WRITE, LAST_DATA_KIND + 1))


class FrameError(Exception):
    """These bytes are not a valid frame; the text says which rule fails."""


class FramePrefix(NamedTuple):
    """The fixed part of a frame, in file order without magic, version and reserved."""

    events: int
    body_bytes: int
    payload_bytes: int
    position: int
    timeline: int
    utc_ns: int
    durable: int
    body_crc: int
    digest: bytes

    @property
    def end(self) -> int:
        """Position of the frame after this one."""
        return self.position + PREFIX_BYTES + self.body_bytes

    @property
    def frame_bytes(self) -> int:
        """Length of the whole frame."""
        return PREFIX_BYTES + self.body_bytes

    @property
    def payload_at(self) -> int:
        """Position of the first payload byte."""
        return self.position + PREFIX_BYTES + self.body_bytes - self.payload_bytes


class Frame(NamedTuple):
    """A frame and its bytes, exactly as they stand in every journal."""

    prefix: FramePrefix
    raw: Buffer


def encode_frame(
    *,
    timeline: int,
    position: int,
    utc_ns: int,
    durable: int,
    previous_digest: bytes,
    rows: Sequence[Row],
    payload: Sequence[Buffer],
    payload_bytes: int,
) -> Frame:
    """Build a frame; the payload pieces are copied once. ValueError past the limits that `parse_prefix` has:
    what a reader refuses must not be journaled, or it is taken for a torn tail and cut off."""
    table = encode_plain(rows)
    body_bytes = len(table) + _BODY_OVERHEAD + payload_bytes
    raw = bytearray().join((_OPENING, table, _BIN32.pack(_BIN, payload_bytes), *payload))
    if (
        len(raw) != PREFIX_BYTES + body_bytes
        or len(raw) > FRAME_BYTES_MAX
        or not 0 < len(rows) <= FRAME_EVENTS_MAX
        or len(table) > FRAME_TABLE_BYTES_MAX
        or payload_bytes % BLOCK_BYTES
    ):
        raise ValueError(f"frame of {len(raw)} bytes with {payload_bytes} bytes of payload breaks its limits")
    if (
        not 0 <= durable <= position <= POSITION_MAX - len(raw)
        or not timeline
        or not 0 <= utc_ns <= UTC_NS_MAX
    ):
        raise ValueError(f"a frame at {position} of timeline {timeline:x} at {utc_ns} ns breaks its limits")
    with memoryview(raw) as view, view[PREFIX_BYTES:] as body:
        body_crc = crc32c(body)
        body_digest = xxh3_128_digest(body)
    count = len(rows)
    head = _DIGESTED.pack(
        MAGIC,
        FORMAT_VERSION,
        count,
        body_bytes,
        payload_bytes,
        position,
        timeline,
        utc_ns,
        durable,
        body_crc,
        0,
    )
    digest = xxh3_128_digest(previous_digest + head + body_digest)
    raw[:PREFIX_BYTES] = head + digest
    prefix = FramePrefix(
        count, body_bytes, payload_bytes, position, timeline, utc_ns, durable, body_crc, digest
    )
    return Frame(prefix, raw)


def frames_in(payload: Buffer) -> Iterator[Frame]:
    """Frames that stand end to end, each checked as it is asked for, as by `parse_prefix`. They share the
    payload's memory; the last may be shorter than its prefix says."""
    view, at = memoryview(payload), 0
    while at < len(view):
        prefix = parse_prefix(view, at)
        yield Frame(prefix, view[at : at + prefix.frame_bytes])
        at += prefix.frame_bytes


def parse_prefix(data: Buffer, at: int = 0) -> FramePrefix:
    """Read the prefix at `at`; FrameError if it cannot be one. The digest is not checked here."""
    if len(data) - at < PREFIX_BYTES:
        raise FrameError("fewer bytes than a prefix")
    (magic, version, events, body_bytes, payload_bytes, position, timeline, utc_ns, durable, crc, reserved,
     digest) = _PREFIX.unpack_from(data, at)  # fmt: skip
    if magic != MAGIC:
        raise FrameError("no frame magic")
    if version != FORMAT_VERSION:
        raise FrameError(f"frame format version {version}, this program reads {FORMAT_VERSION}")
    table_bytes = body_bytes - payload_bytes - _BODY_OVERHEAD
    if (
        reserved
        or not 0 < events <= FRAME_EVENTS_MAX
        or PREFIX_BYTES + body_bytes > FRAME_BYTES_MAX
        or payload_bytes % BLOCK_BYTES
        or not 0 < table_bytes <= FRAME_TABLE_BYTES_MAX
    ):
        raise FrameError("frame lengths outside their limits")
    if durable > position:
        raise FrameError("the writer's durable position lies past the frame")
    if not timeline or position + PREFIX_BYTES + body_bytes > POSITION_MAX or utc_ns > UTC_NS_MAX:
        raise FrameError("a frame outside every timeline, or every time")
    return FramePrefix(events, body_bytes, payload_bytes, position, timeline, utc_ns, durable, crc, digest)


def check_frame(prefix: FramePrefix, raw: Buffer, previous_digest: bytes | None) -> None:
    """Check body CRC and digest chain of a whole frame; FrameError if either fails. With None, where the
    digest before is not known, only the body."""
    if len(raw) != prefix.frame_bytes:
        raise FrameError(f"frame of {len(raw)} bytes says it has {prefix.frame_bytes}")
    with memoryview(raw) as view, view[PREFIX_BYTES:] as body:
        if crc32c(body) != prefix.body_crc:
            raise FrameError("body CRC-32C does not match")
        if previous_digest is None:
            return
        body_digest = xxh3_128_digest(body)
        head = bytes(view[:DIGESTED_BYTES])
    if xxh3_128_digest(previous_digest + head + body_digest) != prefix.digest:
        raise FrameError("digest does not continue the frame before")


def decode_rows(prefix: FramePrefix, raw: Buffer) -> tuple[Row, ...]:
    """The event table of a frame. FrameError if it is not what the format says."""
    table = _table_of(prefix, raw)
    rows = _data_rows(table) if _begins_with_data(table) else _other_rows(table)
    if len(rows) != prefix.events:
        raise FrameError("event table and prefix disagree on the number of events")
    _check_blocks(prefix, rows)
    return rows


def rows_as_they_stand(prefix: FramePrefix, raw: Buffer) -> tuple[Row, ...]:
    """The rows of a frame that `decode_rows` refuses, each with a kind and whatever else it has. FrameError
    if there are none."""
    rows = _unpacked(_table_of(prefix, raw))
    if len(rows) != prefix.events:
        raise FrameError("event table and prefix disagree on the number of events")
    return rows


def _table_of(prefix: FramePrefix, raw: Buffer) -> memoryview:
    if len(raw) != prefix.frame_bytes:
        raise FrameError(f"frame of {len(raw)} bytes says it has {prefix.frame_bytes}")
    table_end = prefix.frame_bytes - prefix.payload_bytes - _BIN32.size
    if raw[PREFIX_BYTES] != _ARRAY_OF_TWO or _BIN32.unpack_from(raw, table_end) != (
        _BIN,
        prefix.payload_bytes,
    ):
        raise FrameError("the body is not a table and its payload")
    return memoryview(raw)[_TABLE_AT:table_end]


def without_empty(prefix: FramePrefix, rows: Sequence[Row]) -> tuple[Row, ...]:
    """Rows of data as they stand but those of no blocks, which change nothing. FrameError unless the others
    are what the format says, and all of the payload is theirs."""
    kept = tuple(row for row in rows if not _is_empty(row))
    if kept:
        kept = _data_rows(memoryview(encode_plain(kept)))
    _check_blocks(prefix, kept)
    return kept


def _is_empty(row: Row) -> bool:
    """Whether it is one of data, of no blocks."""
    return len(row) == 4 and all(type(each) is int for each in row) and row[0] in _DATA_KINDS and row[3] == 0


def _check_blocks(prefix: FramePrefix, rows: Sequence[Row]) -> None:
    blocks = 0
    if rows and rows[0][0] <= LAST_DATA_KIND:
        for kind, _, first, count in rows:
            if kind == WRITE:
                blocks += count
            if first + count > BLOCKS_MAX:
                raise FrameError("a data row's range is outside every volume")
    if blocks * BLOCK_BYTES != prefix.payload_bytes:
        raise FrameError("event table and payload disagree on the number of blocks")


def _begins_with_data(table: memoryview) -> bool:
    """Whether the first row is one of data, as msgpack writes it shortest."""
    head = 3 if table[0] == _ARRAY_16 else 1
    return bytes(table[head : head + 2]) in _DATA_ROW


def _data_rows(table: memoryview) -> tuple[Row, ...]:
    try:
        return _decode_data(table)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FrameError(f"data rows do not decode: {str(error)[:200]}") from error


def _other_rows(table: memoryview) -> tuple[Row, ...]:
    """Rows of records: their fields are `record_from_row`'s. Rows of data that are not in the shortest form
    come here too."""
    rows = _unpacked(table)
    if any(row[0] <= LAST_DATA_KIND for row in rows):
        return _data_rows(memoryview(encode_plain(rows)))
    return rows


def _unpacked(table: memoryview) -> tuple[Row, ...]:
    """Rows that have a kind."""
    try:
        rows = msgpack.unpackb(
            table,
            use_list=False,
            raw=False,
            max_array_len=FRAME_EVENTS_MAX,
            max_map_len=0,
            max_ext_len=0,
            max_bin_len=0,
            max_str_len=4096,
        )
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise FrameError(f"event table does not decode: {error}") from error
    if type(rows) is not tuple or not rows:
        raise FrameError("an event table is an array of events")
    if any(type(row) is not tuple or not row or type(row[0]) is not int for row in rows):
        raise FrameError("an event is not a row with a kind")
    return tuple(rows)
