"""Sessions that share connections, over ZeroMQ and the simulator's network: each hears its own, in order."""

from __future__ import annotations

import pytest

from engine.peering.link_pool import LinkPool
from engine.ports.disk import Buffer
from engine.ports.transport import Caller, Link
from protocol.messages import Ack, Reset, decode_message, session_of
from tests.contract.transport_rig import Rig, Site

# More than any pool has connections; of two, each is shared.
SESSIONS = 40


class Ends:
    """A site that answers every message with the same, and one whose sessions share connections to it."""

    def __init__(self, rig: Rig, links: int) -> None:
        self.rig = rig
        self.server, self.client = rig.site("server"), rig.site("client")
        self.server.transport.allow({"client": self.client.keys[0]})
        self.callers: list[Caller] = []
        self.heard: dict[int, list[Buffer | None]] = {}  # by session, here and below
        self.answers: dict[int, list[tuple[bytes, Buffer | None]]] = {}
        self.server.transport.listen(rig.driver.watch(self._on_message))
        self.pool = LinkPool(self.client.transport, links)

    def _on_message(self, caller: Caller, header: bytes, payload: Buffer | None) -> None:
        if caller not in self.callers:
            self.callers.append(caller)
        self.heard.setdefault(session_of(header), []).append(payload)
        caller.send(header, payload)

    def dial(self, session: int, server: Site | None = None) -> Link:
        """A session's link. One that is told to raise does."""

        def on_message(header: bytes, payload: Buffer | None) -> None:
            if payload == b"raise":
                raise RuntimeError("a defect")
            self.answers.setdefault(session, []).append((header, payload))

        address = (server or self.server).address()
        return self.pool.dial(address, session, self.rig.driver.watch(on_message))

    def answered(self, session: int) -> list[Buffer | None]:
        return [payload for _, payload in self.answers.get(session, [])]


def said(session: int) -> bytes:
    return Ack(session=session, timeline=1, written=2, durable=3).encode()


@pytest.mark.parametrize("links", [1, 2, 16])
def test_each_session_hears_its_own_in_order(rig: Rig, links: int) -> None:
    ends = Ends(rig, links)
    dialled = {session: ends.dial(session) for session in range(1, SESSIONS + 1)}
    for turn in range(20):
        for session, link in dialled.items():
            link.send(said(session), b"%d" % turn)
    expected = [b"%d" % turn for turn in range(20)]
    rig.wait(lambda: sum(map(len, ends.answers.values())) == 20 * SESSIONS)
    assert all(ends.heard[session] == expected == ends.answered(session) for session in dialled)
    assert len(ends.callers) == links
    assert all(link.connected and not link.ended for link in dialled.values())


def test_who_closes_hears_nothing_more_and_the_others_go_on(rig: Rig) -> None:
    ends = Ends(rig, 1)
    one, other = ends.dial(1), ends.dial(2)
    for session, link in ((1, one), (2, other)):
        link.send(said(session), b"before")
    rig.wait(lambda: len(ends.answers) == 2)
    one.close()
    one.close()
    assert one.ended
    assert not one.connected
    one.send(said(1), b"after")
    ends.callers[0].send(said(1), b"late")
    other.send(said(2), b"after")
    rig.wait(lambda: len(ends.answers[2]) == 2)
    assert ends.heard == {1: [b"before"], 2: [b"before", b"after"]}
    assert ends.answered(1) == [b"before"]
    other.close()
    # Nobody uses it any more: the next session makes another.
    ends.dial(3).send(said(3))
    rig.wait(lambda: 3 in ends.answers)
    assert len(ends.callers) == 2


def test_what_a_session_says_before_the_connection_is_made_waits_and_goes_with_it(rig: Rig) -> None:
    ends = Ends(rig, 1)
    links = {session: ends.dial(session) for session in (1, 2, 3)}
    for session, link in links.items():
        link.send(said(session), b"hello")
    links[2].close()
    rig.wait(lambda: len(ends.answers) == 2)
    assert ends.heard == {1: [b"hello"], 3: [b"hello"]}


def test_who_opened_it_may_leave_before_it_is_made(rig: Rig) -> None:
    ends = Ends(rig, 1)
    first, second, third = (ends.dial(session) for session in (1, 2, 3))
    second.send(said(2), b"hello")
    first.close()
    third.send(said(3), b"hello")
    second.send(said(2), b"again")
    rig.wait(lambda: len(ends.heard.get(2, [])) == 2 and 3 in ends.heard)
    assert ends.heard[2] == [b"hello", b"again"]


def test_a_lost_connection_is_lost_for_all_and_the_next_session_makes_another(rig: Rig) -> None:
    ends = Ends(rig, 1)
    links = [ends.dial(session) for session in (1, 2)]
    for session, link in zip((1, 2), links, strict=True):
        link.send(said(session))
    rig.wait(lambda: len(ends.answers) == 2)
    ends.server.transport.close()
    rig.wait(lambda: all(link.ended for link in links))
    again = rig.site("server", ends.server.address().endpoint, ends.server.keys)
    again.transport.allow({"client": ends.client.keys[0]})
    again.transport.listen(rig.driver.watch(ends._on_message))
    ends.dial(3, again).send(said(3))
    rig.wait(lambda: 3 in ends.answers)
    assert all(link.ended for link in links)


def test_a_defect_is_one_sessions_and_noise_is_everybodys(rig: Rig) -> None:
    ends = Ends(rig, 1)
    links = {session: ends.dial(session) for session in (1, 2, 3)}
    for session, link in links.items():
        link.send(said(session))
    rig.wait(lambda: len(ends.answers) == 3)
    ends.callers[0].send(said(2), b"raise")
    ends.callers[0].send(Reset(session=1, reason="x").encode(), b"payload")
    rig.wait(lambda: len(ends.answers[1]) == 2)
    assert (links[1].ended, links[2].ended, links[3].ended) == (False, True, False)
    assert isinstance(decode_message(ends.answers[1][1][0]), Reset)
    ends.callers[0].send(b"\xc1 is no message")
    rig.wait(lambda: len(ends.answers[3]) == 2)
    assert ends.answers[1][2] == ends.answers[3][1] == (b"\xc1 is no message", None)
    assert len(ends.answers[2]) == 1
