"""Receiving: what a follower takes, acknowledges and refuses, message by message."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from engine.history.lineage import lineage_rows
from engine.peering.pair_states import PairState
from engine.ports.disk import Buffer
from protocol.compress import Compression, compress
from protocol.frames import Frame
from protocol.limits import FRAME_BYTES_MAX, HEARTBEAT_TIMEOUT_S
from protocol.messages import (
    Ack,
    FrameMessage,
    Heartbeat,
    Hello,
    MakeDurable,
    Message,
    Refused,
    Reset,
    Welcome,
    decode_message,
)
from protocol.positions import Cut
from site_secondary.receiver import Receiver
from tests.sim.world import NS
from tests.unit.engine.group_rig import GROUP_ID, GroupRig

MakeRig = Callable[..., GroupRig]


@dataclass
class Connection:
    """The way back to the sender: keeps what it was told."""

    peer: str = "lon"
    told: list[Message] = field(default_factory=list)

    def send(self, header: bytes, payload: Buffer | None = None) -> None:
        self.told.append(decode_message(header))

    def take(self) -> list[Message]:
        told, self.told = self.told, []
        return told


class Following:
    """A follower's receiver, and a writer whose frames it is given by hand."""

    def __init__(self, make_rig: MakeRig) -> None:
        self.one = make_rig("one")
        self.other = make_rig("other", site="par", world=self.one.world, seed=2)
        self.receiver = Receiver(self.other.group, "lon")
        self.connection = Connection()
        self.frames: list[Frame] = []
        self.one.group.listeners.frame.append(self.frames.append)
        self.volume = self.one.create("root", 8)

    def hello(self, session: int, written: int = 0) -> Message:
        """Open a session, of a writer that is on its own line up to `written`; the answer."""
        rows = lineage_rows(self.one.group) if written else ()
        hello = Hello(
            session=session, group="g", group_id=GROUP_ID, site="lon", lineage=rows, written=written
        )
        self.receiver.on_message(self.connection, hello, None)
        (answer,) = self.connection.take()
        return answer

    def give(self, session: int, *frames: Frame) -> list[Message]:
        """One message with these frames; what is answered in this wake-up."""
        payload = b"".join(bytes(frame.raw) for frame in frames)
        self.receiver.on_message(self.connection, FrameMessage(session=session), payload)
        self.other.settle(0)
        return self.connection.take()

    def give_packed(self, session: int, packed: bytes) -> list[Message]:
        """One message whose payload is said to be compressed; what is answered."""
        message = FrameMessage(session=session, compression=Compression.ZSTD)
        self.receiver.on_message(self.connection, message, packed)
        self.other.settle(0)
        return self.connection.take()

    def beat(self, session: int, **fields: object) -> list[Message]:
        end = self.one.end
        beat = Heartbeat(
            session=session,
            timeline=end.timeline,
            written=fields.get("written", end.position),  # type: ignore[arg-type]
            utc_ns=fields.get("utc_ns", self.one.clock.utc_ns()),  # type: ignore[arg-type]
            state=fields.get("state", "paired"),  # type: ignore[arg-type]
            mode="async",
        )
        self.receiver.on_message(self.connection, beat, None)
        self.other.settle(0)
        return self.connection.take()

    def ack(self, session: int) -> Ack:
        """What it must say now."""
        writer = self.other.group.writer
        end = self.other.end
        return Ack(session=session, timeline=end.timeline, written=end.position, durable=writer.durable)


@pytest.fixture
def following(make_rig: MakeRig) -> Following:
    return Following(make_rig)


def test_a_hello_is_answered_with_what_is_here(following: Following) -> None:
    assert following.hello(1) == Welcome(session=1, lineage=(), written=0, durable=0, digest=bytes(16))
    following.give(1, *following.frames)
    group = following.other.group
    assert following.hello(2) == Welcome(
        session=2,
        lineage=lineage_rows(following.one.group),
        written=following.one.end.position,
        durable=group.writer.durable,
        digest=following.one.group.head.digest,
    )


def test_frames_are_stored_as_they_are_and_acknowledged_once_a_wake_up(following: Following) -> None:
    following.hello(1)
    following.one.write(following.volume, 0, b"a")
    following.one.write(following.volume, 1, b"b")
    assert following.give(1, *following.frames) == [following.ack(1)]
    assert following.other.end == following.one.end
    assert following.other.letters("root") == "ab......"
    assert following.receiver.received_bytes == following.one.end.position


def test_an_acknowledgement_follows_when_it_is_durable(following: Following) -> None:
    following.hello(1)
    following.give(1, *following.frames)
    following.frames.clear()
    following.one.write(following.volume, 0, b"a")
    (first,) = following.give(1, *following.frames)
    assert isinstance(first, Ack)
    assert first.durable < first.written == following.one.end.position
    following.other.settle(1.0)
    assert following.connection.take() == [following.ack(1)]
    assert following.ack(1).durable == following.one.end.position


