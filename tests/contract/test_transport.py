"""What shipping counts on in a transport, held by ZeroMQ with real keys and by the simulator's network.

Nothing can be waited for that must not happen. Where a message must not arrive, a test waits for a later one,
sent by a way that works, and looks then.
"""

from __future__ import annotations

import pytest

from engine.ports.disk import Buffer
from engine.ports.transport import Link
from engine.ports.zmq_transport import generate_keypair
from protocol.errors import Busy, UsageError
from tests.contract.transport_rig import MESSAGE_BYTES_MAX, Rig


def test_a_message_and_its_answer(rig: Rig) -> None:
    server, client = rig.pair(echo=True)
    link = client.dial(server.address())
    link.send(b"header", b"payload")
    link.send(b"only a header")
    link.send(b"empty payload", b"")
    rig.wait_count(client.answers, 3)
    assert server.heard == [
        ("client", b"header", b"payload"),
        ("client", b"only a header", None),
        ("client", b"empty payload", b""),
    ]
    assert client.answers == [
        (b"re:header", b"payload"),
        (b"re:only a header", None),
        (b"re:empty payload", b""),
    ]
    assert bytes(server.heard[0][2] or b"") == b"payload"  # what was heard may be kept


@pytest.mark.parametrize("size_bytes", [1, 4096, 65535, 65536, 4 << 20, MESSAGE_BYTES_MAX])
def test_payloads_of_every_size_arrive_whole(rig: Rig, size_bytes: int) -> None:
    server, client = rig.pair(echo=True)
    payload = bytes(range(256)) * (size_bytes // 256) + bytes(size_bytes % 256)
    link = client.dial(server.address())
    link.send(b"bytes", payload)
    link.send(b"view", memoryview(bytearray(payload)))
    rig.wait_count(client.answers, 2)
    assert client.answers == [(b"re:bytes", payload), (b"re:view", payload)]


def test_order_is_kept_both_ways(rig: Rig) -> None:
    server, client = rig.pair(echo=True)
    link = client.dial(server.address())
    expected = []
    for number in range(3000):
        payload = bytes(number % 7) * 11000 if number % 3 else None
        link.send(b"%d" % number, payload)
        expected.append((b"re:%d" % number, payload))
    rig.wait_count(client.answers, 3000)
    assert client.answers == expected


def test_a_caller_may_be_answered_later(rig: Rig) -> None:
    server, client = rig.pair()
    client.dial(server.address()).send(b"question")
    rig.wait_count(server.heard, 1)
    for number in range(10):
        server.callers[0].send(b"%d" % number)
    rig.wait_count(client.answers, 10)
    assert [header for header, _ in client.answers] == [b"%d" % number for number in range(10)]


def test_several_peers_are_told_apart(rig: Rig) -> None:
    server, one, other = rig.site("server"), rig.site("one"), rig.site("other")
    server.transport.allow({"one": one.keys[0], "other": other.keys[0]})
    server.listen(echo=True)
    one.dial(server.address()).send(b"1")
    other.dial(server.address()).send(b"2")
    one.dial(server.address()).send(b"3")
    rig.wait(lambda: len(one.answers) == 2 and len(other.answers) == 1)
    assert sorted(server.heard) == [("one", b"1", None), ("one", b"3", None), ("other", b"2", None)]
    assert other.answers == [(b"re:2", None)]


def test_dialling_before_the_peer_listens(rig: Rig) -> None:
    server, client, probe = rig.site("server"), rig.site("client"), rig.site("probe")
    server.listen()
    address = server.address()
    server.transport.close()
    link = client.dial(address)
    link.send(b"early")
    # The link has had a try that failed once another of the same kind has had the time for a round trip.
    probe.transport.allow({"client": client.keys[0]})
    probe.listen(echo=True)
    client.dial(probe.address()).send(b"probe")
    rig.wait(lambda: client.answers == [(b"re:probe", None)])
    again = rig.site("server", address.endpoint, server.keys)
    again.transport.allow({"client": client.keys[0]})
    again.listen()
    link.send(b"later")
    rig.wait_count(again.heard, 2)
    assert again.headers() == [b"early", b"later"]


def test_a_wrong_server_key_is_refused(rig: Rig) -> None:
    server, client = rig.pair(echo=True)
    impostor_key = generate_keypair()[0]
    client.dial(server.address(impostor_key)).send(b"secret")
    good = client.dial(server.address())
    for number in range(3):
        good.send(b"%d" % number)
        rig.wait_count(client.answers, number + 1)
    assert server.headers() == [b"0", b"1", b"2"]


def test_who_is_not_allowed_gets_nothing_through_until_allowed(rig: Rig) -> None:
    server, client = rig.pair(echo=True)
    stranger = rig.site("stranger")
    stranger_link = stranger.dial(server.address())
    stranger_link.send(b"from a stranger")
    link = client.dial(server.address())
    for number in range(3):
        link.send(b"%d" % number)
        rig.wait_count(client.answers, number + 1)
    assert {peer for peer, _, _ in server.heard} == {"client"}
    server.transport.allow({"client": client.keys[0], "friend": stranger.keys[0]})
    rig.wait(lambda: bool(stranger.answers))
    assert server.heard[-1] == ("friend", b"from a stranger", None)


def test_with_nobody_allowed_nobody_is(rig: Rig) -> None:
    server, client, other = rig.site("server"), rig.site("client"), rig.site("other")
    server.listen(echo=True)
    client.dial(server.address()).send(b"x")
    other.transport.allow({"client": client.keys[0]})
    other.listen(echo=True)
    client.dial(other.address()).send(b"y")
    rig.wait(lambda: client.answers == [(b"re:y", None)])
    assert server.heard == []


def test_who_is_no_longer_allowed_is_cut_off(rig: Rig) -> None:
    server, client = rig.pair(echo=True)
    other = rig.site("other")
    link = client.dial(server.address())
    link.send(b"before")
    rig.wait_count(client.answers, 1)
    server.transport.allow({"other": other.keys[0]})
    link.send(b"after")
    server.callers[0].send(b"news")
    other_link = other.dial(server.address())
    for number in range(3):
        other_link.send(b"%d" % number)
        rig.wait_count(other.answers, number + 1)
    assert server.headers() == [b"before", b"0", b"1", b"2"]
    assert client.answers == [(b"re:before", None)]


def test_a_link_is_one_connection(rig: Rig) -> None:
    """After the peer's restart the old link stays silent: what it would deliver would follow a gap."""
    server, client = rig.pair(echo=True)
    old = client.dial(server.address())
    old.send(b"before")
    rig.wait_count(client.answers, 1)
    address = server.address()
    server.transport.close()
    again = rig.site("server", address.endpoint, server.keys)
    again.transport.allow({"client": client.keys[0]})
    again.listen(echo=True)
    old.send(b"lost")
    new = client.dial(address)
    for number in range(3):
        new.send(b"%d" % number)
        rig.wait_count(client.answers, number + 2)
        old.send(b"lost too")
    assert again.headers() == [b"0", b"1", b"2"]


def test_a_link_says_whether_it_is_connected(rig: Rig) -> None:
    server, client = rig.pair(echo=True)
    link = client.dial(server.address())
    assert not link.connected
    link.send(b"1")
    rig.wait_count(client.answers, 1)
    assert link.connected
    link.close()
    assert not link.connected


def test_a_closed_link_is_silent(rig: Rig) -> None:
    server, client = rig.pair(echo=True)
    link = client.dial(server.address())
    link.send(b"1")
    rig.wait_count(client.answers, 1)
    link.close()
    link.close()
    link.send(b"2")
    server.callers[0].send(b"to nobody")
    other = client.dial(server.address())
    other.send(b"3")
    rig.wait_count(client.answers, 2)
    assert server.headers() == [b"1", b"3"]
    assert client.answers == [(b"re:1", None), (b"re:3", None)]


def test_a_link_may_be_closed_in_its_own_callback(rig: Rig) -> None:
    server, client = rig.pair(echo=True)
    links: list[Link] = []
    got: list[bytes] = []

    def on_message(header: bytes, payload: Buffer | None) -> None:
        got.append(header)
        links[0].close()

    links.append(client.transport.dial(server.address(), rig.driver.watch(on_message)))
    for number in range(100):
        links[0].send(b"%d" % number)
    rig.wait(lambda: bool(got))
    client.dial(server.address()).send(b"x")
    rig.wait(lambda: bool(client.answers))
    assert got == [b"re:0"]


def test_a_message_too_large_ends_the_connection(rig: Rig) -> None:
    server, client = rig.pair(echo=True)
    link = client.dial(server.address())
    link.send(b"small")
    rig.wait_count(client.answers, 1)
    link.send(b"large", bytes(MESSAGE_BYTES_MAX + 4096))
    link.send(b"after")
    other = client.dial(server.address())
    for number in range(3):
        other.send(b"%d" % number)
        rig.wait_count(client.answers, number + 2)
    assert server.headers() == [b"small", b"0", b"1", b"2"]


def test_a_taken_endpoint_is_busy(rig: Rig) -> None:
    server, _ = rig.pair()
    second = rig.site("second", server.address().endpoint)
    with pytest.raises(Busy) as caught:
        second.listen()
    assert caught.value.subject == server.address().endpoint


def test_closing_is_final_and_may_be_repeated(rig: Rig) -> None:
    server, client = rig.pair()
    link = client.dial(server.address())
    link.send(b"x")
    rig.wait(lambda: bool(server.heard))
    client.transport.close()
    client.transport.close()
    link.close()
    server.transport.close()
    server.callers[0].send(b"to nobody")


def test_two_names_for_one_key_are_refused(rig: Rig) -> None:
    server = rig.site("server")
    key = generate_keypair()[0]
    with pytest.raises(UsageError):
        server.transport.allow({"one": key, "other": key})
