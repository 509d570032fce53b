"""The server's side of the fixed newstyle handshake, sans-I/O.

Rules: bytes in, bytes out; one table says which state follows which. The client's mistakes in an option that
has a reply are answered there; all others raise `RemoteProtocolError` and end the handshake (the caller
closes the connection). Memory: the caller's one piece of input, one option's body (64 KiB), and
`NBD_OPTION_REPLY_BYTES_MAX` of replies plus the replies to one option. It may not know sockets, TLS, clocks
(the deadline is the caller's) or what an export is made of.

Source: proto.md, "Newstyle negotiation" to "Termination of the session during option haggling", "TLS
support", "Option types".
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import Enum
from types import MappingProxyType
from typing import ClassVar

from protocol.errors import FarshoreError, LocalProtocolError, NotAllowed, NotFound, RemoteProtocolError
from protocol.limits import (
    NBD_EXPORT_NAME_BYTES_MAX,
    NBD_OPTION_BYTES_MAX,
    NBD_OPTION_REPLY_BYTES_MAX,
    NBD_OPTIONS_AT_ONCE_MAX,
)
from protocol.nbd.constants import (
    EXPORT_NAME_PAD_BYTES,
    NBD_MAGIC,
    OPTION_MAGIC,
    ClientFlag,
    HandshakeFlag,
    Option,
    OptionReply,
)
from protocol.nbd.exports import ExportInfo, ExportLookup, Negotiated
from protocol.nbd.options import (
    EXPORT_NAME_REPLY,
    OPTION_HEADER,
    OptionRefused,
    decode_string,
    encode_infos,
    encode_meta_context,
    encode_reply,
    encode_server,
    match_contexts,
    parse_info_body,
    parse_meta_body,
    refusal_of,
    wire_text,
)

__all__ = ["ExportInfo", "ExportLookup", "HandshakeState", "Negotiated", "ServerHandshake"]

# A body longer than NBD_OPTION_BYTES_MAX is read and dropped up to this length, so that its client gets an
# answer; a longer one ends the connection.
SKIP_BYTES_MAX = 1 << 20

_GREETING = struct.Struct(">QQH")
_CLIENT_FLAGS = struct.Struct(">I")
_SERVER_FLAGS = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES
# A plain int: the complement of an IntFlag keeps only the bits that have names, and would find none unknown.
_KNOWN_CLIENT_FLAGS = int(ClientFlag.FIXED_NEWSTYLE | ClientFlag.NO_ZEROES)


class HandshakeState(Enum):
    """Where a handshake stands."""

    CLIENT_FLAGS = "client flags"
    OPTIONS = "options"
    STARTTLS = "starttls"
    TRANSMISSION = "transmission"
    CLOSED = "closed"
    FAILED = "failed"


_S = HandshakeState
_NEXT: MappingProxyType[HandshakeState, frozenset[HandshakeState]] = MappingProxyType(
    {
        _S.CLIENT_FLAGS: frozenset({_S.OPTIONS, _S.FAILED}),
        _S.OPTIONS: frozenset({_S.STARTTLS, _S.TRANSMISSION, _S.CLOSED, _S.FAILED}),
        _S.STARTTLS: frozenset({_S.OPTIONS}),
        _S.TRANSMISSION: frozenset(),
        _S.CLOSED: frozenset(),
        _S.FAILED: frozenset(),
    }
)
_READING = frozenset({_S.CLIENT_FLAGS, _S.OPTIONS})


class ServerHandshake:
    """One connection's handshake.

    Send `greeting()`, then feed `receive` and send what it returns, until `state` leaves CLIENT_FLAGS and
    OPTIONS:

    - TRANSMISSION: `result` is set; `leftover` are bytes that came behind the handshake.
    - CLOSED: send, then close. `refusal` says why, if the client asked by NBD_OPT_EXPORT_NAME for what it
      cannot have (that option has no error reply); None after NBD_OPT_ABORT.
    - STARTTLS: send, do the TLS handshake, call `tls_started()`, go on with `receive`.
    - FAILED: `RemoteProtocolError` was raised; close.

    `receive` raises `LocalProtocolError` in any of these states.
    """

    def __init__(
        self, exports: ExportLookup, *, tls_available: bool = False, tls_required: bool = False
    ) -> None:
        if tls_required and not tls_available:
            raise LocalProtocolError("TLS cannot be required where it is not available")
        self._exports = exports
        self._tls_available = tls_available
        self._tls_required = tls_required
        self._tls_active = False
        self._state = HandshakeState.CLIENT_FLAGS
        self._client_flags = 0
        self._buffer = bytearray()
        self._option: int | None = None
        self._option_bytes, self._skip_bytes = 0, 0
        self._structured = False
        self._contexts: dict[int, str] = {}
        self._contexts_of = ""
        self._result: Negotiated | None = None
        self._refusal: FarshoreError | None = None
        self._leftover = b""
        self.dropped_bytes = 0  # that came in the clear behind STARTTLS
        self.refused_clear = False  # whether the client asked in the clear for what there is over TLS only

    @property
    def state(self) -> HandshakeState:
        """Where the handshake stands."""
        return self._state

    @property
    def result(self) -> Negotiated | None:
        """Set once the client moves to transmission."""
        return self._result

    @property
    def refusal(self) -> FarshoreError | None:
        """Why the connection must be closed, where the protocol has no way to tell the client."""
        return self._refusal

    @property
    def finished_abort(self) -> bool:
        """Over without transmission: send what `receive` returned and close."""
        return self._state is HandshakeState.CLOSED

    @property
    def starttls_requested(self) -> bool:
        """TLS must begin now; bytes that came behind the request were dropped."""
        return self._state is HandshakeState.STARTTLS

    @property
    def leftover(self) -> bytes:
        """Bytes received behind the handshake; they belong to transmission."""
        return self._leftover

    @property
    def buffered_bytes(self) -> int:
        """Input held because it is incomplete; at most `NBD_OPTION_BYTES_MAX` between calls."""
        return len(self._buffer)

    def greeting(self) -> bytes:
        """The server's first 18 bytes ("Newstyle negotiation")."""
        return _GREETING.pack(NBD_MAGIC, OPTION_MAGIC, _SERVER_FLAGS)

    def tls_started(self, exports: ExportLookup | None = None) -> None:
        """TLS is up. What was negotiated in the clear is forgotten: an attacker may have sent it. `exports`:
        what a client that is known now may see.

        Raises `LocalProtocolError` unless STARTTLS was asked for.
        """
        if self._state is not HandshakeState.STARTTLS:
            raise LocalProtocolError(f"TLS started in state {self._state.value!r}")
        self._move(HandshakeState.OPTIONS)
        self._tls_active, self._structured = True, False
        self._exports = exports or self._exports
        self._contexts = {}
        self._contexts_of = ""

    def receive(self, data: bytes | bytearray | memoryview) -> bytes:
        """Take what the client sent, in any pieces; returns what to send, possibly nothing.

        Raises `RemoteProtocolError` (state FAILED from then on; replies not yet returned are dropped) and
        `LocalProtocolError` when the handshake is over or waits for TLS.
        """
        if self._state not in _READING:
            raise LocalProtocolError(f"handshake bytes in state {self._state.value!r}")
        self._buffer += data
        replies: list[bytes] = []
        reply_bytes = 0
        try:
            while self._state in _READING:
                # An input full of NBD_OPT_LIST would become gigabytes of replies, or seconds of work.
                if reply_bytes > NBD_OPTION_REPLY_BYTES_MAX or len(replies) > NBD_OPTIONS_AT_ONCE_MAX:
                    raise RemoteProtocolError("the client sends options without awaiting the replies")
                reply = self._step()
                if reply is None:
                    break
                replies.append(reply)
                reply_bytes += len(reply)
        except RemoteProtocolError:
            self._move(HandshakeState.FAILED)
            self._buffer.clear()
            raise
        if self._state is HandshakeState.TRANSMISSION:
            self._leftover = bytes(self._buffer)
        if self._state not in _READING:
            # For STARTTLS this is a rule of its own: bytes sent in the clear must not be taken for
            # authenticated ones (nbdkit, CVE-2021-3716).
            self._buffer.clear()
        return b"".join(replies)

    def _move(self, state: HandshakeState) -> None:
        if state not in _NEXT[self._state]:
            raise LocalProtocolError(f"handshake cannot go from {self._state.value!r} to {state.value!r}")
        self._state = state

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def _step(self) -> bytes | None:
        """One unit of input: its reply, or None when more input is needed."""
        if self._state is HandshakeState.CLIENT_FLAGS:
            if len(self._buffer) < _CLIENT_FLAGS.size:
                return None
            self._client_flags = _CLIENT_FLAGS.unpack(self._take(_CLIENT_FLAGS.size))[0]
            if self._client_flags & ~_KNOWN_CLIENT_FLAGS:
                raise RemoteProtocolError(f"unknown client flags {self._client_flags:#x}")
            self._move(HandshakeState.OPTIONS)
            return b""
        if self._option is None:
            if len(self._buffer) < OPTION_HEADER.size:
                return None
            self._open_option()
        if self._skip_bytes:
            dropped = min(self._skip_bytes, len(self._buffer))
            del self._buffer[:dropped]
            self._skip_bytes -= dropped
        if self._skip_bytes or len(self._buffer) < self._option_bytes:
            return None
        return self._close_option()

    def _open_option(self) -> None:
        """Read an option's header and decide at once what its length means: nothing is allocated for it."""
        magic, option, length = OPTION_HEADER.unpack(self._take(OPTION_HEADER.size))
        if magic != OPTION_MAGIC:
            raise RemoteProtocolError(f"bad option magic {magic:#018x}")
        if option == Option.EXPORT_NAME:
            if length > NBD_EXPORT_NAME_BYTES_MAX:
                raise RemoteProtocolError(f"export name of {length} bytes")
        elif not self._client_flags & ClientFlag.FIXED_NEWSTYLE:
            # "This is the only valid option in nonfixed newstyle negotiation" (NBD_OPT_EXPORT_NAME).
            raise RemoteProtocolError(f"option {option} without fixed newstyle negotiation")
        if length > SKIP_BYTES_MAX:
            raise RemoteProtocolError(f"option {option} of {length} bytes")
        self._option = option
        if length > NBD_OPTION_BYTES_MAX:
            self._skip_bytes, self._option_bytes = length, -1
        else:
            self._skip_bytes, self._option_bytes = 0, length

    def _close_option(self) -> bytes:
        """Answer the option that is complete now."""
        option, length = self._option, self._option_bytes
        if option is None:
            raise LocalProtocolError("no option is open")
        self._option = None
        body = None if length < 0 else self._take(length)
        try:
            return self._answer(option, body)
        except FarshoreError as error:
            refused = refusal_of(error)
        except OptionRefused as error:
            refused = error
        return encode_reply(option, refused.reply, wire_text(refused.text))

    def _answer(self, option: int, body: bytes | None) -> bytes:
        """The replies to one option; `body` is None if it was too long to keep."""
        if option == Option.ABORT:
            # Any data is ignored, as NBD_OPT_ABORT asks.
            self._move(HandshakeState.CLOSED)
            return encode_reply(option, OptionReply.ACK)
        if option == Option.EXPORT_NAME:
            return self._export_name(body or b"")
        if self._tls_required and not self._tls_active and option != Option.STARTTLS:
            self.refused_clear = True
            raise OptionRefused(OptionReply.ERR_TLS_REQD, "this server talks only over TLS")
        handler = self._HANDLERS.get(option)
        if handler is None:
            raise OptionRefused(OptionReply.ERR_UNSUP, f"option {option} is not supported")
        if body is None:
            raise OptionRefused(OptionReply.ERR_TOO_BIG, f"options end at {NBD_OPTION_BYTES_MAX} bytes")
        return handler(self, option, body)

    def _find(self, name: str) -> ExportInfo:
        """The export; an empty name is the default export, which exists if there is no choice."""
        if name:
            return self._exports.find(name)
        names = self._exports.names()
        if len(names) != 1:
            raise NotFound(
                f"no default export among {len(names)}", next_step="give the name of the export in the URI"
            )
        return self._exports.find(names[0])

    def _finish(self, name: str, export: ExportInfo) -> None:
        """Enter transmission. Contexts count only for the export name that they were set for."""
        contexts = self._contexts if name == self._contexts_of else {}
        self._result = Negotiated(
            export=export,
            structured_replies=self._structured,
            no_zeroes=bool(self._client_flags & ClientFlag.NO_ZEROES),
            meta_contexts=MappingProxyType(dict(contexts)),
        )
        self._move(HandshakeState.TRANSMISSION)

    def _export_name(self, body: bytes) -> bytes:
        """NBD_OPT_EXPORT_NAME: has no error reply, so a refusal closes the connection."""
        try:
            if self._tls_required and not self._tls_active:
                raise NotAllowed("this server talks only over TLS", next_step="use a client that starts TLS")
            name = decode_string(body)
            export = self._find(name)
        except OptionRefused as error:
            raise RemoteProtocolError(f"bad export name: {error.text}") from None
        except FarshoreError as error:
            self._refusal = error
            self._move(HandshakeState.CLOSED)
            return b""
        self._finish(name, export)
        flags = export.transmission_flags(structured_replies=self._structured)
        reply = EXPORT_NAME_REPLY.pack(export.size_bytes, flags)
        if self._client_flags & ClientFlag.NO_ZEROES:
            return reply
        return reply + bytes(EXPORT_NAME_PAD_BYTES)

    def _list(self, option: int, body: bytes) -> bytes:
        _reject_body(body)
        replies = [encode_server(option, name) for name in self._exports.names()]
        return b"".join(replies) + encode_reply(option, OptionReply.ACK)

    def _starttls(self, option: int, body: bytes) -> bytes:
        if not self._tls_available:
            raise OptionRefused(OptionReply.ERR_UNSUP, "TLS is not configured here")
        _reject_body(body)
        if self._tls_active:
            raise OptionRefused(OptionReply.ERR_INVALID, "TLS is on already")
        self.dropped_bytes = len(self._buffer)
        self._move(HandshakeState.STARTTLS)
        return encode_reply(option, OptionReply.ACK)

    def _info_or_go(self, option: int, body: bytes) -> bytes:
        name, wanted = parse_info_body(body)
        export = self._find(name)
        flags = export.transmission_flags(structured_replies=self._structured)
        infos = encode_infos(option, export, flags, wanted)
        if option == Option.GO:
            self._finish(name, export)
        return infos + encode_reply(option, OptionReply.ACK)

    def _structured_reply(self, option: int, body: bytes) -> bytes:
        _reject_body(body)
        self._structured = True
        return encode_reply(option, OptionReply.ACK)

    def _meta_context(self, option: int, body: bytes) -> bytes:
        """List or set contexts. Setting replaces what was set before, "including when this command fails"."""
        listing = option == Option.LIST_META_CONTEXT
        if not listing:
            self._contexts, self._contexts_of = {}, ""
        if not self._structured:
            raise OptionRefused(OptionReply.ERR_INVALID, "metadata contexts need structured replies first")
        name, queries = parse_meta_body(body)
        names = match_contexts(self._find(name), queries, listing=listing)
        # Ids are reserved, zero, in a listing.
        chosen = [(0 if listing else index, context) for index, context in enumerate(names, 1)]
        if not listing:
            self._contexts, self._contexts_of = dict(chosen), name
        replies = [encode_meta_context(option, context_id, context) for context_id, context in chosen]
        return b"".join(replies) + encode_reply(option, OptionReply.ACK)

    _HANDLERS: ClassVar[dict[int, Callable[[ServerHandshake, int, bytes], bytes]]] = {
        Option.LIST: _list,
        Option.STARTTLS: _starttls,
        Option.INFO: _info_or_go,
        Option.GO: _info_or_go,
        Option.STRUCTURED_REPLY: _structured_reply,
        Option.LIST_META_CONTEXT: _meta_context,
        Option.SET_META_CONTEXT: _meta_context,
    }


def _reject_body(body: bytes) -> None:
    if body:
        raise OptionRefused(OptionReply.ERR_INVALID, f"this option takes no data, {len(body)} bytes given")
