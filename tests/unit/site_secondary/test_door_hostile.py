"""The peers' door with a hostile peer behind it: whatever it sends, nothing but an answer comes of it.

The group behind the door has what makes questions hard: two timelines and a branch, a revert, a deleted
volume, a checkpoint, history that was truncated. An exception that leaves `on_message`, or any callback that
it leads to, is what stopped the daemon for every group (C6).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.group.group import Group
from engine.group.site_state import GroupRow, PairRow, Role
from engine.peering.pair_states import Mode, PairState
from engine.ports.clock import Clock
from protocol.base_messages import BaseBegin
from protocol.events import TRIM, ZERO, Revert, TimelineBegan, VolumeCreated, VolumeDeleted
from protocol.frames import encode_frame
from protocol.limits import BLOCK_BYTES, BLOCKS_MAX, GENERATION_MAX, LEASE_S_MAX, UTC_NS_MAX
from protocol.messages import (
    Ask,
    Fetch,
    FrameMessage,
    Heartbeat,
    Hello,
    MakeDurable,
    Message,
    Refused,
    Report,
    Welcome,
    decode_message,
)
from protocol.peer_requests import (
    Answer,
    Blocks,
    Changes,
    Find,
    Held,
    Hold,
    Journal,
    NoAnswer,
    Release,
)
from protocol.positions import POSITION_MAX, Cut
from protocol.rows import pack_row
from site_secondary.peer_door import PeerDoor
from site_secondary.receiver import Receiver
from tests.unit.engine.group_rig import GROUP_ID, GroupRig

MakeRig = Callable[..., GroupRig]
BLOCKS = 8
ABOUT: dict[str, Any] = {"session": 7, "group": "g", "group_id": GROUP_ID}


@dataclass
class Peer:
    """The peer's connection: what it was told."""

    peer: str = "lon"
    told: list[Message] = field(default_factory=list)

    def send(self, header: bytes, payload: object = None) -> None:
        self.told.append(decode_message(header))


class Site:
    """A secondary with one group, shared with `lon`, behind its door; no other may be made."""

    def __init__(self, rig: GroupRig) -> None:
        self.rig = rig
        self.group_ = rig.group
        self.receivers: dict[str, Receiver] = {}
        self.events: list[str] = []
        self.peer = Peer()
        state = rig.group.state
        row = GroupRow(
            name="g", group_id=GROUP_ID, role=Role.SECONDARY, head=rig.group.head.timeline, created_utc_ns=1
        )
        state.put_group(row)
        state.put_pair(PairRow(group="g", peer="lon", mode=Mode.ASYNC, state=PairState.PAIRED, reason=""))
        self.door = PeerDoor(self, state, lambda kind, **_: self.events.append(kind), lambda: None)

    @property
    def clock(self) -> Clock:
        return self.rig.group.clock

    def make_receiver(self, group: Group, peer: str) -> Receiver:
        receiver = self.receivers[group.name] = Receiver(group, peer)
        return receiver

    def superseded(self, group: Group, by: str, generation: int = 0) -> None:
        raise AssertionError("a secondary serves nobody")

    def has_group(self, name: str) -> bool:
        return name == "g"

    def group(self, name: str) -> Group:
        return self.group_

    def check_room(self, name: str, peer: str = "") -> None:
        pass

    def create_group(self, name: str, group_id: str, role: Role) -> Group:
        raise AssertionError(f"a group {name} was made")

    def say(self, header: bytes, payload: bytes | None = None) -> list[Message]:
        """One message of the peer; what it was told at once and in the second after."""
        self.door.on_message(self.peer, header, payload)
        self.rig.settle()
        told, self.peer.told = self.peer.told, []
        return told


def lived_in(rig: GroupRig) -> GroupRig:
    """A group with a past."""
    root = rig.create("root", BLOCKS)
    for number in range(3):
        rig.write(root, number, b"abc"[number : number + 1])
    before = rig.end
    gone = rig.create("gone", 2)
    rig.append([(ZERO, root, 0, 2), (TRIM, gone, 0, 1)])
    rig.group.append_records([VolumeDeleted(volume=gone)])
    rig.sync()
    rig.checkpoint()
    rig.group.append_records([Revert(volume=root, cut=before)])
    rig.write(root, 5, b"z")
    rig.reopen()
    rig.create("log", 4)
    rig.sync()
    return rig


@pytest.fixture
def site(make_rig: MakeRig) -> Site:
    return Site(lived_in(make_rig("one")))


def interesting(site: Site) -> tuple[list[int], list[int], list[int]]:
    """Timelines, positions and volume ids worth asking about."""
    group = site.group_
    frames = [
        frame.prefix
        for span in group.spans(group.writer.written)
        for frame in group.reader.frames(span.timeline, span.start, span.end, None)
    ]
    places = sorted({each.position for each in frames} | {each.end for each in frames})
    positions = sorted({at + step for at in places for step in (-1, 0, 1) if at + step >= 0})
    timelines = [each.id for each in group.timelines.all()]
    volumes = [volume.id for volume in group.volumes.at(group.spans()).values()]
    return [*timelines, 1, (1 << 64) - 1], [*positions, POSITION_MAX], [*volumes, 0, POSITION_MAX]