def test_a_record_is_made_durable_at_once(following: Following) -> None:
    """A backup or a restore waits for it at the other site."""
    following.hello(1)
    following.give(1, *following.frames)
    assert following.ack(1).durable == following.one.end.position


def test_what_a_host_waits_for_is_made_durable_as_soon_as_it_is_written(following: Following) -> None:
    following.hello(1)
    following.give(1, *following.frames)
    following.frames.clear()
    for block in range(2):
        following.one.write(following.volume, block, b"a")
    first, second = following.frames
    asked = MakeDurable(session=1, position=following.one.end.position)
    following.receiver.on_message(following.connection, asked, None)
    begin = following.other.group.writer.durable
    (answer,) = following.give(1, first)
    assert isinstance(answer, Ack)
    assert answer.durable == begin < answer.written
    assert following.give(1, second) == [following.ack(1)]
    assert following.ack(1).durable == following.one.end.position
    assert following.give(1) == [following.ack(1)]


def test_a_gap_resets_the_session_and_changes_nothing(following: Following) -> None:
    following.hello(1)
    following.give(1, *following.frames)
    following.frames.clear()
    before = following.other.end
    following.one.write(following.volume, 0, b"a")
    following.one.write(following.volume, 1, b"b")
    (answer,) = following.give(1, following.frames[1])
    assert isinstance(answer, Reset)
    assert "expected" in answer.reason
    assert following.other.end == before
    assert following.give(1, following.frames[0]) == []
    assert following.other.end == before


@pytest.mark.parametrize("at", [0, 10, 20, 30, 40, 50, 60, 75, -1])
def test_a_damaged_frame_resets_the_session_and_changes_nothing(following: Following, at: int) -> None:
    following.hello(1)
    following.give(1, *following.frames)
    before = following.other.end
    frame = following.one.write(following.volume, 0, b"a")
    damaged = bytearray(frame.raw)
    damaged[at] ^= 1
    (answer,) = following.give(1, Frame(frame.prefix, damaged))
    assert isinstance(answer, Reset)
    assert following.other.end == before
    following.hello(2)
    assert following.give(2, frame) == [following.ack(2)]


def test_compressed_frames_are_stored_as_they_were(following: Following) -> None:
    following.hello(1)
    following.one.write(following.volume, 0, b"a")
    packed = compress(b"".join(bytes(frame.raw) for frame in following.frames))
    assert packed is not None
    assert following.give_packed(1, packed) == [following.ack(1)]
    assert following.other.end == following.one.end
    assert following.other.group.head.digest == following.one.group.head.digest


@pytest.mark.parametrize("damage", ["noise", "bomb", "cut short"])
def test_a_payload_that_does_not_unpack_resets_the_session(following: Following, damage: str) -> None:
    following.hello(1)
    packed = {
        "noise": b"\x28\xb5\x2f\xfd noise",
        "bomb": compress(bytes(FRAME_BYTES_MAX + 1)) or b"",
        "cut short": (compress(bytes(FRAME_BYTES_MAX)) or b"")[:-1],
    }[damage]
    (answer,) = following.give_packed(1, packed)
    assert isinstance(answer, Reset)
    assert "compressed payload" in answer.reason
    assert following.other.end.position == 0


def test_what_was_whole_before_the_damage_in_a_message_is_kept(following: Following) -> None:
    following.hello(1)
    following.give(1, *following.frames)
    first = following.one.write(following.volume, 0, b"a")
    second = following.one.write(following.volume, 1, b"b")
    cut_short = Frame(second.prefix, bytes(second.raw)[:-1])
    (answer,) = following.give(1, first, cut_short)
    assert isinstance(answer, Reset)
    assert following.other.end.position == first.prefix.end
    welcome = following.hello(2)
    assert isinstance(welcome, Welcome)
    assert welcome.written == first.prefix.end


def test_messages_of_another_session_are_dropped(following: Following) -> None:
    following.hello(1)
    following.hello(2)
    before = following.other.end
    assert following.give(1, *following.frames) == []
    assert following.beat(1, state="split") == []
    assert following.other.end == before
    assert following.receiver.state is not PairState.SPLIT
    assert following.give(2, *following.frames) != []


def test_before_any_session_nothing_is_taken(following: Following) -> None:
    assert following.give(0, *following.frames) == []
    assert following.give(7, *following.frames) == []
    assert following.other.end.position == 0


