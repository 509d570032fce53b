"""The envelopes of control messages: one request or reply a ZeroMQ message, msgpack, bounded in size.

A request is decoded into known Structs only, never into arbitrary dicts; an answer's `data` is the command's
reply, encoded (`read_reply`). Sans-I/O; no clock.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

from protocol.commands.base import BaseCommand, Command, Reply, ReplyType, command_name, reply_type
from protocol.errors import ExitCode, FarshoreError, RemoteProtocolError, UsageError, error_from_dict
from protocol.limits import CONTROL_MESSAGE_BYTES_MAX

API_VERSION = 1
REQUEST_ID_BYTES = 16
DEADLINE_S_MAX = 86_400.0
IDEMPOTENCY_KEY_CHARS_MAX = 64


SentCommand = TypeVar("SentCommand", bound=Command)


class Request(msgspec.Struct, Generic[SentCommand], frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One request. `deadline_s` counts from its arrival. A request with the idempotency key of an earlier one
    gets that one's reply instead of a second execution; an empty key asks for none of this."""

    id: Annotated[bytes, Meta(min_length=REQUEST_ID_BYTES, max_length=REQUEST_ID_BYTES)]
    deadline_s: Annotated[float, Meta(gt=0, le=DEADLINE_S_MAX)]
    command: SentCommand
    idempotency_key: Annotated[str, Meta(max_length=IDEMPOTENCY_KEY_CHARS_MAX)] = ""
    api: Literal[1] = 1


class RequestHead(msgspec.Struct, frozen=True, kw_only=True):
    """What can still be read of a request that this version does not understand, to answer it by id."""

    id: Annotated[bytes, Meta(min_length=REQUEST_ID_BYTES, max_length=REQUEST_ID_BYTES)]
    api: int = 1


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """`FarshoreError.as_dict` on the wire."""

    code: str
    exit_code: int
    message: str
    object: str = ""
    position: str = ""
    next: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer: `data` when `ok`, else `error`. Unknown fields are ignored: a newer daemon may add some."""

    id: bytes
    ok: bool
    data: msgspec.Raw = msgspec.Raw(b"\x80")
    error: ErrorBody | None = None

    def result(self) -> msgspec.Raw:
        """The data. Raises the FarshoreError that the site answered with."""
        if self.ok:
            return self.data
        if self.error is None:
            raise RemoteProtocolError("a refusal without an error")
        raised = error_from_dict(msgspec.to_builtins(self.error))
        # A newer daemon's word or exit code must reach the script that asked, known here or not.
        raised.code = self.error.code
        if self.error.exit_code in _EXIT_CODES and self.error.exit_code != ExitCode.OK:
            raised.exit_code = ExitCode(self.error.exit_code)
        raise raised


class BadField(UsageError):
    """A request that breaks a bound: `field` is the last name on the way to what is wrong, empty where it is
    the whole, and `reason` says which bound."""

    def __init__(self, text: str, *, field: str, reason: str) -> None:
        super().__init__(f"bad request: {text}", next_step="farshore --help")
        self.field = field
        self.reason = reason


# What decoding raises for a stranger's bytes: bad UTF-8 in a key and deep nesting have their own errors.
_BAD_BYTES = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_EXIT_CODES = frozenset(int(code) for code in ExitCode)
_encoder = msgspec.msgpack.Encoder()
_head_decoder = msgspec.msgpack.Decoder(RequestHead)
_answer_decoder = msgspec.msgpack.Decoder(Answer)


@cache
def request_decoder() -> msgspec.msgpack.Decoder[Request[Command]]:
    """Of requests with any command that there is. Who only sends some does not load them all."""
    from protocol.commands import AnyCommand

    return msgspec.msgpack.Decoder(Request[AnyCommand])


def ok_answer(request_id: bytes, data: msgspec.Raw) -> Answer:
    """An answer with a result."""
    return Answer(id=request_id, ok=True, data=data)


def error_answer(request_id: bytes, error: FarshoreError) -> Answer:
    """An answer with a refusal."""
    return Answer(id=request_id, ok=False, error=msgspec.convert(error.as_dict(), ErrorBody))


def encode_request(request: Request[Any]) -> bytes:
    """Bytes of a request. Raises UsageError when it is too large or breaks a bound, which the daemon would
    refuse after a round trip with less to say."""
    try:
        # Before it is encoded: msgpack has no room for every number, and would not say which it was.
        kind: Any = Request[type(request.command)]  # type: ignore[misc] # known only when this runs
        msgspec.convert(msgspec.to_builtins(request, builtin_types=(bytes,)), kind)
        raw = _encoder.encode(request)
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{error.object!r} is not UTF-8", subject=error.object, next_step="write it in UTF-8"
        ) from error
    except (msgspec.ValidationError, OverflowError) as error:
        raise _bad_request(error) from error
    _check_size(raw)
    return raw


def decode_request(raw: bytes) -> Request[Command]:
    """A checked request. Raises UsageError naming the field that is wrong."""
    _check_size(raw)
    try:
        return request_decoder().decode(raw)
    except _BAD_BYTES as error:
        raise _bad_request(error) from error


def decode_request_head(raw: bytes) -> RequestHead | None:
    """The id and version of a request that `decode_request` refused; None when not even they can be read."""
    try:
        return _head_decoder.decode(raw[:CONTROL_MESSAGE_BYTES_MAX])
    except _BAD_BYTES:
        return None


def encode_data(data: Reply | dict[str, Any]) -> msgspec.Raw:
    """A reply, or some fields of one."""
    return msgspec.Raw(_encoder.encode(data))


def read_data(data: msgspec.Raw) -> dict[str, Any]:
    """The fields of a reply, or of a part of one. Raises RemoteProtocolError."""
    try:
        return msgspec.msgpack.decode(data, type=dict[str, Any])
    except _BAD_BYTES as error:
        raise RemoteProtocolError(f"bad reply: {error}") from error


def read_reply(command: BaseCommand[ReplyType], data: dict[str, Any]) -> ReplyType:
    """The reply to a command. Raises RemoteProtocolError unless it has the shape that the command says."""
    try:
        return msgspec.convert(data, reply_type(type(command)))
    except (msgspec.ValidationError, RecursionError) as error:
        raise RemoteProtocolError(f"bad reply to {command_name(command)}: {error}") from error


def encode_answer(answer: Answer) -> bytes:
    """Bytes of an answer; one that is too large becomes an error that says so."""
    raw = _encoder.encode(answer)
    if len(raw) <= CONTROL_MESSAGE_BYTES_MAX:
        return raw
    error = FarshoreError(
        f"the reply of {len(raw)} bytes is too large", next_step="ask about one group or one volume only"
    )
    return _encoder.encode(error_answer(answer.id, error))


def decode_answer(raw: bytes) -> Answer:
    """An answer. Raises RemoteProtocolError for bytes that are none."""
    if len(raw) > CONTROL_MESSAGE_BYTES_MAX:
        raise RemoteProtocolError(f"a reply of {len(raw)} bytes")
    try:
        return _answer_decoder.decode(raw)
    except _BAD_BYTES as error:
        raise RemoteProtocolError(f"bad reply: {error}") from error


def _check_size(raw: bytes) -> None:
    if len(raw) > CONTROL_MESSAGE_BYTES_MAX:
        raise UsageError(f"a request of {len(raw)} bytes is above {CONTROL_MESSAGE_BYTES_MAX}")


def _bad_request(error: Exception) -> BadField:
    reason, _, path = str(error).partition(" - at `$.")
    return BadField(str(error), reason=reason, field=path.rstrip("`").rpartition(".")[2])
