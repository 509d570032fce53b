"""TLS at the edge: the same bytes above as without it, whatever the pieces; nothing of who may not come."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from site_primary.nbd.host_budget import HostBudget
from site_primary.nbd.tls import TlsTransport, server_context
from tests.support.tls import HostFiles, TestAuthority


class Below(asyncio.Transport):
    """Where the socket's transport stands: keeps what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.reading = True
        self.closed = ""

    def write(self, data: Any) -> None:
        self.sent += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return 77

    def is_closing(self) -> bool:
        return bool(self.closed)

    def close(self) -> None:
        self.closed = self.closed or "closed"

    def abort(self) -> None:
        self.closed = self.closed or "aborted"


class Above(asyncio.BufferedProtocol):
    """Who serves: keeps what came, in buffers of so many bytes; `lent` while it holds one."""

    def __init__(self, buffer_bytes: int = 1 << 16) -> None:
        self.buffer = memoryview(bytearray(buffer_bytes))
        self.lent = False
        self.got = bytearray()
        self.batches: list[int] = []
        self.on_batch: Callable[[], None] = lambda: None
        self.writing = True
        self.lost = 0

    def get_buffer(self, sizehint: int) -> memoryview:
        self.lent = True
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.lent = False
        self.got += self.buffer[:nbytes]
        self.batches.append(nbytes)
        self.on_batch()

    def pause_writing(self) -> None:
        self.writing = False

    def resume_writing(self) -> None:
        self.writing = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost += 1


class Talk:
    """A server's edge and a client of `ssl`, with nothing between them but this test."""

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext, above: Above | None = None) -> None:
        self.below, self.above = Below(), above or Above()
        self.budget = HostBudget(lambda _: None, lambda *_: None)
        self.up: list[str] = []
        self.failed: list[str] = []
        self.edge = TlsTransport(self.below, self.above, server, self.budget, self._is_up, self.failed.append)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(self._in, self._out, server_hostname="127.0.0.1")

    def _is_up(self, transport: TlsTransport) -> None:
        self.up.append(transport.host_name)

    def give(self, data: bytes, piece: int = 1 << 20) -> None:
        """Bytes come from the wire, cut as `piece` says; the rest waits, as the loop does, while not read."""
        while data and self.below.reading and not self.below.closed:
            room = self.edge.get_buffer(-1)
            part = data[: min(piece, len(room))]
            room[: len(part)] = part
            self.edge.buffer_updated(len(part))
            data = data[len(part) :]

    def shake(self, piece: int = 1 << 20) -> None:
        """TLS's handshake. `ssl.SSLError` if the client finds a reason."""
        for _ in range(10):
            try:
                self.client.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            self.give(self._out.read(), piece)
            self.fetch()
            if done:
                return
        raise AssertionError("no end of the handshake")

    def fetch(self) -> None:
        """What the server sent reaches the client."""
        self._in.write(bytes(self.below.sent))
        self.below.sent.clear()

    def say(self, data: bytes) -> bytes:
        """What the client's bytes are on the wire."""
        self.client.write(data)
        return self._out.read()

    def heard(self) -> bytes:
        """What the client can read."""
        self.fetch()
        found = b""
        try:
            while part := self.client.read(1 << 16):
                found += part
        except ssl.SSLWantReadError:
            pass
        return found


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> TestAuthority:
    return TestAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def host(authority: TestAuthority, tmp_path_factory: pytest.TempPathFactory) -> HostFiles:
    return authority.host("vmhost1", tmp_path_factory.mktemp("hosts") / "vmhost1")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def talk(authority: TestAuthority, host: HostFiles, piece: int = 1 << 20, **above: int) -> Talk:
    made = Talk(authority.server(), host.context(), Above(**above))
    made.shake(piece)
    return made


@pytest.mark.parametrize("piece", [1, 7, 1000, 1 << 20])
def test_what_is_said_arrives_however_it_is_cut(
    authority: TestAuthority, host: HostFiles, piece: int
) -> None:
    made = talk(authority, host, piece)
    assert (made.up, made.failed) == (["vmhost1"], [])
    data = bytes(range(256)) * 40
    made.give(made.say(data), piece)
    assert bytes(made.above.got) == data
    made.edge.writelines([b"one", memoryview(b"two"), data * 30])
    assert made.heard() == b"onetwo" + data * 30


def test_nobody_is_let_in_by_a_ticket(authority: TestAuthority, host: HostFiles) -> None:
    """A resumed session would not show its certificate again, which may be revoked by then."""
    made = talk(authority, host)
    made.edge.write(b"x")
    assert made.heard() == b"x"
    assert made.client.session is None or not made.client.session.has_ticket


def test_one_wake_up_is_one_batch_of_as_much_as_there_is_room_for(
    authority: TestAuthority, host: HostFiles
) -> None:
    made = talk(authority, host, buffer_bytes=150_000)
    wire = made.say(bytes(200_000))
    assert len(wire) > 200_000
    made.above.batches.clear()
    made.give(wire)
    assert made.above.batches == [150_000, 50_000]


def test_what_is_no_whole_record_lends_no_buffer(authority: TestAuthority, host: HostFiles) -> None:
    made = talk(authority, host)
    wire = made.say(b"x" * 1000)
    made.give(wire[:500])
    assert not made.above.lent
    assert bytes(made.above.got) == b""
    made.give(wire[500:])
    assert bytes(made.above.got) == b"x" * 1000


