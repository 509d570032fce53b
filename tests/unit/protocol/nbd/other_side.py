"""What tests write and read in the place of other NBD servers and of ours: chunks that ours never sends, and
requests, read plainly."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from protocol.errors import RemoteProtocolError
from protocol.limits import NBD_REQUEST_BYTES_MAX
from protocol.nbd.constants import REQUEST_MAGIC, STRUCTURED_REPLY_MAGIC, Command, ReplyFlag, ReplyType
from protocol.nbd.requests import REQUEST, REQUEST_BYTES, Request

_CHUNK = struct.Struct(">IHHQI")


def _chunk(kind: ReplyType, cookie: int, payload: bytes, *, done: bool) -> bytes:
    flags = ReplyFlag.DONE if done else 0
    return _CHUNK.pack(STRUCTURED_REPLY_MAGIC, flags, kind, cookie, len(payload)) + payload


def offset_hole(cookie: int, offset: int, length: int, *, done: bool) -> bytes:
    """NBD_REPLY_TYPE_OFFSET_HOLE: `length` bytes from `offset` read as zeroes."""
    return _chunk(ReplyType.OFFSET_HOLE, cookie, struct.pack(">QI", offset, length), done=done)


def error_offset_chunk(
    cookie: int, error: int, offset: int, message: str = "", *, done: bool = True
) -> bytes:
    """NBD_REPLY_TYPE_ERROR_OFFSET: names the byte of the volume at which a request failed."""
    text = message.encode()[:4096].decode(errors="ignore").encode()
    payload = struct.pack(">IH", error, len(text)) + text + struct.pack(">Q", offset)
    return _chunk(ReplyType.ERROR_OFFSET, cookie, payload, done=done)


def parse_requests(data: bytes | bytearray | memoryview) -> Iterator[Request]:
    """The requests in `data`, up to the first NBD_CMDCommand.DISC (which is yielded) or the end.

    Raises `RemoteProtocolError` for a bad magic, a WRITE longer than `NBD_REQUEST_BYTES_MAX` and an
    incomplete request at the end.
    """
    view = memoryview(data)
    at = 0
    while at < len(view):
        if len(view) - at < REQUEST_BYTES:
            raise RemoteProtocolError(f"{len(view) - at} bytes of a request's header")
        magic, flags, command, cookie, offset, length = REQUEST.unpack_from(view, at)
        if magic != REQUEST_MAGIC:
            raise RemoteProtocolError(f"bad request magic {magic:#010x}")
        at += REQUEST_BYTES
        payload = b""
        if command == Command.WRITE:
            if length > NBD_REQUEST_BYTES_MAX:
                raise RemoteProtocolError(f"write of {length} bytes")
            if length > len(view) - at:
                raise RemoteProtocolError(f"{len(view) - at} of {length} bytes of a write")
            payload = bytes(view[at : at + length])
            at += length
        yield Request(
            flags=flags, command=command, cookie=cookie, offset=offset, length=length, payload=payload
        )
        if command == Command.DISC:
            return