def test_a_disk_that_is_full_refuses_with_the_reason(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    following.hello(1)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(following.other.group, "follow", full)
    (answer,) = following.give(1, *following.frames)
    assert isinstance(answer, Refused)
    assert "no space left" in answer.message
    assert following.receiver.state is PairState.SUSPENDED
    assert "no space left" in following.receiver.reason
    monkeypatch.undo()
    following.hello(2)
    assert following.give(2, *following.frames) == [following.ack(2)]
    assert following.receiver.reason == ""


def test_a_stopped_group_refuses_a_hello(following: Following) -> None:
    following.other.group.failed = "journal sync failed"
    answer = following.hello(1)
    assert answer == Refused(session=1, code="wrong-state", message="journal sync failed")
    assert following.give(1, *following.frames) == []


def test_complete_is_only_what_is_held(following: Following) -> None:
    """A heartbeat says up to when the writer has written what; it counts once that much is here."""
    following.hello(1)
    following.one.write(following.volume, 0, b"a")
    now = following.one.clock.utc_ns()
    following.beat(1, utc_ns=now)
    assert following.receiver.complete_until_ns < now
    following.give(1, *following.frames[:-1])
    assert following.receiver.complete_until_ns < now
    following.give(1, following.frames[-1])
    assert following.receiver.complete_until_ns == now
    following.beat(1, utc_ns=now + 5 * NS)
    assert following.receiver.complete_until_ns == now + 5 * NS


def test_complete_goes_back_to_where_the_writer_goes_on_from(following: Following) -> None:
    """It lost its end, and its clock was set back: what it writes next is older than what it had promised."""
    following.hello(1)
    for letter in (b"a", b"b"):
        following.one.settle(1.0)
        following.one.write(following.volume, 0, letter)
    following.one.settle(1.0)
    following.give(1, *following.frames)
    promised = following.one.clock.utc_ns()
    following.beat(1, utc_ns=promised)
    assert following.receiver.complete_until_ns == promised
    kept, lost = (frame.prefix for frame in following.frames[-2:])
    following.hello(2, lost.end)
    assert following.receiver.complete_until_ns == lost.utc_ns - 1
    following.hello(3, kept.end)
    assert following.receiver.complete_until_ns == kept.utc_ns - 1


def test_many_heartbeats_that_wait_are_bounded_and_the_last_counts(following: Following) -> None:
    following.hello(1)
    for second in range(200):
        following.beat(1, utc_ns=second * NS)
    assert len(following.receiver._beats) <= 64
    following.give(1, *following.frames)
    assert following.receiver.complete_until_ns == 199 * NS


def test_the_state_is_the_writers_while_it_is_heard(following: Following) -> None:
    assert following.receiver.state is PairState.SUSPENDED
    following.hello(1)
    for text, state in [
        ("paired", PairState.PAIRED),
        ("copying", PairState.COPYING),
        ("odd", PairState.COPYING),
    ]:
        following.beat(1, state=text)
        assert following.receiver.state is state
    following.other.settle(HEARTBEAT_TIMEOUT_S + 1)
    assert following.receiver.state is PairState.SUSPENDED
    assert "lon" in following.receiver.reason


def test_a_split_is_remembered_through_the_silence_that_follows(following: Following) -> None:
    following.hello(1)
    following.beat(1, state="split")
    following.other.settle(HEARTBEAT_TIMEOUT_S + 1)
    assert following.receiver.state is PairState.SPLIT


def test_while_a_checkpoint_must_catch_up_no_more_is_acknowledged(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender's bound holds the rest back; it still hears that this site lives."""
    following.hello(1)
    following.give(1, *following.frames)
    before = following.other.end.position
    following.frames.clear()
    monkeypatch.setattr(type(following.other.group), "overloaded", property(lambda _: True))
    following.one.write(following.volume, 0, b"a")
    answers = following.give(1, *following.frames)
    assert all(isinstance(answer, Ack) and answer.written == before for answer in answers)
    assert following.beat(1) != []
    monkeypatch.undo()
    for listener in following.other.group.listeners.relief:
        listener()
    following.other.settle(0)
    assert following.connection.take()[-1] == following.ack(1)


def test_closed_it_neither_takes_nor_says_anything(following: Following) -> None:
    following.hello(1)
    following.receiver.close()
    assert following.give(1, *following.frames) == []
    following.other.create("own", 4)
    following.other.sync()
    following.other.settle(1.0)
    assert following.connection.take() == []


def test_what_hosts_may_still_write_to_is_not_acknowledged(following: Following) -> None:
    """A sender takes an acknowledgement for the word that this site serves no host any more."""
    following.hello(5)
    following.give(5, *following.frames)
    following.hello(6)
    following.other.write(following.volume, 0, b"h")
    following.other.sync()
    following.other.settle(0)
    acks = following.connection.take()
    assert [(ack.timeline, ack.written) for ack in acks if isinstance(ack, Ack)] == [(0, 0)]
    following.hello(7)
    end = following.other.end
    beat = Heartbeat(
        session=7, timeline=1, written=1, utc_ns=1, state=PairState.PAIRED.value, mode="async", horizon=0
    )
    following.receiver.on_message(following.connection, beat, None)
    following.other.settle(0)
    acks = following.connection.take()
    assert [Cut(ack.timeline, ack.written) for ack in acks if isinstance(ack, Ack)] == [end]