def good_questions(site: Site) -> list[Any]:
    """One of each kind; no frame is old enough for the time."""
    group = site.group_
    head, start = Cut(group.head.timeline, group.end.position), group.spans()[-1].start
    volume = next(iter(group.volumes.at(group.spans()).values())).id
    return [
        Hold(**ABOUT, name="restore", cut=head, for_s=1),
        Release(**ABOUT, name="nobody"),
        Find(**ABOUT, utc_ns=0),
        Blocks(**ABOUT, volume=volume, cut=head, blocks=(0,)),
        Changes(**ABOUT, volume=volume, before=head, after=head, first=0),
        Journal(**ABOUT, timeline=group.head.timeline, start=start, end=head.position),
        Ask(**ABOUT),
    ]


def test_every_question_gets_an_answer_c6(site: Site) -> None:
    """C6, for all values that decode and not only those of the report."""
    timelines, positions, volumes = map(st.sampled_from, interesting(site))
    cuts = st.builds(Cut, timelines, positions)
    blocks = st.sampled_from([0, 1, BLOCKS - 1, BLOCKS, BLOCKS + 1, 16_384, BLOCKS_MAX - 1])
    about = {key: st.just(value) for key, value in ABOUT.items()}
    names = st.text(min_size=1, max_size=75)
    requests = st.one_of(
        st.builds(Hold, **about, name=names, cut=cuts, for_s=st.sampled_from([1, LEASE_S_MAX])),
        st.builds(Release, **about, name=names),
        st.builds(Find, **about, utc_ns=st.integers(0, (1 << 63) - 1)),
        st.builds(Blocks, **about, volume=volumes, cut=cuts, blocks=st.lists(blocks, max_size=9).map(tuple)),
        st.builds(Changes, **about, volume=volumes, before=cuts, after=cuts, first=blocks),
        st.builds(Journal, **about, timeline=timelines, start=positions, end=positions),
        st.builds(Ask, **about),
    )
    answers: set[str] = set()

    def ask(request: Any) -> None:
        told = site.say(request.encode())
        (answer,) = [each for each in told if isinstance(each, Answer | Report)]
        assert answer.session == 7
        answers.add(type(answer).__name__)
        if isinstance(answer, Held):
            site.group_.kept.timed.release(f"asked by lon: {getattr(request, 'name', '')}")

    for request in good_questions(site):
        ask(request)
    assert answers == {"Held", "NoAnswer", "Changed", "BlockContents", "Frames", "Report"}
    settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])(
        given(requests)(ask)
    )()


BAD_QUESTIONS = {
    "HOLD of 800 bytes": (40, 7, 1, "g", GROUP_ID, "\U0001f600" * 200, 1, 197, 1000),
    "HOLD for ever": (40, 7, 1, "g", GROUP_ID, "a", 1, 197, 1 << 62),
    "CHANGES from block -1": (44, 7, 1, "g", GROUP_ID, 91, 1, 197, 1, 269, -1),
    "CHANGES of volume -1": (44, 7, 1, "g", GROUP_ID, -1, 1, 197, 1, 269, 0),
    "BLOCKS past every volume": (43, 7, 1, "g", GROUP_ID, 91, 1, 197, (1 << 62,)),
    "JOURNAL of timeline 0": (45, 7, 1, "g", GROUP_ID, 0, 0, 5),
    "FIND before all time": (42, 7, 1, "g", GROUP_ID, -5),
}


@pytest.mark.parametrize("name", BAD_QUESTIONS)
def test_a_question_with_bad_values_gets_an_error_c6(site: Site, name: str) -> None:
    (answer,) = site.say(pack_row(BAD_QUESTIONS[name]))
    assert isinstance(answer, NoAnswer)
    assert (answer.session, answer.code) == (7, "bad-message")
    assert site.events == ["peer.bad_message"]


@pytest.mark.parametrize("group", ["/any/dir", "../../../x", "vm1/.", "", "g\0"])
def test_a_hello_for_what_is_no_name_is_refused_before_anything_is_made_c4(site: Site, group: str) -> None:
    row = (1, 5, 1, group, GROUP_ID, "s" * 16, (), 0, False)
    (answer,) = site.say(pack_row(row))
    assert isinstance(answer, Refused)
    assert site.group_.state.pair(group or "x") is None


@pytest.mark.parametrize("generation", [(1 << 64) - 1, GENERATION_MAX + 1, GENERATION_MAX, 1 << 40])
def test_a_hello_that_nobody_could_outrank_is_refused_and_forgotten_c5(site: Site, generation: int) -> None:
    """C5: stored, it made the takeover fail after the role was changed, and every start after that."""
    head = site.group_.head.timeline
    row = (1, 5, 1, "g", GROUP_ID, "lon", ((head, 0, 0, generation, "lon"),), 0, False)
    (answer,) = site.say(pack_row(row))
    assert isinstance(answer, Refused)
    assert answer.code == "bad-message"
    assert site.group_.state.heard("g") == 0


