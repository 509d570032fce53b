"""What only the real transport can show: keys, endpoints, a client that speaks no CURVE, and that whoever is
cut off is told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import structlog
import zmq

from engine.ports import zmq_transport
from engine.ports.disk import Buffer
from engine.ports.transport import Caller, PeerAddress
from engine.ports.zmq_transport import ZmqTransport, generate_keypair
from protocol.errors import UsageError
from protocol.limits import REPLICATION_STRANGERS_MAX
from tests.contract.drivers import LoopDriver
from tests.contract.transport_rig import MESSAGE_BYTES_MAX, real_rig

LINKS = 6 * REPLICATION_STRANGERS_MAX


@pytest.fixture
def loop() -> Iterator[LoopDriver]:
    driver = LoopDriver()
    yield driver
    driver.close()


def test_keys_and_endpoints_are_checked(loop: LoopDriver) -> None:
    public, secret = generate_keypair()
    with pytest.raises(UsageError, match="belong together"):
        ZmqTransport(loop.loop, "tcp://127.0.0.1:*", generate_keypair()[0], secret, MESSAGE_BYTES_MAX)
    transport = ZmqTransport(loop.loop, "udp://nowhere", public, secret, MESSAGE_BYTES_MAX)
    with pytest.raises(UsageError, match="udp://nowhere"):
        transport.listen(lambda *_: None)
    for bad in (
        PeerAddress(name="x", endpoint="junk", public_key=public),
        PeerAddress(name="x", endpoint="tcp://127.0.0.1:1", public_key="short"),
        PeerAddress(name="x", endpoint="tcp://127.0.0.1:1", public_key='"' * 40),
    ):
        with pytest.raises(UsageError):
            transport.dial(bad, lambda *_: None)
    with pytest.raises(UsageError):
        transport.allow({"x": "short"})
    transport.close()


def test_listening_needs_an_authenticator_that_answers(loop: LoopDriver) -> None:
    transport = ZmqTransport(loop.loop, "tcp://127.0.0.1:*", *generate_keypair(), MESSAGE_BYTES_MAX)
    transport.close()
    with pytest.raises(RuntimeError):
        transport.listen(lambda *_: None)


def test_a_client_without_curve_gets_nothing_through(loop: LoopDriver) -> None:
    rig = real_rig(loop)
    server, client = rig.pair(echo=True)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    # The monitor tells when libzmq has dropped the client for its mechanism.
    monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    socket.connect(server.address().endpoint)
    with contextlib.suppress(zmq.Again):  # It may have been dropped already.
        socket.send(b"plain", zmq.NOBLOCK)
    dropped = monitor.poll(10_000)
    socket.disable_monitor()
    context.destroy(0)
    assert dropped
    client.dial(server.address()).send(b"curve")
    rig.wait(lambda: bool(client.answers))
    assert server.headers() == [b"curve"]
    rig.close()


@pytest.mark.parametrize("why", ["it reads nothing", "a message fails", "its key is gone"])
def test_who_is_cut_off_sees_its_connection_end(
    loop: LoopDriver, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Else it would be mute, and whoever dialled would find out by silence."""
    rig = real_rig(loop)
    server, client = rig.site("server"), rig.site("client")
    callers: list[Caller] = []

    def on_message(caller: Caller, header: bytes, payload: Buffer | None) -> None:
        callers.append(caller)
        if header == b"fails":
            raise RuntimeError("thrown by the test")

    server.transport.allow({"client": client.keys[0]})
    server.transport.listen(loop.watch(on_message))
    assert isinstance(client.transport, ZmqTransport)
    monkeypatch.setattr(client.transport, "forget", loop.watch(client.transport.forget))
    monkeypatch.setattr(zmq_transport, "PEER_UNREAD_BYTES_END", MESSAGE_BYTES_MAX - 1)
    link, other = client.dial(server.address()), client.dial(server.address())
    link.send(b"first")
    rig.wait(lambda: len(callers) == 1)
    other.send(b"another connection")
    rig.wait(lambda: len(callers) == 2)
    match why:
        case "it reads nothing":
            callers[0].send(b"answer", bytes(MESSAGE_BYTES_MAX))
        case "a message fails":
            link.send(b"fails")
        case _:
            server.transport.allow({})
    rig.wait(lambda: link.ended)
    if why == "its key is gone":
        rig.wait(lambda: other.ended)
    else:
        heard = len(callers)
        other.send(b"is still there")
        rig.wait(lambda: len(callers) == heard + 1)
        assert callers[-1] is callers[1]
    rig.close()


@pytest.mark.parametrize("echo", [True, False], ids=["answered", "unanswered"])
def test_links_that_are_dialled_together_do_not_shut_each_other_out(loop: LoopDriver, echo: bool) -> None:
    """As a site's after its restart: to the peer's guard each is a stranger until its first message."""
    with contextlib.closing(real_rig(loop)) as rig, structlog.testing.capture_logs() as lines:
        server, client = rig.pair(echo)
        links = [client.dial(server.address()) for _ in range(LINKS)]
        for number, link in enumerate(links):
            link.send(b"%d" % number)
        through = client.answers if echo else server.heard
        rig.wait(lambda: bool(lines) or len(through) == LINKS)
        assert lines == []  # the guard says so when it shuts one down
        assert sorted(server.headers()) == sorted(b"%d" % number for number in range(LINKS))
        assert not any(link.ended for link in links)
