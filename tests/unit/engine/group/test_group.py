"""One group: appending, following, forks, and what a failed disk leaves of it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from engine.group.head import NotContiguous
from engine.ports.durable import RealDisk
from protocol.errors import NoSpace, NotFound, RemoteProtocolError, WrongState
from protocol.events import WRITE, ZERO, TimelineBegan, VolumeCreated
from protocol.frames import NO_DIGEST, Frame, FrameError, encode_frame, parse_prefix
from tests.unit.engine.group_rig import GroupRig, filled, follow

MakeRig = Callable[..., GroupRig]


def last_frame(rig: GroupRig) -> Frame:
    return rig.write(rig.group.volume("root").id, 0, b"a")


# Writing.


def test_the_first_write_after_any_start_begins_a_timeline(rig: GroupRig) -> None:
    rig.create("root")
    first = rig.end
    last_frame(rig)
    assert rig.end.timeline == first.timeline
    rig.reopen()
    before = rig.end
    last_frame(rig)
    timeline = rig.group.timelines.get(rig.end.timeline)
    assert (timeline.parent, timeline.fork) == (before.timeline, before.position)
    assert timeline.writer == "lon"


def test_time_never_goes_back(rig: GroupRig) -> None:
    rig.create("root")
    before = last_frame(rig).prefix.utc_ns
    rig.clock.jump(-3600)
    assert last_frame(rig).prefix.utc_ns == before
    rig.reopen()
    rig.clock.jump(-7200)
    assert last_frame(rig).prefix.utc_ns == before


def test_listeners_hear_of_frames_views_and_durability(rig: GroupRig) -> None:
    heard: list[str] = []
    rig.group.listeners.frame.append(lambda frame: heard.append("frame"))
    rig.group.listeners.view.append(lambda: heard.append("view"))
    rig.group.listeners.durable.append(lambda: heard.append("durable"))
    rig.create("root")
    assert heard[-2:] == ["view", "frame"]
    heard.clear()
    last_frame(rig)
    assert heard == ["frame"]
    rig.sync()
    assert heard == ["frame", "durable"]


def test_a_volume_that_is_not_there_is_not_found(rig: GroupRig) -> None:
    with pytest.raises(NotFound, match="g/none"):
        rig.group.volume("none")


# Following.


def test_a_followers_journal_is_the_writers_byte_for_byte(sites: tuple[GroupRig, GroupRig]) -> None:
    one, other = sites
    for block in range(8):
        one.write(one.group.volume("root").id, block, bytes([97 + block]))
    follow(one, other)
    assert (other.end, other.group.head.digest, other.group.head.utc_ns) == (
        one.end,
        one.group.head.digest,
        one.group.head.utc_ns,
    )
    assert other.letters("root") == "abcdefgh"
    for (name, mine), (_, theirs) in zip(one.files().items(), other.files().items(), strict=True):
        assert mine.rstrip(b"\0") == theirs.rstrip(b"\0"), name


def test_a_frame_that_leaves_a_gap_is_refused_and_changes_nothing(sites: tuple[GroupRig, GroupRig]) -> None:
    one, other = sites
    before = other.end
    last_frame(one)
    second = last_frame(one)
    with pytest.raises(NotContiguous, match="expected"):
        other.group.follow(second.prefix, second.raw)
    assert other.end == before
    assert follow(one, other) == 2


def test_a_frame_given_twice_is_refused(sites: tuple[GroupRig, GroupRig]) -> None:
    one, other = sites
    frame = last_frame(one)
    other.group.follow(frame.prefix, frame.raw)
    with pytest.raises(NotContiguous):
        other.group.follow(frame.prefix, frame.raw)
    assert other.end == one.end


def test_every_damaged_byte_of_a_frame_is_refused(
    sites: tuple[GroupRig, GroupRig],
) -> None:
    one, other = sites
    frame = one.append([(ZERO, one.group.volume("root").id, 0, 3)])
    before = other.end, other.group.head.digest
    for at in range(len(frame.raw)):
        damaged = bytearray(frame.raw)
        damaged[at] ^= 1
        with pytest.raises((FrameError, NotContiguous)):
            other.group.follow(parse_prefix(damaged), damaged)
    assert (other.end, other.group.head.digest) == before
    assert follow(one, other) == 1


def crafted(
    rig: GroupRig, rows: list[tuple[object, ...]], utc_ns: int = 0, previous: bytes | None = None
) -> Frame:
    """A frame that continues the follower's journal, as no writer of ours makes it."""
    group = rig.group
    return encode_frame(
        timeline=group.head.timeline,
        position=group.writer.written,
        utc_ns=utc_ns or group.head.utc_ns,
        durable=0,
        previous_digest=group.head.digest if previous is None else previous,
        rows=rows,
        payload=[],
        payload_bytes=0,
    )


