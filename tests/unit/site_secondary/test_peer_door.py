"""The peers' door: which group a message is for, and which peer may ship it here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from engine.group import Group
from engine.site_state import GroupRow, Role
from protocol.frames import Frame
from protocol.messages import FrameMessage, Hello, Message, Refused, Welcome, decode_message
from site_secondary.peer_door import PeerDoor
from site_secondary.receiver import Receiver
from tests.unit.engine.group_rig import GROUP_ID, GroupRig

MakeRig = Callable[..., GroupRig]


@dataclass
class Connection:
    """A peer's connection: who it is, and what it was told."""

    peer: str
    told: list[Message] = field(default_factory=list)

    def send(self, header: bytes, payload: object = None) -> None:
        self.told.append(decode_message(header))

    def last(self) -> Message:
        return self.told[-1]


class Holder:
    """A site with room for the one group `g`."""

    def __init__(self, rig: GroupRig) -> None:
        self.rig = rig
        self.receivers: dict[str, Receiver] = {}
        self.created: list[tuple[str, str, Role]] = []
        self.refusal: Exception | None = None
        self.superseded_by: list[str] = []

    def make_receiver(self, group: Group, peer: str) -> Receiver:
        receiver = self.receivers[group.name] = Receiver(group, peer)
        return receiver

    def superseded(self, group: Group, by: str, generation: int = 0) -> None:
        self.superseded_by.append(by)

    def has_group(self, name: str) -> bool:
        return bool(self.created)

    def group(self, name: str) -> Group:
        return self.rig.group

    def create_group(self, name: str, group_id: str, role: Role) -> Group:
        if self.refusal is not None:
            raise self.refusal
        self.created.append((name, group_id, role))
        row = GroupRow(name=name, group_id=group_id, role=role, head=0, created_utc_ns=1)
        self.rig.group.state.put_group(row)
        return self.rig.group


class Door:
    """The door of a site that has no group yet."""

    def __init__(self, rig: GroupRig) -> None:
        self.rig = rig
        self.holder = Holder(rig)
        self.state = rig.group.state
        self.events: list[str] = []
        self.sessions = 0
        self.door = PeerDoor(
            self.holder, self.state, lambda kind, **_: self.events.append(kind), self._on_session
        )

    def _on_session(self) -> None:
        self.sessions += 1

    def knock(self, peer: Connection, session: int, group_id: str = GROUP_ID) -> Message:
        hello = Hello(session=session, group="g", group_id=group_id, site="s", lineage=(), written=0)
        self.door.on_message(peer, hello.encode(), None)
        return peer.last()


@pytest.fixture
def door(rig: GroupRig) -> Door:
    return Door(rig)


def test_the_first_hello_makes_the_group_as_a_secondary(door: Door) -> None:
    assert isinstance(door.knock(Connection("lon"), 1), Welcome)
    assert door.holder.created == [("g", GROUP_ID, Role.SECONDARY)]
    pair = door.state.pair("g")
    assert pair is not None
    assert pair.peer == "lon"
    assert door.sessions == 1


def test_a_second_hello_of_the_same_peer_finds_it(door: Door) -> None:
    peer = Connection("lon")
    door.knock(peer, 1)
    assert isinstance(door.knock(peer, 2), Welcome)
    assert len(door.holder.created) == 1
    assert len(door.holder.receivers) == 1


def test_another_peer_may_not_ship_a_group_of_this_pair(door: Door) -> None:
    door.knock(Connection("lon"), 1)
    answer = door.knock(Connection("rom"), 2)
    assert isinstance(answer, Refused)
    assert answer.code == "not-allowed"


def test_another_group_of_the_same_name_is_refused(door: Door) -> None:
    door.knock(Connection("lon"), 1)
    answer = door.knock(Connection("lon"), 2, group_id="f" * 16)
    assert isinstance(answer, Refused)
    assert "same name" in answer.message


def test_a_group_that_is_written_here_is_refused(door: Door) -> None:
    door.knock(Connection("lon"), 1)
    door.state.put_group(GroupRow(name="g", group_id=GROUP_ID, role=Role.PRIMARY, head=0, created_utc_ns=1))
    answer = door.knock(Connection("lon"), 2)
    assert isinstance(answer, Refused)
    assert "written at this site" in answer.message


def test_a_disk_that_cannot_take_the_group_refuses_and_may_be_asked_again(door: Door) -> None:
    door.holder.refusal = OSError(28, "no space left")
    answer = door.knock(Connection("lon"), 1)
    assert isinstance(answer, Refused)
    assert "no space left" in answer.message
    door.holder.refusal = None
    assert isinstance(door.knock(Connection("lon"), 2), Welcome)


def test_messages_find_their_receiver_by_peer_and_session(door: Door, make_rig: MakeRig) -> None:
    """Another peer that guesses the session's number, or an older session, reaches nobody."""
    one = make_rig("writer")
    frames: list[Frame] = []
    one.group.listeners.frame.append(frames.append)
    one.create("root", 4)
    peer = Connection("lon")
    door.knock(peer, 1)
    door.knock(peer, 2)
    payload = b"".join(bytes(frame.raw) for frame in frames)
    for caller, session in ((Connection("rom"), 2), (peer, 1), (peer, 3)):
        door.door.on_message(caller, FrameMessage(session=session).encode(), payload)
        assert door.holder.rig.end.position == 0
    door.door.on_message(peer, FrameMessage(session=2).encode(), payload)
    assert door.holder.rig.end == one.end


def test_noise_is_logged_and_dropped(door: Door) -> None:
    door.door.on_message(Connection("lon"), b"\xc1", None)
    assert door.events == ["peer.bad_message"]
