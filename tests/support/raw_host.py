"""A host that may send anything: a handshake by the book, then requests of any command, flags and range.

`exchange` sends many and reads their replies, in whatever form; it judges only whether they are replies.
Source: NBD proto.md, "Simple reply message", "Structured reply chunk message".
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import Struct
from types import TracebackType
from typing import Self

from protocol.nbd.client import ClientHandshake
from protocol.nbd.constants import (
    BASE_ALLOCATION,
    REQUEST_MAGIC,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    Command,
    ReplyFlag,
    ReplyType,
)
from protocol.nbd.requests import REQUEST

TIMEOUT_S = 120.0
_SIMPLE = Struct(">IIQ")
_CHUNK = Struct(">IHHQI")
_ERROR_BIT = 1 << 15


class Closed(Exception):
    """The daemon closed the connection."""


@dataclass(slots=True, kw_only=True)
class Asked:
    """A request, and what was answered: `error` is None until it is."""

    command: int
    flags: int = 0
    offset: int = 0
    length: int = 0
    payload: bytes = b""
    error: int | None = None
    data: bytearray = field(default_factory=bytearray)
    extents: list[tuple[int, int]] = field(default_factory=list)

    def encode(self, cookie: int) -> bytes:
        """As it stands on the wire."""
        return (
            REQUEST.pack(REQUEST_MAGIC, self.flags, self.command, cookie, self.offset, self.length)
            + self.payload
        )


class RawHost:
    """One connection over a connected socket. Raises Closed, AssertionError for what is no reply."""

    def __init__(self, connection: socket.socket, export: str, *, structured: bool = True) -> None:
        self.socket = connection
        self.structured = structured
        self._cookie = 0
        self._received = bytearray()
        connection.settimeout(TIMEOUT_S)
        contexts = (BASE_ALLOCATION,) if structured else ()
        handshake = ClientHandshake(export, structured=structured, contexts=contexts)
        while not handshake.done:
            connection.sendall(handshake.receive(self._some()))
        assert handshake.refusal is None, handshake.refusal
        self.size_bytes = handshake.size_bytes
        self._received += handshake.leftover

    @classmethod
    def unix(cls, path: object, export: str, *, structured: bool = True) -> Self:
        """Connect to a unix socket."""
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
            return cls(connection, export, structured=structured)
        except BaseException:
            connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def exchange(self, asked: Sequence[Asked]) -> None:
        """Send all, while another thread would block too: replies are read at the same time."""
        waiting: dict[int, Asked] = {}
        data = bytearray()
        for each in asked:
            self._cookie += 1
            if each.command != Command.DISC:
                waiting[self._cookie] = each
            data += each.encode(self._cookie)
        sender: threading.Thread | None = None
        if len(data) > 64 << 10:
            sender = threading.Thread(target=self._send, args=(data,), daemon=True)
            sender.start()
        else:
            self._send(data)
        try:
            while waiting:
                self._take_reply(waiting)
        finally:
            if sender is not None:
                sender.join()

    def ask(self, command: int, offset: int = 0, length: int = 0, payload: bytes = b"") -> Asked:
        """One request, answered."""
        asked = Asked(command=command, offset=offset, length=length or len(payload), payload=payload)
        self.exchange([asked])
        return asked

    def until_closed(self) -> None:
        """Read until the daemon closes the connection."""
        try:
            while True:
                self._some()
        except Closed:
            self.socket.close()

    def _send(self, data: bytearray) -> None:
        try:
            self.socket.sendall(data)
        except OSError:
            pass  # whoever reads the replies notices

    def _some(self) -> bytes:
        try:
            data = self.socket.recv(1 << 20)
        except ConnectionError:
            data = b""
        if not data:
            raise Closed
        return data

    def _exactly(self, length: int) -> bytearray:
        while len(self._received) < length:
            self._received += self._some()
        taken = self._received[:length]
        del self._received[:length]
        return taken

    def _take_reply(self, waiting: dict[int, Asked]) -> None:
        head = self._exactly(_SIMPLE.size)
        magic, word, cookie = _SIMPLE.unpack(head)
        if magic == SIMPLE_REPLY_MAGIC:
            asked = waiting.pop(cookie)
            asked.error = word
            if asked.command == Command.READ:
                assert not self.structured, "a READ was answered by a simple reply"
                if not word:
                    asked.data = self._exactly(asked.length)
            return
        assert magic == STRUCTURED_REPLY_MAGIC, f"bad magic {magic:#x}"
        assert self.structured
        head += self._exactly(_CHUNK.size - _SIMPLE.size)
        _, flags, kind, cookie, length = _CHUNK.unpack(head)
        asked = waiting[cookie]
        self._take_chunk(asked, kind, self._exactly(length))
        if flags & ReplyFlag.DONE:
            del waiting[cookie]
            asked.error = asked.error or 0

    def _take_chunk(self, asked: Asked, kind: int, body: bytearray) -> None:
        if kind & _ERROR_BIT:
            asked.error = int.from_bytes(body[:4], "big")
        elif kind == ReplyType.OFFSET_DATA:
            assert int.from_bytes(body[:8], "big") == asked.offset + len(asked.data)
            asked.data += body[8:]
        elif kind == ReplyType.BLOCK_STATUS:
            words = Struct(f">{len(body) // 4}I").unpack(body)
            asked.extents += zip(words[1::2], words[2::2], strict=True)
        else:
            assert kind == ReplyType.NONE
