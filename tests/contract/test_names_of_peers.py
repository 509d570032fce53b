"""Peers that are named by DNS: a name that cannot be looked up harms nobody else, either family is taken, and
it is asked for again with each connection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from engine.ports import resolver
from engine.ports.transport import Link
from engine.ports.zmq_transport import ZmqTransport, generate_keypair
from tests.contract.drivers import LoopDriver
from tests.contract.transport_rig import MESSAGE_BYTES_MAX, Rig, Site, real_rig

MakeClient = Callable[[Callable[[str], list[str]]], Site]


@pytest.fixture
def loop() -> Iterator[LoopDriver]:
    driver = LoopDriver()
    yield driver
    driver.close()


@pytest.fixture
def rig(loop: LoopDriver) -> Iterator[Rig]:
    made = real_rig(loop)
    yield made
    made.close()


@pytest.fixture
def make_client(loop: LoopDriver, rig: Rig) -> MakeClient:
    def make(look: Callable[[str], list[str]]) -> Site:
        keys = generate_keypair()
        transport = ZmqTransport(loop.loop, "", *keys, MESSAGE_BYTES_MAX, look=look)
        site = Site(rig, transport, keys)
        rig.sites.append(site)
        return site

    return make


def listening(rig: Rig, client: Site, endpoint: str = "tcp://127.0.0.1:*") -> tuple[Site, str]:
    """A server for that client, and its port."""
    server = rig.site("server", endpoint)
    server.transport.allow({"client": client.keys[0]})
    server.listen(echo=True)
    return server, server.address().endpoint.rpartition(":")[2]


def dial(client: Site, server: Site, endpoint: str) -> Link:
    link = client.transport.dial(
        type(server.address())(name="x", endpoint=endpoint, public_key=server.keys[0]),
        client.rig.driver.watch(lambda header, payload: client.answers.append((header, payload))),
    )
    link.send(b"hello")
    return link


def test_c36_a_name_whose_server_is_mute_harms_no_other_peer(rig: Rig, make_client: MakeClient) -> None:
    answered = threading.Event()

    def look(host: str) -> list[str]:
        if host == "mute.example":
            answered.wait(20)
            raise OSError("no name server answers")
        return [rig.sites[-1].address().endpoint.removeprefix("tcp://").rpartition(":")[0]]

    client = make_client(look)
    server, port = listening(rig, client)
    mute = [dial(client, server, f"tcp://mute.example:{port}") for _ in range(8)]
    dial(client, server, f"tcp://par.example:{port}")
    rig.wait_count(client.answers, 1)
    assert "mute.example is looked up, and no name server answers" in mute[0].trouble
    assert sum(thread.name == "resolve mute.example" for thread in threading.enumerate()) == 1
    mute[1].close()
    answered.set()


def test_c37_a_peer_whose_name_has_only_an_aaaa_record_is_reached(rig: Rig, make_client: MakeClient) -> None:
    client = make_client(lambda host: {"six.example": ["::1"]}[host])
    server, port = listening(rig, client, "tcp://[::1]:*")
    link = dial(client, server, f"tcp://six.example:{port}")
    rig.wait_count(client.answers, 1)
    assert link.connected
    link.close()
    # One that has both, of which nothing listens at the first.
    both = make_client(lambda _: ["127.0.0.1", "::1"])
    server.transport.allow({"client": both.keys[0]})
    dial(both, server, f"tcp://both.example:{port}")
    rig.wait_count(both.answers, 1)


def test_who_listens_at_every_address_is_reached_by_both_families(rig: Rig, make_client: MakeClient) -> None:
    client = make_client(lambda host: {"four.example": ["127.0.0.1"], "six.example": ["::1"]}[host])
    server, port = listening(rig, client, "tcp://*:*")
    for number, name in enumerate(("four", "six"), 1):
        dial(client, server, f"tcp://{name}.example:{port}")
        rig.wait_count(client.answers, number)


def test_a_name_is_looked_up_again_and_an_old_answer_serves_while_none_comes(
    rig: Rig, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "FRESH_S", -1.0)
    asked: list[str] = []

    def look(host: str) -> list[str]:
        asked.append(host)
        if len(asked) > 1:
            raise OSError("the name server is gone")
        return [rig.sites[-1].address().endpoint.removeprefix("tcp://").rpartition(":")[0]]

    client = make_client(look)
    server, port = listening(rig, client)
    for number in (1, 2):
        dial(client, server, f"tcp://par.example:{port}").send(b"again")
        rig.wait_count(client.answers, 2 * number)
    assert asked == ["par.example"] * 2


@pytest.mark.parametrize("name", ["nowhere.example", "x" * 64 + ".example"])
def test_a_name_that_has_no_address_says_so(rig: Rig, make_client: MakeClient, name: str) -> None:
    def look(host: str) -> list[str]:
        host.encode("idna")
        raise OSError("unknown")

    client = make_client(look)
    server, port = listening(rig, client)
    link = dial(client, server, f"tcp://{name}:{port}")
    rig.wait(lambda: "cannot be looked up" in link.trouble)
