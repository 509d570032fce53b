"""The peers' door: which group a message is for, and which peer may ship it here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from engine.group.group import Group
from engine.group.site_state import GroupRow, Role
from engine.peering.peer_pace import PeerPace
from engine.ports.clock import Clock
from engine.ports.transport import Caller
from protocol.errors import FarshoreError
from protocol.errors import Refused as NoRoom
from protocol.frames import Frame
from protocol.limits import (
    PEER_COMMIT_S,
    PEER_PAIRS_MAX,
    PEER_REQUESTS_WAITING_MAX,
    PEER_TIME_BURST_S,
    PEER_TIME_SHARE,
    PEER_UNREAD_BYTES_MAX,
)
from protocol.messages import (
    Ack,
    Fetch,
    Fetched,
    FrameMessage,
    Heartbeat,
    Hello,
    Message,
    Refused,
    Welcome,
    decode_message,
)
from protocol.peer_requests import Held, NoAnswer, Release
from site_secondary.peer_door import PeerDoor
from site_secondary.receiver import Receiver
from site_secondary.waiting_calls import WaitingCalls
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


def hello_for(group: str, session: int) -> Hello:
    return Hello(session=session, group=group, group_id=GROUP_ID, site="s", lineage=(), written=0)


class Holder:
    """A site with room for the one group `g`."""

    def __init__(self, rig: GroupRig) -> None:
        self.rig = rig
        self.receivers: dict[str, Receiver] = {}
        self.created: list[tuple[str, str, Role]] = []
        self.refusal: Exception | None = None
        self.full: FarshoreError | None = None
        self.superseded_by: list[str] = []

    @property
    def clock(self) -> Clock:
        return self.rig.group.clock

    def make_receiver(self, group: Group, peer: str) -> Receiver:
        receiver = self.receivers[group.name] = Receiver(group, peer)
        return receiver

    def superseded(self, group: Group, by: str, generation: int = 0) -> None:
        self.superseded_by.append(by)

    def has_group(self, name: str) -> bool:
        return bool(self.created)

    def group(self, name: str) -> Group:
        return self.rig.group

    def check_room(self, name: str, peer: str = "") -> None:
        if self.full is not None:
            raise self.full

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


def beat(door: Door, peer: Connection, session: int) -> Message | None:
    """Half a second passes and a session says that it lives; what the door says to that."""
    door.rig.world.run_for(0.5)
    before = len(peer.told)
    message = Heartbeat(
        session=session, timeline=0, written=0, utc_ns=1, state="paired", mode="async", horizon=0
    )
    door.door.on_message(peer, message.encode(), None)
    refused = [each for each in peer.told[before:] if isinstance(each, Refused)]
    return refused[0] if refused else None


def test_of_two_daemons_with_one_key_one_is_refused_c38(door: Door) -> None:
    one, other = Connection("lon"), Connection("lon")
    door.knock(one, 1)
    assert beat(door, one, 1) is None
    door.knock(other, 2)  # so far it may be the same one, by a new connection
    for _ in range(2):
        assert beat(door, other, 2) is None
        assert beat(door, one, 1) is None
    assert beat(door, other, 2) is None
    refused = beat(door, one, 1)
    assert isinstance(refused, Refused)
    assert refused.code == "not-allowed"
    assert door.events.count("peer.two_daemons") == 1
    # They do not take the session from each other, for as long as both call.
    for session in range(3, 20):
        assert beat(door, other, 2) is None
        assert isinstance(door.knock(one, session), Refused)
    # Once the one in session is silent, the other one may come.
    door.rig.world.run_for(4.0)
    assert isinstance(door.knock(one, 20), Welcome)


def test_what_was_under_way_of_a_closed_connection_is_no_second_daemon(door: Door) -> None:
    peer = Connection("lon")
    door.knock(peer, 1)
    door.knock(peer, 2)
    message = Heartbeat(session=1, timeline=0, written=0, utc_ns=1, state="paired", mode="async", horizon=0)
    door.rig.world.run_for(2.0)
    for _ in range(8):  # of a link that was dead for as long: all at once
        door.door.on_message(peer, message.encode(), None)
    door.rig.world.run_for(2.0)
    door.door.on_message(peer, message.encode(), None)
    assert "peer.two_daemons" not in door.events
    assert isinstance(door.knock(peer, 3), Welcome)


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
    assert door.state.pair("g") is None, "a name that is free belongs to nobody"
    door.holder.refusal = None
    assert isinstance(door.knock(Connection("lon"), 2), Welcome)


def test_a_site_without_room_refuses_before_anything_is_stored(door: Door) -> None:
    door.holder.full = NoRoom("a peer makes at most 112 groups", subject="g")
    answer = door.knock(Connection("lon"), 1)
    assert isinstance(answer, Refused)
    assert (answer.code, answer.message) == ("refused", "a peer makes at most 112 groups")
    assert door.holder.created == []
    assert door.state.pair("g") is None


def test_who_took_its_share_of_time_waits_and_others_do_not(door: Door) -> None:
    """Leases are commits: hosts of every group wait for each in the same loop."""
    peer = Connection("lon")
    door.knock(peer, 1)
    asked = int(PEER_TIME_BURST_S / PEER_COMMIT_S) + PEER_REQUESTS_WAITING_MAX + 10
    before = len(peer.told)
    for number in range(asked):
        release = Release(session=number + 1, group="g", group_id=GROUP_ID, name="same")
        door.door.on_message(peer, release.encode(), None)
    told = peer.told[before:]
    assert len([each for each in told if isinstance(each, Held)]) <= PEER_TIME_BURST_S / PEER_COMMIT_S + 1
    assert {each.code for each in told if isinstance(each, NoAnswer)} == {"busy"}
    # What it calls for waits too, and comes to its turn.
    assert not isinstance(door.knock(peer, 2), Welcome)
    other = Connection("rom")
    assert isinstance(door.knock(other, 1), Refused)
    door.rig.world.run_for(PEER_REQUESTS_WAITING_MAX * PEER_COMMIT_S / PEER_TIME_SHARE + 2.0)
    answers = [each for each in peer.told[before:] if isinstance(each, Held | NoAnswer)]
    assert len(answers) == asked
    assert [each.session for each in peer.told[before:] if isinstance(each, Welcome)] == [2]


def test_more_calls_than_it_has_groups_are_refused(door: Door) -> None:
    peer = Connection("lon")
    door.door._pace.spend("lon", door.holder.clock.monotonic(), 1.0)
    for number in range(PEER_PAIRS_MAX):
        door.door.on_message(peer, hello_for(f"g{number}", number + 1).encode(), None)
    assert peer.told == []
    answer = door.knock(peer, PEER_PAIRS_MAX + 1)
    assert isinstance(answer, Refused)
    assert answer.code == "busy"


def test_each_group_has_its_turn_before_any_has_two(rig: GroupRig) -> None:
    """However often some repeat their calls: what was repeated is what they wait for."""
    clock = rig.group.clock
    pace = PeerPace()
    taken: list[tuple[str, int]] = []
    held = [0]

    def unread(peer: str) -> int:
        return held[0]

    def take(caller: Caller, call: Hello | Fetch) -> None:
        taken.append((call.group if isinstance(call, Hello) else "", call.session))
        pace.spend("lon", clock.monotonic(), 0.1)
        for group in ("busy", "busier"):
            assert waiting.add(peer, hello_for(group, len(taken) + 1000))

    waiting = WaitingCalls(pace, clock, take, unread)
    peer = Connection("lon")
    pace.spend("lon", clock.monotonic(), 1.0)
    assert waiting.must_wait("lon", hello_for("calm", 1))
    for session in range(1, 4 * PEER_PAIRS_MAX):
        assert waiting.add(peer, hello_for("busy", session))
        assert waiting.add(peer, hello_for("busier", session))
    assert waiting.add(peer, hello_for("calm", 1))
    assert waiting.add(peer, Fetch(session=7, timeline=1, position=2))
    rig.world.run_for(10.0)
    assert [name for name, _ in taken[:6]] == ["busy", "busier", "calm", "", "busy", "busier"]
    assert [session for _, session in taken[:4]] == [4 * PEER_PAIRS_MAX - 1, 1001, 1, 7]
    assert [name for name, _ in taken].count("calm") == 1
    # More is not fetched while a peer has not read what it was sent; it hears that this site lives.
    held[0] = PEER_UNREAD_BYTES_MAX
    assert waiting.add(peer, Fetch(session=8, timeline=1, position=2))
    assert waiting.add(peer, hello_for("late", 1))
    told = len(peer.told)
    rig.world.run_for(10.5)
    assert ("late", 1) in taken
    assert ("", 8) not in taken
    assert peer.told[told:] == 10 * [Ack(session=8, timeline=0, written=0, durable=0)]
    held[0] = 0
    rig.world.run_for(10.0)
    assert ("", 8) in taken


def test_who_has_questions_under_way_for_ever_is_let_in(door: Door) -> None:
    """A restore by what differs, say; then the link of another group was lost."""
    peer = Connection("lon")
    door.knock(peer, 1)
    release = Release(session=9, group="g", group_id=GROUP_ID, name="same")
    for _ in range(PEER_REQUESTS_WAITING_MAX):
        door.door.on_message(peer, release.encode(), None)
    seen = len(peer.told)
    assert not isinstance(door.knock(peer, 2), Welcome)
    for _ in range(100):
        door.rig.world.run_for(0.05)
        answers = [each for each in peer.told[seen:] if isinstance(each, Held)]
        seen = len(peer.told)
        for _ in answers:
            door.door.on_message(peer, release.encode(), None)
    assert [each.session for each in peer.told if isinstance(each, Welcome)] == [1, 2]


def test_what_waits_is_what_its_session_awaits(door: Door) -> None:
    """A HELLO that was repeated too late begins nothing anew; one of a new session ends what was fetched."""
    pace, clock, peer = door.door._pace, door.holder.clock, Connection("lon")
    door.knock(peer, 1)
    receiver = door.holder.receivers["g"]
    pace.spend("lon", clock.monotonic(), 1.0)
    door.door.on_message(peer, hello_for("g", 1).encode(), None)
    door.rig.world.run_for(10.0)
    assert [each.session for each in peer.told if isinstance(each, Welcome)] == [1]
    pace.spend("lon", clock.monotonic(), 1.0)
    door.door.on_message(peer, Fetch(session=1, timeline=0, position=0).encode(), None)
    door.door.on_message(peer, hello_for("g", 2).encode(), None)
    door.rig.world.run_for(10.0)
    assert [each.session for each in peer.told if isinstance(each, Welcome)] == [1, 2]
    assert not [each for each in peer.told if isinstance(each, Fetched)]
    assert door.holder.receivers["g"] is receiver


def test_a_site_that_stops_takes_nobody_who_waits(door: Door) -> None:
    door.door._pace.spend("lon", door.holder.clock.monotonic(), 1.0)
    door.door.on_message(Connection("lon"), hello_for("g", 1).encode(), None)
    door.door.close()
    door.rig.world.run_for(10.0)
    assert door.holder.created == []


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
