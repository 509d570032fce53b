"""The door on TCP with TLS: who asks in the clear, slips bytes in, or stops half way, is sent away."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from structlog.testing import capture_logs

from protocol.errors import NotFound
from protocol.nbd.client import encode_info_body, encode_option
from protocol.nbd.constants import Option, OptionReply
from protocol.nbd.exports import ExportInfo, ExportLookup
from site_primary.nbd import server as server_module
from site_primary.nbd.server import NbdServer
from site_primary.nbd.tls import TcpRules
from tests.support.sites import free_port, short_directory
from tests.support.tls import (
    CLIENT_FLAGS,
    GREETING_BYTES,
    STARTTLS,
    HostFiles,
    TestAuthority,
    exactly,
    greeted,
    over_tls,
    starting_tls,
)
from tests.unit.protocol.nbd.handshake_talk import Volumes

REPLY_BYTES = 20
LIST = encode_option(Option.LIST)


class Seen:
    """An `ExportOpener` that keeps for whom it was asked. Nothing of it can be opened."""

    def __init__(self) -> None:
        self.hosts: list[str] = []

    def seen_by(self, host: str) -> ExportLookup:
        self.hosts.append(host)
        return Volumes(f"vm1/{host.replace(':', '-') or 'nobody'}")

    def open(self, info: ExportInfo) -> NoReturn:
        raise NotFound("gone")

    def maps(self, *_: Any) -> NoReturn:
        raise NotFound("gone")


class Door:
    """A server on TCP, with rules."""

    def __init__(self, rules: TcpRules) -> None:
        self.exports = Seen()
        self.rules = rules
        self.port = free_port()
        self.server: NbdServer | None = None
        self.log: list[Any] = []

    def run(self, work: Callable[[Door], Any], *addresses: str) -> Any:
        """What `work` gives, which runs in a thread beside the server."""

        async def serve() -> Any:
            self.server = server = NbdServer(asyncio.get_running_loop(), self.exports)
            server.tcp = self.rules
            for address in (f"tcp:127.0.0.1:{self.port}", *addresses):
                await server.listen(address)
            try:
                return await asyncio.to_thread(work, self)
            finally:
                await server.close()
                await _until(lambda: not server.connections)

        with capture_logs() as self.log:
            return asyncio.run(serve())

    @property
    def refusals(self) -> list[str]:
        return [entry["reason"] for entry in self.log if entry["event"] == "nbd.tls_refused"]


async def _until(holds: Callable[[], bool]) -> None:
    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that")


def ask(connection: socket.socket, option: bytes) -> tuple[int, bytes]:
    """The type and the data of the first reply to an option."""
    connection.sendall(option)
    header = exactly(connection, REPLY_BYTES)
    return int.from_bytes(header[12:16], "big"), exactly(connection, int.from_bytes(header[16:], "big"))


def ended(connection: socket.socket) -> bool:
    """Whether the server has closed it: waits until it does."""
    try:
        while connection.recv(4096):
            pass
    except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
        pass
    return True


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> TestAuthority:
    return TestAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def host(authority: TestAuthority, tmp_path_factory: pytest.TempPathFactory) -> HostFiles:
    return authority.host("vmhost1", tmp_path_factory.mktemp("hosts") / "vmhost1")


@pytest.fixture
def required(authority: TestAuthority) -> Door:
    return Door(TcpRules(context=authority.server(), plain=False))


@pytest.fixture
def short_deadline(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(server_module, "NBD_HANDSHAKE_TIMEOUT_S", 1.0)
    return 1.0


def test_over_tls_a_host_is_who_its_certificate_says(required: Door, host: HostFiles) -> None:
    def work(door: Door) -> bytes:
        with over_tls(door.port, host.context()) as connection:
            assert connection.version() == "TLSv1.3"
            return ask(connection, LIST)[1]

    assert required.run(work)[4:] == b"vm1/cert-vmhost1"
    assert required.exports.hosts[-1] == "cert:vmhost1"
    assert required.refusals == []


def test_in_the_clear_nothing_is_told(required: Door) -> None:
    def work(door: Door) -> None:
        with greeted(door.port) as connection:
            for option in (Option.LIST, Option.GO, Option.INFO, Option.STRUCTURED_REPLY):
                assert ask(connection, encode_option(option, encode_info_body("vm1/root")))[0] == (
                    OptionReply.ERR_TLS_REQD
                )
        with greeted(door.port) as connection:
            connection.sendall(encode_option(Option.EXPORT_NAME, b"vm1/root"))
            assert ended(connection)

    required.run(work)
    assert required.refusals == ["it asked in the clear, and this door talks over TLS only"]
    assert [each["error"] for each in required.log if each["event"] == "nbd.refused"]


@pytest.mark.parametrize("slipped", [LIST, b"\0", encode_option(Option.GO, encode_info_body("vm1/root"))])
def test_what_is_slipped_in_behind_starttls_ends_it(required: Door, slipped: bytes) -> None:
    """CVE-2021-3716: an attacker on the way puts options behind the client's STARTTLS."""

    def work(door: Door) -> bytes:
        with greeted(door.port) as connection:
            connection.sendall(STARTTLS + slipped)
            try:
                return exactly(connection, 1)
            except ConnectionResetError:
                return b""

    assert required.run(work) == b""
    assert required.refusals == [f"{len(slipped)} bytes came in the clear behind STARTTLS"]


