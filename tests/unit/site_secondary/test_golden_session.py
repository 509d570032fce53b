"""A session of two real sites of commit 0fa55f3: the same questions get the same answers.

Acknowledgements are cumulative and come when the loop turns, so their number may differ: what the last one
says may not, nor that each of them said what the primary then knew to be true.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protocol.messages import Ack, FrameMessage, Hello, Welcome, decode_message
from protocol.peer_requests import Held, PeerRequest
from tests.golden.sites import session_messages
from tests.unit.engine.group_rig import GroupRig
from tests.unit.site_secondary.test_peer_door import Door

MakeRig = Callable[..., GroupRig]


class Caller:
    """The primary's connection: keeps the bytes that it is sent."""

    peer = "a"

    def __init__(self) -> None:
        self.told: list[bytes] = []

    def send(self, header: bytes, payload: object = None) -> None:
        self.told.append(header)


@pytest.fixture
def door(make_rig: MakeRig) -> Door:
    hello = decode_message(session_messages()[0][1])
    assert isinstance(hello, Hello)
    rig = make_rig("b", site="b")
    rig.group.name = hello.group
    return Door(rig)


def test_every_message_is_encoded_as_it_was() -> None:
    messages = session_messages()
    kinds = {type(decode_message(header)).__name__ for _, header, _ in messages}
    assert kinds == {"Hello", "Welcome", "FrameMessage", "Heartbeat", "Ack", "Hold", "Held", "Release"}
    for _, header, _ in messages:
        assert decode_message(header).encode() == header


def test_a_captured_session_is_answered_as_before(door: Door) -> None:
    messages = session_messages()
    caller, acks = Caller(), []
    for heard, header, payload in messages:
        if heard:
            door.door.on_message(caller, header, payload)
            door.rig.settle(0.5)
            continue
        message = decode_message(header)
        if isinstance(message, Welcome | Held):
            assert header in caller.told
        if isinstance(message, Ack):
            acks.append(header)
    assert len(acks) > 10
    assert acks[-1] == caller.told[-1]
    frames = [payload for heard, header, payload in messages if heard and len(payload or b"")]
    assert len(frames) > 5
    end = door.rig.end
    last = decode_message(acks[-1])
    assert isinstance(last, Ack)
    assert (last.timeline, last.written) == (end.timeline, end.position)
    assert sum(map(len, frames)) == end.position  # type: ignore[arg-type]
    assert [type(decode_message(each)) for each in caller.told].count(Welcome) == 1


def test_the_session_holds_what_it_is_meant_to() -> None:
    """A check of nothing would pass."""
    heard = [decode_message(header) for heard, header, _ in session_messages() if heard]
    assert any(isinstance(message, FrameMessage) for message in heard)
    assert any(isinstance(message, PeerRequest) for message in heard)
