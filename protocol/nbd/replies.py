"""Replies of the transmission phase.

    simple:  u32 magic 0x67446698   u32 error   u64 cookie   [READ: data]
    chunk:   u32 magic 0x668e33ef   u16 flags   u16 type   u64 cookie   u32 length   payload
    payload: NONE          -
             OFFSET_DATA   u64 offset   data
             OFFSET_HOLE   u64 offset   u32 length
             BLOCK_STATUS  u32 context id   (u32 length   u32 flags) ...
             ERROR         u32 error   u16 message length   message
             ERROR_OFFSET  u32 error   u16 message length   message   u64 offset

Rules: headers come without the data, so that data is never copied here. Once structured replies are
negotiated, READ and BLOCK_STATUS are answered by chunks, errors included; the others may stay simple. A
reply's last chunk, and only that, carries DONE. Made for hundreds of thousands a second: what never changes
is packed once.

Source: proto.md, "Simple reply message", "Structured reply chunk message", "Structured reply types".
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import chain

from protocol.errors import LocalProtocolError
from protocol.nbd.constants import (
    EXTENTS_PER_CHUNK_MAX,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    ReplyFlag,
    ReplyType,
)
from protocol.nbd.options import wire_text

SIMPLE_REPLY_BYTES = 16
CHUNK_HEADER_BYTES = 20

_SIMPLE = struct.Struct(">IIQ")
_PREFIX = struct.Struct(">IHH")
# Magic, flags and type are one constant of 64 bits for each kind of chunk.
_CHUNK = struct.Struct(">QQI")
_OFFSET_DATA = struct.Struct(">QQIQ")
_BLOCK_STATUS = struct.Struct(">QQII")
_ERROR = struct.Struct(">QQIIH")

_EXTENT_BYTES = 8


def _prefixes(kind: ReplyType) -> tuple[int, int]:
    """The first 8 bytes of a chunk as an integer: (more chunks follow, last chunk)."""
    more = int.from_bytes(_PREFIX.pack(STRUCTURED_REPLY_MAGIC, 0, kind), "big")
    done = int.from_bytes(_PREFIX.pack(STRUCTURED_REPLY_MAGIC, ReplyFlag.DONE, kind), "big")
    return more, done


_SIMPLE_OK = SIMPLE_REPLY_MAGIC << 32
_NONE_DONE = _prefixes(ReplyType.NONE)[1]
_DATA_PREFIX = _prefixes(ReplyType.OFFSET_DATA)
_DATA_DONE = _DATA_PREFIX[1]
_STATUS_PREFIX = _prefixes(ReplyType.BLOCK_STATUS)
_ERROR_PREFIX = _prefixes(ReplyType.ERROR)

_simple_pack = _SIMPLE.pack
_chunk_pack = _CHUNK.pack
_data_pack = _OFFSET_DATA.pack


def simple_reply(cookie: int, error: int = 0) -> bytes:
    """16 bytes. The whole reply, or with `error` 0 the header before a READ's data."""
    return _simple_pack(SIMPLE_REPLY_MAGIC, error, cookie)


def simple_replies(cookies: Sequence[int]) -> bytes:
    """Success for many requests at once, 16 bytes each: one batch of writes, one send.

    One call of pack for all is twice as fast as one for each.
    """
    words = [_SIMPLE_OK] * (2 * len(cookies))
    words[1::2] = cookies
    return struct.pack(f">{len(words)}Q", *words)


def done_chunk(cookie: int) -> bytes:
    """NBD_REPLY_TYPE_NONE: ends a structured reply; alone, success without data."""
    return _chunk_pack(_NONE_DONE, cookie, 0)


def read_reply_header(cookie: int, offset: int, length: int, structured: bool) -> bytes:
    """What goes before the `length` bytes of a READ answered in one piece.

    For length 0 and structured replies the complete answer: a data chunk must not be empty.
    """
    if not structured:
        return _simple_pack(SIMPLE_REPLY_MAGIC, 0, cookie)
    if not length:
        return _chunk_pack(_NONE_DONE, cookie, 0)
    return _data_pack(_DATA_DONE, cookie, length + 8, offset)


def offset_data_header(cookie: int, offset: int, length: int, *, done: bool) -> bytes:
    """NBD_REPLY_TYPE_OFFSET_DATA: 28 bytes that go before `length` bytes of data.

    Raises `LocalProtocolError` for length 0, which the protocol forbids.
    """
    if not length:
        raise LocalProtocolError("a data chunk must not be empty")
    return _data_pack(_DATA_PREFIX[done], cookie, length + 8, offset)


def block_status(cookie: int, context_id: int, extents: Sequence[tuple[int, int]], *, done: bool) -> bytes:
    """NBD_REPLY_TYPE_BLOCK_STATUS: extents as (length in bytes, flags), in order from the offset asked.

    A request takes exactly one chunk for each negotiated context. Raises `LocalProtocolError` for none, an
    empty extent, or more than 2^20 of them.
    """
    count = len(extents)
    if not 0 < count <= EXTENTS_PER_CHUNK_MAX:
        raise LocalProtocolError(f"{count} extents in one chunk")
    if any(length == 0 for length, _ in extents):
        raise LocalProtocolError("an extent must not be empty")
    header = _BLOCK_STATUS.pack(_STATUS_PREFIX[done], cookie, 4 + _EXTENT_BYTES * count, context_id)
    return header + struct.pack(f">{2 * count}I", *chain.from_iterable(extents))


def error_chunk(cookie: int, error: int, message: str = "", *, done: bool = True) -> bytes:
    """NBD_REPLY_TYPE_ERROR with a text for the client's user, cut at 4,096 bytes.

    Raises `LocalProtocolError` for error 0.
    """
    if not error:
        raise LocalProtocolError("an error chunk needs an error")
    text = wire_text(message)
    return _ERROR.pack(_ERROR_PREFIX[done], cookie, 6 + len(text), error, len(text)) + text


def error_reply(cookie: int, error: int, message: str = "", *, structured: bool) -> bytes:
    """A failed request's whole reply, in the form that the connection negotiated; valid for every command.

    Raises `LocalProtocolError` for error 0.
    """
    if structured:
        return error_chunk(cookie, error, message)
    if not error:
        raise LocalProtocolError("an error reply needs an error")
    return _simple_pack(SIMPLE_REPLY_MAGIC, error, cookie)