def test_what_no_writer_of_ours_sends_is_refused(sites: tuple[GroupRig, GroupRig]) -> None:
    _, other = sites
    created = VolumeCreated(name="v", size_bytes=4096).to_row()
    for frame, error in [
        (crafted(other, [(99, 1)]), RemoteProtocolError),
        (crafted(other, [created, (ZERO, 1, 0, 1)]), FrameError),
        (crafted(other, [(ZERO, 1, 0, 1)], utc_ns=other.group.head.utc_ns - 1), FrameError),
        (crafted(other, [(ZERO, 1, 0, 1)], previous=NO_DIGEST), FrameError),
    ]:
        before = other.end
        with pytest.raises(error):
            other.group.follow(frame.prefix, frame.raw)
        assert other.end == before
    frame = crafted(other, [created])
    other.group.follow(frame.prefix, frame.raw)


def test_a_fork_is_followed_only_from_the_head(sites: tuple[GroupRig, GroupRig]) -> None:
    _, other = sites

    def began(parent: int, fork: int, at: int) -> Frame:
        event = TimelineBegan(parent=parent, fork=fork, generation=9, writer="lon", group="g", sealed=True)
        return encode_frame(
            timeline=77,
            position=at,
            utc_ns=other.group.head.utc_ns,
            durable=at,
            previous_digest=other.group.head.digest,
            rows=[event.to_row()],
            payload=[],
            payload_bytes=0,
        )

    head, end = other.end.timeline, other.end.position
    for frame in (began(head + 1, end, end), began(head, end + 9, end + 9), began(head, end - 9, end)):
        with pytest.raises(NotContiguous):
            other.group.follow(frame.prefix, frame.raw)
    assert other.end.timeline == head
    good = began(head, end, end)
    other.group.follow(good.prefix, good.raw)
    assert other.end.timeline == 77
    with pytest.raises(NotContiguous):
        other.group.follow(good.prefix, good.raw)


def test_a_follower_begins_with_nothing(make_rig: MakeRig) -> None:
    one = make_rig("one")
    volume = one.create("root", 4)
    one.write(volume, 0, b"a")
    one.checkpoint()
    one.reopen()
    one.write(volume, 1, b"b")
    other = make_rig("other", site="par", world=one.world)
    assert follow(one, other) == 5
    assert other.letters("root") == "ab.."


def test_a_fork_that_could_not_be_finished_is_taken_again(sites: tuple[GroupRig, GroupRig]) -> None:
    """The state could not be written just then: the head stays, and the same fork succeeds later."""
    one, other = sites
    one.reopen()
    last_frame(one)
    head = other.end
    set_head = other.group.state.set_head

    def full(name: str, head: int) -> None:
        raise OSError(errno.ENOSPC, "no room in the store")

    other.group.state.set_head = full  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(OSError, match="no room"):
            follow(one, other)
        assert other.end == head
        assert other.letters("root") == "." * 8
    other.group.state.set_head = set_head  # type: ignore[method-assign]
    follow(one, other)
    assert other.end == one.end
    other.reopen()
    assert other.letters("root") == one.letters("root")


