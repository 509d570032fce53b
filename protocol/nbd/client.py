"""A client's side of the handshake, sans-I/O: for the console and tests. Hosts use real clients.

It asks for structured replies, the metadata contexts given and the export, in this order, each option sent
once the one before is answered; it refuses what a server may not send.

Source: proto.md, "Fixed newstyle negotiation", "Option types", "Option reply types".
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.limits import NBD_OPTION_BYTES_MAX
from protocol.nbd.constants import (
    NBD_MAGIC,
    OPTION_MAGIC,
    OPTION_REPLY_ERROR_BIT,
    OPTION_REPLY_MAGIC,
    ClientFlag,
    HandshakeFlag,
    InfoType,
    Option,
    OptionReply,
)
from protocol.nbd.options import OPTION_HEADER, OPTION_REPLY_HEADER

_GREETING = struct.Struct(">QQH")
_INFO_EXPORT = struct.Struct(">HQH")
_REPLY_BYTES_MAX = NBD_OPTION_BYTES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRefusal:
    """The server's error reply to an option: its type and text."""

    option: int
    reply: int
    text: str


def encode_option(option: int, body: bytes = b"") -> bytes:
    """One option as a client sends it."""
    return OPTION_HEADER.pack(OPTION_MAGIC, option, len(body)) + body


def encode_info_body(name: str, wanted: tuple[int, ...] = ()) -> bytes:
    """Body of NBD_OPT_INFO and NBD_OPT_GO; `wanted` are information types."""
    data = name.encode()
    return struct.pack(f">I{len(data)}sH{len(wanted)}H", len(data), data, len(wanted), *wanted)


def encode_meta_body(name: str, queries: tuple[str, ...] = ()) -> bytes:
    """Body of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT."""
    data = name.encode()
    parts = [struct.pack(f">I{len(data)}sI", len(data), data, len(queries))]
    for query in queries:
        raw = query.encode()
        parts.append(struct.pack(f">I{len(raw)}s", len(raw), raw))
    return b"".join(parts)


class ClientHandshake:
    """Feed `receive` and send what it returns until `done`.

    Then `refusal` is set, or the other attributes describe the export; `leftover` are bytes received behind
    the handshake.
    """

    def __init__(self, name: str, *, structured: bool = True, contexts: tuple[str, ...] = ()) -> None:
        if contexts and not structured:
            raise LocalProtocolError("metadata contexts need structured replies")
        self.size_bytes = 0
        self.transmission_flags = 0
        self.structured_replies = False
        self.meta_contexts: dict[int, str] = {}
        self.refusal: ServerRefusal | None = None
        self.done = False
        self.leftover = b""
        self._buffer = bytearray()
        self._greeted = False
        self._awaited: int | None = None
        self._plan: deque[tuple[int, bytes]] = deque()
        if structured:
            self._plan.append((Option.STRUCTURED_REPLY, b""))
        if contexts:
            self._plan.append((Option.SET_META_CONTEXT, encode_meta_body(name, contexts)))
        self._plan.append((Option.GO, encode_info_body(name)))

    def receive(self, data: bytes | bytearray | memoryview) -> bytes:
        """Take what the server sent, in any pieces; returns what to send, possibly nothing.

        Raises `RemoteProtocolError`, and `LocalProtocolError` once `done`.
        """
        if self.done:
            raise LocalProtocolError("the handshake is over")
        self._buffer += data
        out: list[bytes] = []
        while (reply := self._step()) is not None:
            out.append(reply)
        return b"".join(out)

    def _step(self) -> bytes | None:
        """One unit of input: what to send, or None when more input is needed or all is done."""
        if self.done:
            return None
        return self._reply() if self._greeted else self._greeting()

    def _finish(self) -> None:
        self.done = True
        self.leftover = bytes(self._buffer)
        self._buffer.clear()

    def _next_option(self) -> bytes:
        self._awaited, body = self._plan.popleft()
        return encode_option(self._awaited, body)

    def _greeting(self) -> bytes | None:
        if len(self._buffer) < _GREETING.size:
            return None
        nbd, option, flags = _GREETING.unpack_from(self._buffer)
        if (nbd, option) != (NBD_MAGIC, OPTION_MAGIC) or not flags & HandshakeFlag.FIXED_NEWSTYLE:
            raise RemoteProtocolError("the server does not speak fixed newstyle NBD")
        del self._buffer[: _GREETING.size]
        self._greeted = True
        # Only flags that the server offered may be answered.
        answer = ClientFlag.FIXED_NEWSTYLE | (flags & HandshakeFlag.NO_ZEROES)
        return struct.pack(">I", answer) + self._next_option()

    def _reply(self) -> bytes | None:
        if len(self._buffer) < OPTION_REPLY_HEADER.size:
            return None
        magic, option, reply, length = OPTION_REPLY_HEADER.unpack_from(self._buffer)
        if magic != OPTION_REPLY_MAGIC or option != self._awaited or length > _REPLY_BYTES_MAX:
            raise RemoteProtocolError(f"bad reply to option {self._awaited}")
        end = OPTION_REPLY_HEADER.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[OPTION_REPLY_HEADER.size : end])
        del self._buffer[:end]
        return self._take_reply(option, reply, body)

    def _take_reply(self, option: int, reply: int, body: bytes) -> bytes:
        if reply & OPTION_REPLY_ERROR_BIT:
            text = body.decode("utf-8", "replace")
            self.refusal = ServerRefusal(option=option, reply=reply, text=text)
            self._finish()
        elif reply == OptionReply.ACK:
            if option == Option.STRUCTURED_REPLY:
                self.structured_replies = True
            if self._plan:
                return self._next_option()
            if not self.transmission_flags:
                raise RemoteProtocolError("the server accepted NBD_OPT_GO without NBD_INFO_EXPORT")
            self._finish()
        elif reply == OptionReply.META_CONTEXT and option == Option.SET_META_CONTEXT and len(body) > 4:
            self.meta_contexts[int.from_bytes(body[:4], "big")] = body[4:].decode("utf-8", "replace")
        elif reply == OptionReply.INFO and option == Option.GO and len(body) >= 2:
            if int.from_bytes(body[:2], "big") == InfoType.EXPORT:
                if len(body) != _INFO_EXPORT.size:
                    raise RemoteProtocolError(f"NBD_INFO_EXPORT of {len(body)} bytes")
                _, self.size_bytes, self.transmission_flags = _INFO_EXPORT.unpack(body)
        else:
            raise RemoteProtocolError(f"reply {reply:#x} to option {option}")
        return b""
