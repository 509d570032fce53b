"""The small client against the server's side, whole and byte by byte."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LocalProtocolError, NotFound, RemoteProtocolError
from protocol.nbd.client import ClientHandshake
from protocol.nbd.constants import BASE_ALLOCATION, OptionReply
from protocol.nbd.handshake import ExportInfo, ServerHandshake


class OneVolume:
    def names(self) -> list[str]:
        return ["vm1/root"]

    def find(self, name: str) -> ExportInfo:
        if name != "vm1/root":
            raise NotFound(f"no volume {name}")
        return ExportInfo(name=name, size_bytes=1 << 30)


def converse(client: ClientHandshake, server: ServerHandshake, piece_bytes: int) -> None:
    to_client, to_server = bytearray(server.greeting()), bytearray()
    while to_client and not client.done:
        piece = bytes(to_client[:piece_bytes])
        del to_client[:piece_bytes]
        to_server += client.receive(piece)
        while to_server:
            piece = bytes(to_server[:piece_bytes])
            del to_server[:piece_bytes]
            to_client += server.receive(piece)


@pytest.mark.parametrize("piece_bytes", [1, 7, 1 << 20])
def test_go_with_contexts(piece_bytes: int) -> None:
    client = ClientHandshake("vm1/root", contexts=(BASE_ALLOCATION,))
    server = ServerHandshake(OneVolume())
    converse(client, server, piece_bytes)
    assert server.result is not None
    assert client.done
    assert client.refusal is None
    assert client.size_bytes == 1 << 30
    assert client.structured_replies
    assert client.meta_contexts == dict(server.result.meta_contexts) == {1: BASE_ALLOCATION}
    assert client.transmission_flags == server.result.export.transmission_flags(structured_replies=True)


def test_without_structured_replies() -> None:
    client = ClientHandshake("vm1/root", structured=False)
    server = ServerHandshake(OneVolume())
    converse(client, server, 1 << 20)
    assert server.result is not None
    assert not server.result.structured_replies
    assert not client.structured_replies
    with pytest.raises(LocalProtocolError):
        ClientHandshake("vm1/root", structured=False, contexts=(BASE_ALLOCATION,))


def test_a_refusal_carries_the_servers_words() -> None:
    client = ClientHandshake("vm9/x")
    converse(client, ServerHandshake(OneVolume()), 1 << 20)
    assert client.done
    assert client.refusal is not None
    assert client.refusal.reply == OptionReply.ERR_UNKNOWN
    assert client.refusal.text == "no volume vm9/x"
    with pytest.raises(LocalProtocolError):
        client.receive(b"")


@given(st.binary(max_size=300), st.booleans())
def test_a_server_of_garbage(data: bytes, greeted: bool) -> None:
    client = ClientHandshake("vm1/root", contexts=(BASE_ALLOCATION,))
    if greeted:
        client.receive(ServerHandshake(OneVolume()).greeting())
        data = struct.pack(">QI", 0x0003E889045565A9, 8) + data
    with contextlib.suppress(RemoteProtocolError):
        client.receive(data)