# Disks that fail.


class FailingDisk(RealDisk):
    """Syncs or space fail from some moment on."""

    sync_error: OSError | None = None
    free: int | None = None

    def start_sync(self, files, directories, done) -> None:
        if self.sync_error is not None:
            done(self.sync_error)
        else:
            super().start_sync(files, directories, done)

    def free_bytes(self) -> int:
        return super().free_bytes() if self.free is None else self.free


class FailingRig(GroupRig):
    """A group on such a disk."""

    def disk(self) -> FailingDisk:
        self.failing = FailingDisk(self.directory / "g", None)
        return self.failing


@pytest.fixture
def failing(directory: Path) -> FailingRig:
    rig = FailingRig(directory / "failing")
    rig.open()
    return rig


def test_after_a_failed_sync_the_group_has_stopped(failing: FailingRig) -> None:
    volume = failing.create("root", 4)
    failing.write(volume, 0, b"a")
    failing.sync()
    failing.write(volume, 1, b"b")
    views: list[str] = []
    failing.group.listeners.view.append(lambda: views.append(failing.group.failed))
    failing.failing.sync_error = OSError(errno.EIO, "the disk is gone")
    answers: list[OSError | None] = []
    failing.group.when_durable(answers.append)
    assert [answer.errno if answer else 0 for answer in answers] == [errno.EIO]
    assert "sync failed" in failing.group.failed
    assert views == [failing.group.failed]
    assert [fields["position"] for kind, fields in failing.events if kind == "journal.failed"]
    with pytest.raises(OSError, match="restart"):
        failing.write(volume, 2, b"c")
    failing.checkpoint()
    assert failing.indexer.plans == []
    failing.reopen()
    assert failing.letters("root")[0] == "a"
    failing.drop()


def test_a_stopped_group_begins_no_timeline(failing: FailingRig) -> None:
    failing.create("root", 4)
    failing.reopen()
    failing.group.failed = "as the test says"
    with pytest.raises(WrongState, match="stopped"):
        failing.group.begin_writing()
    failing.drop()


def test_a_full_disk_loses_nothing_and_service_resumes(failing: FailingRig) -> None:
    volume = failing.create("root", 4)
    failing.failing.free = 0
    before = b""
    while not failing.group.writer.no_space:
        before = failing.read("root")
        with suppress(NoSpace):
            failing.append([(WRITE, volume, failing.end.position % 4, 1)], failing.rng.randbytes(5))
    assert failing.read("root") == before
    with pytest.raises(NoSpace):
        failing.write(volume, 0, b"z")
    assert failing.read("root") == before
    failing.failing.free = None
    failing.settle(1.0)
    failing.write(volume, 0, b"z")
    assert failing.read("root")[:4096] == filled(b"z")
    kinds = [kind for kind, _ in failing.events if "space" in kind]
    assert kinds == ["journal.no_space", "journal.has_space"]
    failing.reopen()
    assert failing.read("root")[4096:] == before[4096:]
    failing.drop()


def test_a_disk_full_at_the_first_write_leaves_no_timeline_behind(failing: FailingRig) -> None:
    """Hosts try again and again: each try would leave a directory."""
    volume = failing.create("root", 4)
    failing.write(volume, 0, b"a")
    failing.reopen()
    before, end = set(failing.files()), failing.end
    failing.failing.free = 0
    for _ in range(3):
        failing.settle(1.0)
        with pytest.raises(NoSpace):
            failing.write(volume, 0, b"b")
    assert set(failing.files()) == before
    assert failing.end == end
    assert failing.letters("root") == "a..."
    failing.failing.free = None
    failing.settle(1.0)
    failing.write(volume, 0, b"b")
    assert failing.letters("root") == "b..."
    failing.drop()