def in_session(site: Site, session: int = 9) -> None:
    group = site.group_
    head = group.timelines.get(group.head.timeline)
    lineage = ((head.id, head.parent, head.fork, head.generation, head.writer),)
    hello = Hello(session=session, group="g", group_id=GROUP_ID, site="lon", lineage=lineage, written=0)
    assert any(isinstance(each, Welcome) for each in site.say(hello.encode()))


def crafted(
    site: Site, rows: list[Any], timeline: int, position: int | None, utc_ns: int
) -> tuple[bytes, bytes]:
    """A message of one frame with right checksums: where the journal ends here, or elsewhere. The time is put
    in by hand, as no frame of ours has such a one."""
    group = site.group_
    frame = encode_frame(
        timeline=timeline if position is not None else group.head.timeline,
        position=group.writer.written if position is None else position,
        utc_ns=min(utc_ns or group.head.utc_ns, UTC_NS_MAX),
        durable=0,
        previous_digest=group.head.digest,
        rows=rows,
        payload=(),
        payload_bytes=0,
    )
    raw = bytearray(frame.raw)
    if utc_ns > UTC_NS_MAX:
        raw[32:40] = utc_ns.to_bytes(8, "big")
    return FrameMessage(session=9).encode(), bytes(raw)


def frame_messages(site: Site) -> st.SearchStrategy[tuple[bytes, bytes]]:
    timelines, positions, volumes = interesting(site)
    numbers = st.sampled_from([*positions, *volumes, *timelines, -1, 0, 1, BLOCKS, BLOCKS_MAX, 1 << 63])
    fields = st.one_of(numbers, st.sampled_from(["root", "../x", "", "lon"]), st.booleans(), st.just(()))
    records = st.tuples(st.integers(16, 29), st.lists(fields, max_size=8)).map(
        lambda each: (each[0], *each[1])
    )
    data = st.tuples(st.integers(0, 4), numbers, numbers, numbers)
    began = TimelineBegan(parent=timelines[0], fork=0, generation=1, writer="lon", group="g", sealed=False)
    good = st.sampled_from(
        [
            VolumeCreated(name="new", size_bytes=BLOCK_BYTES).to_row(),
            (ZERO, volumes[0], 0, 1),
            began.to_row(),
            Revert(volume=volumes[0], cut=Cut(timelines[0], positions[3])).to_row(),
        ]
    )
    return st.builds(
        partial(crafted, site),
        st.lists(good | records | data, min_size=1, max_size=3),
        st.sampled_from([*timelines, 1234]),
        st.none() | st.sampled_from(positions[:-1]),
        st.sampled_from([0, 1, 1 << 62, (1 << 64) - 1]),
    )


def other_messages(site: Site) -> st.SearchStrategy[tuple[bytes, bytes | None]]:
    timelines, positions, _ = interesting(site)
    places, times = st.sampled_from(positions), st.integers(0, (1 << 63) - 1)
    beat = {"session": st.just(9), "timeline": st.just(1), "state": st.just("no"), "mode": st.just("no")}
    headers = st.one_of(
        st.builds(Fetch, session=st.just(9), timeline=st.sampled_from([*timelines, 0]), position=places),
        st.builds(MakeDurable, session=st.just(9), position=places),
        st.builds(Heartbeat, **beat, written=places, utc_ns=times, horizon=places),
        st.builds(
            BaseBegin,
            session=st.just(9),
            base=st.sampled_from([*timelines, 5]),
            cut=st.builds(Cut, st.sampled_from(timelines), places),
            start=st.none() | st.builds(Cut, st.sampled_from(timelines), places),
            digest=st.just(bytes(16)),
            utc_ns=times,
            parts=st.integers(1, 3),
            parts_digest=st.just(bytes(16)),
        ),
    ).map(lambda message: message.encode())
    of_a_base = st.integers(21, 24).map(lambda kind: pack_row((kind, 9, 5, 0)))
    return st.tuples(headers, st.none()) | st.tuples(of_a_base, st.binary(max_size=90))


def test_nothing_in_a_session_stops_the_site_either(site: Site) -> None:
    """Messages in any order, frames with right checksums and any rows: refused, or taken and read back."""
    ended: set[str] = set()

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(frame_messages(site) | other_messages(site), min_size=1, max_size=4))
    def talk(said: list[tuple[bytes, bytes | None]]) -> None:
        in_session(site)
        for header, payload in said:
            ended.update(type(each).__name__ for each in site.say(header, payload))

    talk()
    assert {"Reset", "Ack", "Fetched"} <= ended
    end = site.group_.end
    site.rig.reopen()
    assert site.rig.end == end, "a journal that was taken is read back whole"