def test_what_is_slipped_in_before_tls_is_no_tls(required: Door, host: HostFiles) -> None:
    def work(door: Door) -> None:
        with starting_tls(door.port) as connection:
            connection.sendall(LIST)
            with pytest.raises((ssl.SSLError, OSError)):
                host.context().wrap_socket(connection, server_hostname="127.0.0.1")

    required.run(work)
    assert len(required.refusals) == 1


def test_what_was_agreed_in_the_clear_is_forgotten(authority: TestAuthority, host: HostFiles) -> None:
    door = Door(TcpRules(context=authority.server(), plain=True))

    def work(door: Door) -> tuple[int, int]:
        with greeted(door.port) as connection:
            assert ask(connection, encode_option(Option.STRUCTURED_REPLY))[0] == OptionReply.ACK
            assert ask(connection, STARTTLS)[0] == OptionReply.ACK
            with host.context().wrap_socket(connection, server_hostname="127.0.0.1") as secret:
                # Contexts need structured replies.
                again, _ = ask(secret, encode_option(Option.LIST_META_CONTEXT, bytes(8)))
                twice, _ = ask(secret, STARTTLS)
                return again, twice

    assert door.run(work) == (OptionReply.ERR_INVALID, OptionReply.ERR_INVALID)


def test_who_stops_half_way_is_gone_at_the_deadline(
    required: Door, host: HostFiles, short_deadline: float
) -> None:
    """And holds up nobody meanwhile: neither who says nothing, nor who says a byte now and then."""

    def work(door: Door) -> float:
        silent, slow = starting_tls(door.port), starting_tls(door.port)
        began = time.monotonic()
        slow.sendall(b"\x16\x03\x01")
        with over_tls(door.port, host.context()) as connection:
            assert ask(connection, LIST)[0] == OptionReply.SERVER
        served_s = time.monotonic() - began
        slow.sendall(b"\x01")
        assert ended(silent)
        assert ended(slow)
        silent.close()
        slow.close()
        return served_s

    assert required.run(work) < short_deadline
    assert required.server is not None
    assert not required.server.connections


def test_a_revoked_certificate_is_refused(authority: TestAuthority, tmp_path: Path) -> None:
    gone, other = authority.host("gone", tmp_path / "gone"), authority.host("other", tmp_path / "other")
    serial = authority.serial("gone")
    door = Door(TcpRules(context=authority.server(), plain=False, revoked=frozenset({serial})))

    def work(door: Door) -> int:
        with over_tls(door.port, gone.context()) as connection:
            assert ended(connection)
        with over_tls(door.port, other.context()) as connection:
            return ask(connection, LIST)[0]

    assert door.run(work) == OptionReply.SERVER
    assert door.refusals == [f"the certificate {serial} of gone is revoked"]


def test_who_is_revoked_in_the_middle_of_a_handshake_is_not_served(
    authority: TestAuthority, tmp_path: Path
) -> None:
    late = authority.host("late", tmp_path / "late")
    serial = authority.serial("late")
    door = Door(TcpRules(context=authority.server(), plain=False))

    def work(door: Door) -> None:
        with over_tls(door.port, late.context()) as connection:
            assert ask(connection, LIST)[0] == OptionReply.SERVER
            exactly(connection, REPLY_BYTES)
            assert door.server is not None
            door.server.tcp = TcpRules(plain=False, revoked=frozenset({serial}))
            connection.sendall(encode_option(Option.GO, encode_info_body("vm1/cert-late")))
            assert ended(connection)

    door.run(work)
    assert door.refusals == [f"the certificate {serial} of late is revoked"]


def test_a_certificate_that_names_no_host_is_refused(tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path / "authority")
    odd = authority.host("Not a Name", tmp_path / "odd")
    door = Door(TcpRules(context=authority.server(), plain=False))

    def work(door: Door) -> None:
        with over_tls(door.port, odd.context()) as connection:
            assert ended(connection)

    door.run(work)
    assert door.refusals == ["the certificate does not name one host"]


def test_a_door_without_a_way_in_says_so(required: Door) -> None:
    door = Door(TcpRules(plain=False))

    def work(door: Door) -> bytes:
        with socket.create_connection(("127.0.0.1", door.port), 20) as connection:
            return exactly(connection, GREETING_BYTES)

    assert door.run(work) == b""
    assert door.refusals == ["there is no certificate to answer with (`farshore site cert init`)"]


def test_without_certificates_there_is_no_tls() -> None:
    door = Door(TcpRules())

    def work(door: Door) -> tuple[int, int]:
        with greeted(door.port) as connection:
            return ask(connection, STARTTLS)[0], ask(connection, LIST)[0]

    assert door.run(work) == (OptionReply.ERR_UNSUP, OptionReply.SERVER)


def test_a_unix_socket_has_no_tls(required: Door) -> None:
    place = short_directory()

    def work(door: Door) -> tuple[int, int]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(place / "nbd.sock"))
            exactly(connection, GREETING_BYTES)
            connection.sendall(CLIENT_FLAGS)
            return ask(connection, STARTTLS)[0], ask(connection, LIST)[0]

    try:
        assert required.run(work, f"unix:{place}/nbd.sock") == (OptionReply.ERR_UNSUP, OptionReply.SERVER)
        assert required.exports.hosts[-1] == f"uid:{os.getuid()}"
    finally:
        shutil.rmtree(place)
