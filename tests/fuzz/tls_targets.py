"""Targets of NBD over TLS: what a stranger sends before, instead of, and inside TLS.

A finding is also what came through although it was not said by who has a certificate.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from protocol.errors import RemoteProtocolError
from protocol.nbd.client import encode_info_body, encode_option
from protocol.nbd.constants import Option
from protocol.nbd.exports import ExportInfo
from protocol.nbd.handshake import HandshakeState, ServerHandshake
from site_primary.nbd.host_budget import HostBudget
from site_primary.nbd.tls import TlsTransport
from tests.fuzz.targets import Target, only, require
from tests.support.tls import STARTTLS, TestAuthority

SAID = b"IHAVEOPT" + bytes(range(256)) * 9


@cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's, and that of a host with a certificate."""
    with tempfile.TemporaryDirectory() as place:
        authority = TestAuthority(Path(place) / "site")
        return authority.server(), authority.host("fuzz", Path(place) / "fuzz").context()


class Below(asyncio.Transport):
    """The socket's side: keeps what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        require(not self.closed, "it sends although it is closed")
        self.sent += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


class Above(asyncio.Protocol):
    """Who serves: keeps what came through."""

    def __init__(self) -> None:
        self.got = bytearray()

    def data_received(self, data: bytes) -> None:
        self.got += data


class Edge:
    """A server's edge of one connection."""

    def __init__(self) -> None:
        self.below, self.above = Below(), Above()
        self.up = 0
        self.failed: list[str] = []
        budget = HostBudget(lambda _: None, lambda *_: None)
        self._transport = TlsTransport(
            self.below, self.above, contexts()[0], budget, self._is_up, self.failed.append
        )

    def _is_up(self, transport: TlsTransport) -> None:
        self.up += 1
        require(transport.host_name == "fuzz", "somebody else has come in")

    def give(self, data: bytes) -> None:
        """Bytes of the wire."""
        while data and not self.below.closed:
            room = self._transport.get_buffer(-1)
            part = data[: len(room)]
            room[: len(part)] = part
            self._transport.buffer_updated(len(part))
            data = data[len(part) :]
        require(len(self.failed) <= 1, "more than one reason")
        require(not self.failed or self.below.closed, "it failed and stays open")
        require(self.up <= 1, "it came up twice")


def tls_wire(data: bytes) -> None:
    """Whatever comes where TLS should begin."""
    edge = Edge()
    for at in range(0, len(data), 100):
        edge.give(data[at : at + 100])
    require(not edge.up, "who has no certificate came in")
    require(not edge.above.got, "bytes came through before TLS was up")


def tls_bent(data: bytes) -> None:
    """A host with a certificate, of whose bytes some are changed on the way: `at` u16, `change` u8 each. What
    comes through is what it said, as far as it comes through."""
    changes = {
        struct.unpack_from(">H", data, at)[0]: data[at + 2] for at in range(0, min(len(data), 96) - 2, 3)
    }
    edge, sent = Edge(), 0
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = contexts()[1].wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with only(ssl.SSLError):
        for _ in range(6):
            try:
                client.do_handshake()
                client.write(SAID)
            except ssl.SSLWantReadError:
                pass
            wire = bytearray(outgoing.read())
            for at, change in changes.items():
                if sent <= at < sent + len(wire):
                    wire[at - sent] ^= change
            sent += len(wire)
            edge.give(bytes(wire))
            incoming.write(bytes(edge.below.sent))
            edge.below.sent.clear()
            if edge.below.closed or edge.above.got:
                break
    through = bytes(edge.above.got)
    require((SAID * 6).startswith(through), "other bytes came through than were said")
    require(not through or edge.up == 1, "bytes came through before TLS was up")
    require(bool(changes) or through.startswith(SAID), "nothing was changed, and it did not come through")


class Guarded:
    """Exports that nobody may ask for before TLS is up."""

    def __init__(self) -> None:
        self.open = False

    def names(self) -> list[str]:
        require(self.open, "exports were listed in the clear")
        return ["g/v"]

    def find(self, name: str) -> ExportInfo:
        require(self.open, "an export was looked for in the clear")
        return ExportInfo(name=name, size_bytes=1 << 20)


def starttls(data: bytes) -> None:
    """Options where TLS is required: in the clear up to STARTTLS, what comes behind it as if over TLS."""
    exports = Guarded()
    handshake = ServerHandshake(exports, tls_available=True, tls_required=True)
    reading = (HandshakeState.CLIENT_FLAGS, HandshakeState.OPTIONS)
    with only(RemoteProtocolError):
        for at in range(len(data)):
            if handshake.state is HandshakeState.STARTTLS:
                require(handshake.buffered_bytes == 0, "bytes in the clear are kept")
                handshake.tls_started()
                exports.open = True
            if handshake.state not in reading:
                break
            handshake.receive(data[at : at + 1])
    require(handshake.result is None or exports.open, "somebody is served in the clear")


_LIST, _GO = encode_option(Option.LIST), encode_option(Option.GO, encode_info_body("g/v"))
_FLAGS = b"\0\0\0\3"

TLS_TARGETS = {
    target.name: target
    for target in (
        Target(
            "tls_wire",
            tls_wire,
            (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03", b"\x15\x03\x03\x00\x02\x02\x28", _LIST),
        ),
        Target("tls_bent", tls_bent, (b"", b"\0\5\1", b"\0\x90\x80", b"\3\0\1", b"\4\xff\xff")),
        Target(
            "starttls", starttls, (_FLAGS + STARTTLS + _GO, _FLAGS + _LIST + STARTTLS + _LIST, _FLAGS + _GO)
        ),
    )
}
