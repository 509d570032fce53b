"""A client's side of the transmission phase, sans-I/O: many requests in flight, answers in any order.

It understands simple and structured replies. What it gives as a request's answer is whole and lies within
what was asked for, or `RemoteProtocolError` is raised. Memory: what was asked for, and the caller's piece of
input.

Source: proto.md, "Simple reply message", "Structured reply chunk message", "Structured reply types".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.limits import NBD_REQUEST_BYTES_MAX
from protocol.nbd.constants import (
    EXTENTS_PER_CHUNK_MAX,
    SIMPLE_REPLY_MAGIC,
    STRING_BYTES_MAX,
    STRUCTURED_REPLY_MAGIC,
    Command,
    ReplyFlag,
    ReplyType,
)
from protocol.nbd.replies import CHUNK_HEADER_BYTES, SIMPLE_REPLY_BYTES
from protocol.nbd.requests import Request, encode_request

_SIMPLE = struct.Struct(">IIQ")
_CHUNK = struct.Struct(">IHHQI")
_OFFSET = struct.Struct(">Q")
_HOLE = struct.Struct(">QI")
_ERROR = struct.Struct(">IH")
_U32 = struct.Struct(">I")

_PAYLOAD_BYTES_MAX = max(NBD_REQUEST_BYTES_MAX + _OFFSET.size, 4 + 8 * EXTENTS_PER_CHUNK_MAX)
_ERROR_BIT = 1 << 15


@dataclass(slots=True, kw_only=True)
class Answer:
    """One request's. `error` is NBD's number, 0 for success; `data` a READ's bytes; `extents` a
    BLOCK_STATUS's stretches (bytes, flags) by context id."""

    command: int
    offset: int
    length: int
    done: bool = False
    error: int = 0
    message: str = ""
    data: bytes | bytearray = b""
    extents: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    filled: int = 0


class ClientTransmission:
    """`request` gives what to send, `receive` takes what came; see `Answer.done`."""

    def __init__(self, leftover: bytes = b"") -> None:
        self._buffer = bytearray(leftover)
        self._answers: dict[int, Answer] = {}
        self._cookie = 0

    @property
    def in_flight(self) -> int:
        """Requests without an answer."""
        return len(self._answers)

    def request(
        self, command: Command, offset: int = 0, length: int = 0, payload: bytes = b"", flags: int = 0
    ) -> tuple[Answer, bytes]:
        """A new request: its answer to come, and the bytes to send. LocalProtocolError for a READ of more
        than a server may be asked for."""
        if command == Command.READ and length > NBD_REQUEST_BYTES_MAX:
            raise LocalProtocolError(f"a read of {length} bytes")
        self._cookie += 1
        request = Request(
            flags=flags, command=command, cookie=self._cookie, offset=offset, length=length, payload=payload
        )
        answer = self._answers[self._cookie] = Answer(command=command, offset=offset, length=length)
        return answer, encode_request(request)

    def receive(self, data: bytes | memoryview) -> None:
        """Take what the server sent, in any pieces. Raises `RemoteProtocolError`."""
        self._buffer += data
        at = 0
        with memoryview(self._buffer) as view:
            while (taken := self._reply(view[at:])) > 0:
                at += taken
        del self._buffer[:at]

    def _reply(self, view: memoryview) -> int:
        """Bytes of the reply or chunk at the front, 0 if it is not whole yet."""
        if len(view) < SIMPLE_REPLY_BYTES:
            return 0
        magic: int = _U32.unpack_from(view)[0]
        if magic == SIMPLE_REPLY_MAGIC:
            return self._simple(view)
        if magic != STRUCTURED_REPLY_MAGIC:
            raise RemoteProtocolError(f"bad reply magic {magic:#010x}")
        if len(view) < CHUNK_HEADER_BYTES:
            return 0
        length: int
        _, flags, kind, cookie, length = _CHUNK.unpack_from(view)
        if length > _PAYLOAD_BYTES_MAX:
            raise RemoteProtocolError(f"a chunk of {length} bytes")
        end = CHUNK_HEADER_BYTES + length
        if len(view) < end:
            return 0
        answer = self._answer(cookie)
        try:
            self._chunk(answer, kind, view[CHUNK_HEADER_BYTES:end])
        except struct.error:
            raise RemoteProtocolError(f"a chunk of type {kind} has {length} bytes") from None
        if flags & ReplyFlag.DONE:
            self._finish(cookie, answer)
        return end

    def _answer(self, cookie: int) -> Answer:
        answer = self._answers.get(cookie)
        if answer is None:
            raise RemoteProtocolError(f"a reply to request {cookie}, which is not in flight")
        return answer

    def _finish(self, cookie: int, answer: Answer) -> None:
        if not answer.error and answer.command == Command.READ and answer.filled != answer.length:
            raise RemoteProtocolError(f"{answer.filled} of {answer.length} bytes of a read")
        if not answer.error and answer.command == Command.BLOCK_STATUS and not answer.extents:
            raise RemoteProtocolError("a block status without extents")
        answer.done = True
        del self._answers[cookie]

    def _simple(self, view: memoryview) -> int:
        _, error, cookie = _SIMPLE.unpack_from(view)
        answer = self._answer(cookie)
        end = SIMPLE_REPLY_BYTES
        if answer.command == Command.READ and not error:
            end += answer.length
            if len(view) < end:
                return 0
            answer.data, answer.filled = bytes(view[SIMPLE_REPLY_BYTES:end]), answer.length
        answer.error = error
        self._finish(cookie, answer)
        return end

    def _chunk(self, answer: Answer, kind: int, payload: memoryview) -> None:
        if kind == ReplyType.NONE:
            return
        if kind & _ERROR_BIT:
            error, length = _ERROR.unpack_from(payload)
            text = bytes(payload[_ERROR.size : _ERROR.size + min(length, STRING_BYTES_MAX)])
            if not answer.error:
                answer.error, answer.message = error or 5, text.decode("utf-8", "replace")
        elif kind == ReplyType.OFFSET_DATA:
            (offset,) = _OFFSET.unpack_from(payload)
            self._fill(answer, offset, len(payload) - _OFFSET.size, payload[_OFFSET.size :])
        elif kind == ReplyType.OFFSET_HOLE:
            offset, length = _HOLE.unpack(payload)
            self._fill(answer, offset, length, None)
        elif kind == ReplyType.BLOCK_STATUS and answer.command == Command.BLOCK_STATUS:
            self._extents(answer, payload)
        else:
            raise RemoteProtocolError(f"a chunk of type {kind} in answer to command {answer.command}")

    def _fill(self, answer: Answer, offset: int, length: int, data: memoryview | None) -> None:
        at = offset - answer.offset
        if answer.command != Command.READ or not 0 <= at <= at + length <= answer.length or not length:
            raise RemoteProtocolError(f"{length} bytes at {offset} in answer to another request")
        answer.filled += length
        if length == answer.length:
            answer.data = bytes(length) if data is None else bytes(data)
            return
        if not answer.data:
            answer.data = bytearray(answer.length)
        if data is not None and isinstance(answer.data, bytearray):
            answer.data[at : at + length] = data

    def _extents(self, answer: Answer, payload: memoryview) -> None:
        context = _U32.unpack_from(payload)[0]
        words = struct.unpack(f">{(len(payload) - 4) // 4}I", payload[4:])
        found = list(zip(words[::2], words[1::2], strict=True)) if len(words) % 2 == 0 else []
        if not found or any(length == 0 for length, _ in found):
            raise RemoteProtocolError("a block status with empty extents")
        answer.extents[context] = found
