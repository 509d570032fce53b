"""Peers and how to send to them: what is kept, and what a token may not say."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.peers import PEERS_FILE, TOKEN_PREFIX, Peer, PeerBook, PeerOptions, make_token, read_token
from engine.durable import RealDisk
from engine.ports.zmq_transport import generate_keypair
from protocol.errors import NotAllowed, NotFound, UsageError

PEER = Peer(name="par", site_id="0" * 32, endpoint="tcp://par:7480", public_key=generate_keypair()[0])
OPTIONS = PeerOptions(rate_bytes_s=10 << 20, compress="zstd")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[RealDisk]:
    loop = asyncio.new_event_loop()
    made = RealDisk(tmp_path, loop)
    yield made
    made.close()
    loop.close()


def test_a_token_says_who_and_where() -> None:
    assert read_token(make_token(PEER)) == PEER


def test_a_token_cannot_say_how_to_send() -> None:
    fields = {
        "name": "par",
        "site_id": "0",
        "endpoint": "",
        "public_key": PEER.public_key,
        "compress": "zstd",
    }
    token = TOKEN_PREFIX + base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()
    with pytest.raises(UsageError):
        read_token(token)


def test_peers_and_options_outlive_a_restart(disk: RealDisk) -> None:
    book = PeerBook(disk)
    assert book.add(PEER)
    assert book.options("par") == PeerOptions()
    book.set_options("par", OPTIONS)
    again = PeerBook(disk)
    assert again.all() == [PEER]
    assert again.options("par") == OPTIONS


def test_a_file_of_before_there_were_options_is_read(disk: RealDisk) -> None:
    fields = {name: getattr(PEER, name) for name in Peer.__slots__}
    disk.replace_file(PEERS_FILE, json.dumps([fields]).encode())
    book = PeerBook(disk)
    assert book.get("par") == PEER
    assert book.options("par") == PeerOptions()


def test_a_new_token_of_a_peer_keeps_its_options(disk: RealDisk) -> None:
    book = PeerBook(disk)
    book.add(PEER)
    book.set_options("par", OPTIONS)
    moved = replace(PEER, endpoint="tcp://elsewhere:7480")
    assert not book.add(moved)
    assert PeerBook(disk).get("par") == moved
    assert PeerBook(disk).options("par") == OPTIONS


def test_another_key_under_a_known_name_is_refused(disk: RealDisk) -> None:
    book = PeerBook(disk)
    book.add(PEER)
    with pytest.raises(NotAllowed):
        book.add(replace(PEER, public_key=generate_keypair()[0]))
    with pytest.raises(NotFound):
        book.get("rom")