def test_what_came_waits_while_nobody_reads(
    authority: TestAuthority, host: HostFiles, loop: asyncio.AbstractEventLoop
) -> None:
    made = talk(authority, host, buffer_bytes=20_000)
    data = b"".join(bytes([number]) * 20_000 for number in range(10))
    made.above.on_batch = made.edge.pause_reading
    made.give(made.say(data))
    assert bytes(made.above.got) == data[:20_000]
    assert not made.below.reading
    assert 100_000 < made.budget.lent_bytes < 200_000

    async def read_on() -> None:
        made.edge.resume_reading()
        await asyncio.sleep(0)

    loop.run_until_complete(read_on())
    assert bytes(made.above.got) == data[:40_000]
    assert not made.below.reading  # it was paused again
    made.above.on_batch = lambda: None
    loop.run_until_complete(read_on())
    assert bytes(made.above.got) == data
    assert made.below.reading
    assert made.budget.lent_bytes == 0


def test_what_is_not_taken_is_told_as_by_the_socket(authority: TestAuthority, host: HostFiles) -> None:
    made = talk(authority, host)
    made.edge.pause_writing()
    assert not made.above.writing
    assert made.edge.get_write_buffer_size() == 77
    made.edge.resume_writing()
    assert made.above.writing


def test_a_connection_that_was_lost_holds_nothing(authority: TestAuthority, host: HostFiles) -> None:
    made = talk(authority, host, buffer_bytes=1000)
    made.above.on_batch = made.edge.pause_reading
    made.give(made.say(bytes(90_000)))
    assert made.budget.lent_bytes > 0
    made.edge.connection_lost(None)
    assert (made.above.lost, made.budget.lent_bytes) == (1, 0)


def test_goodbye_is_said_and_understood(authority: TestAuthority, host: HostFiles) -> None:
    made = talk(authority, host)
    made.edge.close()
    made.edge.write(b"too late")
    made.fetch()
    assert made.client.read(10) == b""
    assert made.below.closed == "closed"
    other = talk(authority, host)
    with pytest.raises(ssl.SSLWantReadError):
        other.client.unwrap()
    other.give(other._out.read())
    assert other.below.closed == "closed"
    assert other.failed == []


def test_a_wrong_byte_ends_it_with_one_reason(authority: TestAuthority, host: HostFiles) -> None:
    made = talk(authority, host)
    wire = bytearray(made.say(b"x" * 1000) + made.say(b"y" * 1000))
    wire[700] ^= 1
    made.give(bytes(wire))
    assert made.failed == ["decryption failed or bad record mac"]
    assert made.below.closed == "aborted"
    assert bytes(made.above.got) == b""


def refused(authority: TestAuthority, client: ssl.SSLContext) -> str:
    """Why the server has no talk with that client."""
    made = Talk(authority.server(), client)
    try:
        made.shake()
        made.heard()
    except ssl.SSLError:
        pass
    assert made.up == []
    assert made.below.closed == "aborted"
    assert len(made.failed) == 1
    assert made.above.batches == []
    return made.failed[0]


def test_who_has_no_certificate_or_a_wrong_one_is_refused(
    authority: TestAuthority, host: HostFiles, tmp_path: Path
) -> None:
    nobody = host.without_certificate(tmp_path / "nobody")
    assert refused(authority, nobody.context()) == "peer did not return a certificate"
    stranger = TestAuthority(tmp_path / "other").host("vmhost1", tmp_path / "stranger")
    stranger.ca.write_bytes(host.ca.read_bytes())
    assert "unable to get local issuer" in refused(authority, stranger.context())
    old = authority.host("old", tmp_path / "old", age_days=30, days=10)
    assert "expired" in refused(authority, old.context())
    coming = authority.host("new", tmp_path / "new", age_days=-2)
    assert "not yet valid" in refused(authority, coming.context())
    assert "purpose" in refused(authority, authority.server_as_host(tmp_path / "server").context())


def test_an_earlier_tls_is_refused(authority: TestAuthority, host: HostFiles) -> None:
    assert refused(authority, host.context(newest=ssl.TLSVersion.TLSv1_2)) == "unsupported protocol"


@pytest.mark.parametrize("data", [b"IHAVEOPT" + bytes(40), b"GET / HTTP/1.0\r\n\r\n", bytes(100)])
def test_what_is_no_tls_is_refused(authority: TestAuthority, host: HostFiles, data: bytes) -> None:
    made = Talk(authority.server(), host.context())
    made.give(data)
    assert len(made.failed) == 1
    assert (made.up, made.below.closed) == ([], "aborted")


def test_files_that_do_not_belong_together_are_no_server(authority: TestAuthority, tmp_path: Path) -> None:
    other = TestAuthority(tmp_path / "other")
    mixed = tmp_path / "mixed.pem"
    one, two = ((each.directory / "tls" / "server.pem").read_text() for each in (authority, other))
    mark = "-----END PRIVATE KEY-----"
    mixed.write_text(one.split(mark)[0] + mark + two.split(mark)[1])
    for file in (mixed, tmp_path / "none"):
        with pytest.raises(OSError):
            server_context(str(file), str(authority.directory / "tls" / "ca.pem"))
