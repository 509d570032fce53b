"""Peers and how to send to them: what is kept, and what a token may not say."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from msgspec.structs import replace as replace_fields

from daemon.peer_tokens import make_token, read_token
from daemon.peers import BAD_PEERS_FILE, PEERS_FILE, Peer, PeerBook, PeerOptions
from engine.ports.disk_threads import DiskThreads
from engine.ports.durable import RealDisk
from engine.ports.zmq_transport import generate_keypair
from protocol.commands.peer import TOKEN_PREFIX, RateWindow
from protocol.errors import FarshoreError, NotAllowed, NotFound, UsageError

PEER = Peer(name="par", site_id="0" * 32, endpoint="tcp://par:7480", public_key=generate_keypair()[0])
OPTIONS = PeerOptions(rate_bytes_s=10 << 20, compress="zstd")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[RealDisk]:
    loop = asyncio.new_event_loop()
    made = RealDisk(tmp_path, DiskThreads(loop))
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
    # What each needs: one that was made anew a whole copy, one with another key none.
    for site_id, step in ((PEER.site_id, "peer rotate-key par TOKEN"), ("f00d", "peer replace par TOKEN")):
        with pytest.raises(NotAllowed) as refused:
            book.add(replace(PEER, site_id=site_id, public_key=generate_keypair()[0]))
        assert step in refused.value.next_step
    with pytest.raises(NotFound):
        book.get("rom")


OWN = Peer(name="lon", site_id="1" * 32, endpoint="tcp://lon:7480", public_key=generate_keypair()[0])


def token_of(**fields: object) -> str:
    values = {name: getattr(PEER, name) for name in Peer.__slots__} | fields
    return TOKEN_PREFIX + base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "../par"},
        {"name": "par\n"},
        {"name": 7},
        {"site_id": "x"},
        {"site_id": ""},
        {"endpoint": "ipc:///etc/passwd"},
        {"endpoint": "tcp://par"},
        {"endpoint": "tcp://par:0"},
        {"endpoint": "tcp://*:7480"},
        {"endpoint": "tcp://par:7480;10.0.0.1:1"},
        {"endpoint": "tcp://par:7480\n"},
        {"endpoint": "tcp://" + "p" * 300 + ":1"},
        {"public_key": "short"},
        {"rate_bytes_s": 1},
    ],
)
def test_c16_a_token_with_a_bad_field_is_none(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="not a site's token"):
        read_token(token_of(**fields))


@pytest.mark.parametrize("host", ["*", "0.0.0.0", "[::]", "[0:0::0]"])
def test_a_token_with_every_address_says_what_its_site_has_to_set(host: str) -> None:
    """Who dials 0.0.0.0 reaches himself: the pair was never made, and said that a key is not known."""
    with pytest.raises(UsageError, match="nobody can dial") as refused:
        read_token(token_of(endpoint=f"tcp://{host}:7480"))
    assert "advertise" in refused.value.next_step


@pytest.mark.parametrize(
    "text", ["farshore1.", "farshore1." + "!" * 9, TOKEN_PREFIX + "W" * 4000, "[" * 4000]
)
def test_c16_what_is_no_token(text: str) -> None:
    with pytest.raises(UsageError):
        read_token(text)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (replace(PEER, name="rom"), "known here as par"),
        (replace(PEER, name="rom", public_key=generate_keypair()[0]), "known here as par"),
        (replace(PEER, public_key=generate_keypair()[0]), "another key"),
        (replace(OWN, name="rom"), "own token"),
        (replace(PEER, name="rom", site_id="2", public_key=OWN.public_key), "own token"),
        (replace(PEER, name="lon", site_id="2", public_key=generate_keypair()[0]), "this site's name"),
        (replace(PEER, endpoint="udp://par:1"), "endpoint"),
    ],
)
def test_c16_what_is_refused_is_not_saved(disk: RealDisk, other: Peer, said: str) -> None:
    book = PeerBook(disk, OWN)
    book.add(PEER)
    before = disk.read_file(PEERS_FILE)
    with pytest.raises((NotAllowed, UsageError), match=said):
        book.add(other)
    assert disk.read_file(PEERS_FILE) == before
    assert PeerBook(disk, OWN).all() == book.all() == [PEER]


def test_c16_options_out_of_bounds_are_not_saved(disk: RealDisk) -> None:
    book = PeerBook(disk, OWN)
    book.add(PEER)
    for options in (PeerOptions(rate_bytes_s=1), PeerOptions(rate_bytes_s=-1), PeerOptions(compress="rar")):
        with pytest.raises(UsageError):
            book.set_options("par", options)
    assert PeerBook(disk, OWN).options("par") == PeerOptions()


def test_windows_are_kept_and_a_peer_without_any_is_written_as_it_always_was(disk: RealDisk) -> None:
    """An earlier version refuses a row with a key that it does not know."""
    book = PeerBook(disk, OWN)
    book.add(PEER)
    book.set_options("par", OPTIONS)
    assert b"windows" not in disk.read_file(PEERS_FILE)
    night = RateWindow(from_minute=1320, until_minute=360, zone="Europe/Berlin", rate_bytes_s=0)
    options = replace(OPTIONS, windows=(night, replace_fields(night, zone="UTC", rate_bytes_s=1 << 20)))
    book.set_options("par", options)
    assert PeerBook(disk, OWN).options("par") == options
    assert b"days" not in disk.read_file(PEERS_FILE)
    sunday = replace_fields(night, from_minute=0, until_minute=0, days=(6,))
    book.set_options("par", replace(OPTIONS, windows=(sunday,)))
    assert PeerBook(disk, OWN).options("par").windows == (sunday,)
    book.set_options("par", options)
    for windows in (
        (night,) * 17,
        (replace_fields(night, days=(1, 0)),),
        (replace_fields(night, days=(1, 1)),),
        (replace_fields(night, rate_bytes_s=1),),
        (replace_fields(night, until_minute=1320),),
    ):
        with pytest.raises(UsageError):
            book.set_options("par", replace(OPTIONS, windows=windows))
    assert book.options("par") == options
    text = disk.read_file(PEERS_FILE)
    for bad in (
        b'"from_minute": 1440',
        b'"from_minute": "x"',
        b'"from_minute": 360',
        b'"days": [7], "from_minute": 1320',
    ):
        disk.replace_file(PEERS_FILE, text.replace(b'"from_minute": 1320', bad))
        assert PeerBook(disk, OWN).all() == [], "set aside, for a person to look at"


def test_c16_what_cannot_be_saved_is_not_so(disk: RealDisk) -> None:
    book = PeerBook(disk, OWN)
    (disk.root / PEERS_FILE).mkdir()
    with pytest.raises(OSError):
        book.add(PEER)
    assert book.all() == []


def test_c16_a_stored_row_that_is_bad_is_set_aside(disk: RealDisk) -> None:
    def row(**fields: object) -> dict[str, object]:
        return {name: getattr(PEER, name) for name in Peer.__slots__} | fields

    same_key = row(name="aaa", site_id="3")
    bad = [row(name="../x", site_id="4"), row(name="own", public_key=OWN.public_key), {"name": 1}, 7]
    disk.replace_file(PEERS_FILE, json.dumps([same_key, *bad, row()]).encode())
    book = PeerBook(disk, OWN, in_use={"par"})
    assert book.all() == [PEER]
    assert len(book.set_aside) == 5
    assert {name for name, _ in book.set_aside} == {"aaa", "../x", "own", PEERS_FILE}
    # They stay where they are, for whoever mends the file.
    book.set_options("par", OPTIONS)
    again = PeerBook(disk, OWN, in_use={"par"})
    assert (again.all(), len(again.set_aside)) == ([PEER], 5)


def test_c16_a_file_that_is_no_list_is_kept_beside(disk: RealDisk) -> None:
    disk.replace_file(PEERS_FILE, b'{"half": ')
    book = PeerBook(disk, OWN)
    assert (book.all(), len(book.set_aside)) == ([], 1)
    book.add(PEER)
    assert disk.read_file(BAD_PEERS_FILE) == b'{"half": '
    assert PeerBook(disk, OWN).all() == [PEER]


DEEP = b"[" * 5000 + b"]" * 5000


@pytest.mark.parametrize("text", [b"\xff\xfe", b'[{"name": ' + DEEP + b"}]", DEEP, b"", b"\0" * 64])
def test_a_file_that_is_no_json_is_kept_beside(disk: RealDisk, text: bytes) -> None:
    disk.replace_file(PEERS_FILE, text)
    book = PeerBook(disk, OWN)
    assert ([name for name, _ in book.set_aside], book.all()) == ([PEERS_FILE], [])
    book.add(PEER)
    assert disk.read_file(BAD_PEERS_FILE) == text
    assert PeerBook(disk, OWN).all() == [PEER]


@pytest.mark.parametrize(
    "bad",
    [
        b'{"name": "\xff"}',
        b'{"\xc3\x28": 1}',
        b'"\xed\xa0\x80"',
        b'{"rate_bytes_s": ' + b"9" * 5000 + b"}",
        b"1e999",
        b"[" * 500 + b"]" * 500,
        b'{"name":\n"rom"}',
    ],
)
def test_a_row_that_does_not_decode_stays_as_it_is(disk: RealDisk, bad: bytes) -> None:
    disk.replace_file(PEERS_FILE, b"[" + bad + b"]")
    book = PeerBook(disk, OWN)
    assert len(book.set_aside) == 1
    book.add(PEER)
    book.set_options("par", OPTIONS)
    assert bad in disk.read_file(PEERS_FILE)
    again = PeerBook(disk, OWN)
    assert (again.all(), again.options("par"), len(again.set_aside)) == ([PEER], OPTIONS, 1)


def test_what_is_written_is_what_other_versions_wrote(disk: RealDisk) -> None:
    book = PeerBook(disk, OWN)
    rows = []
    for peer in (PEER, Peer(name="rom", site_id="2", endpoint="", public_key=generate_keypair()[0])):
        book.add(peer)
        rows.append(asdict(peer) | {"rate_bytes_s": 0, "compress": "none"})
        assert disk.read_file(PEERS_FILE) == json.dumps(rows, indent=1).encode()


def test_a_file_that_cannot_be_read_is_not_written(disk: RealDisk) -> None:
    (disk.root / PEERS_FILE).symlink_to("elsewhere")
    book = PeerBook(disk, OWN)
    ((name, error),) = book.set_aside
    assert name == PEERS_FILE
    assert error.next_step
    with pytest.raises(FarshoreError, match="cannot be read"):
        book.add(PEER)
    assert (disk.root / PEERS_FILE).is_symlink()
    assert book.all() == []
