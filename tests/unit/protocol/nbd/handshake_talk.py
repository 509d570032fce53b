"""What the handshake tests share: exports to talk about, and words to say and read."""

from __future__ import annotations

import struct

from protocol.errors import (
    FarshoreError,
    NotFound,
    Trimmed,
    Unreachable,
    UsageError,
    WrongState,
)
from protocol.nbd.client import encode_option
from protocol.nbd.constants import BASE_ALLOCATION
from protocol.nbd.handshake import (
    ExportInfo,
    HandshakeState,
    ServerHandshake,
)

SIZE = 1 << 30
FIXED = struct.pack(">I", 1)
FIXED_NO_ZEROES = struct.pack(">I", 3)
FLAGS = 0x0D6D
FLAGS_DF = 0x0DED
ROOT = ExportInfo(name="vm1/root", size_bytes=SIZE, description="system disk", token="opaque")


def check_cut(name: str) -> None:
    if name.endswith("/gone"):
        raise Trimmed("cut gone is no longer retained", next_step="farshore backup list")


class Volumes:
    """Exports as a server has them: three that exist, and names that raise."""

    def __init__(self, *names: str) -> None:
        self._names = list(names or ("vm1/root", "vm1/data", "vm1/root@nightly"))

    def names(self) -> list[str]:
        return self._names

    def find(self, name: str) -> ExportInfo:
        errors: dict[str, FarshoreError] = {
            "remote": WrongState("remote is a secondary", next_step="connect to site a"),
            "usage": UsageError("not a name"),
            "closing": Unreachable("the site stops"),
        }
        if name in errors:
            raise errors[name]
        if name not in self._names:
            raise NotFound(f"no volume {name}")
        return ExportInfo(
            name=name,
            size_bytes=SIZE,
            read_only="@" in name,
            description="system disk",
            token=name,
            meta_contexts=(BASE_ALLOCATION, "farshore:changed-since/"),
            check_context=check_cut,
        )


def opened(
    *, flags: bytes = FIXED_NO_ZEROES, tls: bool = False, tls_required: bool = False
) -> ServerHandshake:
    handshake = ServerHandshake(Volumes(), tls_available=tls, tls_required=tls_required)
    assert handshake.receive(flags) == b""
    return handshake


def reply(option: int, kind: int, body: bytes = b"") -> bytes:
    return struct.pack(">QIII", 0x0003E889045565A9, option, kind, len(body)) + body


def replies(data: bytes) -> list[tuple[int, int, bytes]]:
    found = []
    at = 0
    while at < len(data):
        magic, option, kind, length = struct.unpack_from(">QIII", data, at)
        assert magic == 0x0003E889045565A9
        found.append((option, kind, data[at + 20 : at + 20 + length]))
        at += 20 + length
    return found


def ask(handshake: ServerHandshake, option: int, body: bytes = b"") -> list[tuple[int, int, bytes]]:
    found = replies(handshake.receive(encode_option(option, body)))
    assert all(answered == option for answered, _, _ in found)
    return found


def error_of(handshake: ServerHandshake, option: int, body: bytes = b"") -> int:
    """The single error reply to an option that must not end the handshake."""
    [(_, kind, text)] = ask(handshake, option, body)
    assert kind & 1 << 31
    assert text.decode()
    assert handshake.state is HandshakeState.OPTIONS
    return kind
