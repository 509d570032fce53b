"""Moving the head: what a move that fails leaves, and what may be left for another timeline."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from engine.group.head import NotContiguous
from engine.group.head_moves import hand_over
from engine.history import timelines
from engine.journal.format import segment_path
from protocol.errors import Diverged, Trimmed, WrongState
from protocol.events import Revert
from protocol.positions import Cut
from tests.unit.engine.conftest import SMALL_SEGMENT_BYTES
from tests.unit.engine.group.test_clones import clone_of
from tests.unit.engine.group_rig import GroupRig, follow, take_other_line

MakeRig = Callable[..., GroupRig]


def test_a_move_that_failed_leaves_nothing_in_the_lane_that_comes_next(
    sites: tuple[GroupRig, GroupRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later timeline is given the lane of the one that failed, and must not be read from its file."""
    one, other = sites
    volume = other.group.volume("root").id
    one.reopen()
    one.group.head.sealed = False  # its next timeline gets a lane of its own everywhere
    for block in range(8):
        one.write(volume, block, b"o")
    other.write(volume, 0, b"x")
    other.reopen()
    tail = other.end

    def full(name: str, head: int) -> None:
        raise OSError(errno.EIO, "the state cannot be written")

    with monkeypatch.context() as context:
        context.setattr(other.group.state, "set_head", full)
        for _ in range(2):
            with pytest.raises(OSError, match="cannot be written"):
                other.group.begin_writing()
    assert other.end == tail
    assert other.letters("root") == "x......."
    span = one.group.spans(one.group.writer.written)[-1]
    assert span.start < tail.position < span.end
    take_other_line(other, one)
    assert other.letters("root") == "oooooooo"
    other.checkpoint()
    other.reopen()
    assert other.letters("root") == "oooooooo"
    assert other.letters("root", tail) == "x......."


def test_what_a_writer_called_durable_is_left_only_by_an_operators_word(
    sites: tuple[GroupRig, GroupRig], make_rig: MakeRig
) -> None:
    """A power loss takes what was not durable; an old copy of the writer lacks more."""
    one, other = sites
    volume = one.group.volume("root").id
    one.drop()
    old = one.copy_to(one.directory.parent / "old")
    one.open()
    for block in range(3):
        one.write(volume, block, b"n")
        one.sync()
    follow(one, other)
    newest = other.end
    old.open()
    old.write(volume, 0, b"o")
    for leave in (False, True):
        for span in old.group.spans(old.group.writer.written)[-1:]:
            frames = list(old.group.reader.frames(span.timeline, span.start, span.end, None))
        if not leave:
            with pytest.raises(Diverged, match="called durable"):
                other.group.follow(frames[0].prefix, bytes(frames[0].raw))
            assert other.end == newest
            assert [kind for kind, _ in other.events if kind == "timeline.turned_back"]
            continue
        for frame in frames:
            other.group.follow(frame.prefix, bytes(frame.raw), leave=True)
    assert other.end == old.end
    assert other.letters("root", newest).startswith("nnn")
    old.drop()


def test_a_torn_tail_that_came_back_from_the_peer_is_no_corruption(
    sites: tuple[GroupRig, GroupRig],
) -> None:
    """An old copy of a writer takes its own frames back, which call durable what is only written here."""
    one, other = sites
    volume = one.group.volume("root").id
    one.write(volume, 0, b"a")
    follow(one, other)
    one.drop()
    old = one.copy_to(one.directory.parent / "old")
    one.open()
    for block in range(1, 6):
        one.write(volume, block, b"n")
        one.sync()
    follow(one, other)
    old.open()
    follow(other, old)
    assert old.end == other.end
    frames = list(
        old.group.reader.frames(old.end.timeline, old.group.spans()[-1].start, old.end.position, None)
    )
    torn = frames[2].prefix
    segment = old.group.segments.segment_at(torn.timeline, torn.position)
    assert segment is not None
    path = old.directory / "g" / segment.path
    old.drop()
    with path.open("r+b") as file:  # a power loss: one in the middle is gone, those after it are there
        file.seek(torn.position - segment.start)
        file.write(bytes(torn.frame_bytes))
    old.open()
    assert old.end == Cut(torn.timeline, torn.position)
    follow(other, old)
    assert old.letters("root") == other.letters("root")
    old.drop()


def test_a_hand_over_is_known_without_its_frame(rig: GroupRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A base brings no frames, and a truncation takes them."""
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a")
    assert rig.group.handed_to == ""
    hand_over(rig.group, "par")
    monkeypatch.setattr(rig.group.reader, "frame_before", lambda *_: None)
    assert rig.group.handed_to == "par"
    with pytest.raises(WrongState, match="handed over"):
        rig.write(volume, 1, b"b")
    assert rig.group.handed_to == "par"
    rig.reopen()
    assert rig.group.handed_to == "par"


@pytest.mark.parametrize("seed", range(1, 9))
def test_of_several_hand_overs_the_one_at_the_end_holds(make_rig: MakeRig, seed: int) -> None:
    """Records are loaded by timeline, in an order of chance."""
    rig = make_rig("a", seed=seed)
    volume = rig.create("root", 4)
    hand_over(rig.group, "lon")
    rig.reopen()
    rig.write(volume, 0, b"a")
    assert rig.group.handed_to == ""
    hand_over(rig.group, "par")
    rig.checkpoint()
    rig.reopen()
    assert rig.group.handed_to == "par"


def test_a_hand_over_goes_with_the_part_that_says_it(rig: GroupRig) -> None:
    rig.create("root", 4)
    before = rig.end
    hand_over(rig.group, "par")
    after = rig.end
    rig.group.records.forget(after.timeline, after.position)
    assert rig.group.handed_to == "par"
    rig.group.records.forget(before.timeline, before.position)
    assert rig.group.handed_to == ""


def test_a_head_that_was_left_with_nothing_but_its_first_frame_is_no_orphan(
    sites: tuple[GroupRig, GroupRig],
) -> None:
    """It was promised, its peer may know it, and what left it again needs it."""
    one, other = sites
    fork = other.end
    one.write(one.group.volume("root").id, 0, b"o")
    other.group.begin_writing()
    first = other.end
    other.reopen()
    other.group.begin_writing()  # a child of it
    child = other.end
    for frame in one.group.reader.frames(fork.timeline, fork.position, one.end.position, None):
        other.group.follow(frame.prefix, bytes(frame.raw), leave=True)
    for _ in range(2):
        other.reopen()
        assert other.end == one.end
        assert other.group.end_of(first.timeline) == first.position
        assert other.group.end_of(child.timeline) == child.position
    other.checkpoint()
    other.reopen()
    assert other.group.end_of(child.timeline) == child.position
    assert other.group.state.heads("g") <= {other.group.head.timeline}


def test_what_a_move_that_did_not_last_left_is_found_again(
    sites: tuple[GroupRig, GroupRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frame of a timeline that is known here was stored, the commit that makes it the head failed, and
    after a restart the timeline goes on further here than the head's lineage shows."""
    one, other = sites
    volume = one.group.volume("root").id
    fork = other.end
    one.write(volume, 0, b"o")
    first = one.end
    one.write(volume, 1, b"p")
    other.write(volume, 0, b"x")
    tail = other.end
    spans = one.group.spans(one.end.position)
    frames = list(one.group.reader.frames(fork.timeline, fork.position, one.end.position, None))

    def fails(name: str, head: int) -> None:
        raise OSError(errno.EIO, "the state cannot be written")

    with monkeypatch.context() as context:
        context.setattr(other.group.state, "set_head", fails)
        with pytest.raises(OSError, match="cannot be written"):
            other.group.follow(frames[0].prefix, bytes(frames[0].raw), leave=True)
    other.reopen()
    assert other.end == tail
    assert other.group.end_of(fork.timeline) == first.position
    wrong = bytearray(frames[0].raw)
    with pytest.raises(NotContiguous, match="another frame is held"):
        other.group.follow(frames[0].prefix._replace(body_crc=1), bytes(wrong), leave=True)
    with pytest.raises(NotContiguous, match="would leave what another site wrote"):
        other.group.follow(frames[0].prefix, bytes(frames[0].raw))
    assert other.end == tail
    with pytest.raises(NotContiguous, match="go on from there"):
        other.group.follow(frames[0].prefix, bytes(frames[0].raw), leave=True)
    assert other.end == first
    for reopened in (False, True):
        if reopened:
            other.reopen()
        assert other.letters("root") == "o......."
        assert other.letters("root", tail) == "x......."
    other.group.follow(frames[1].prefix, bytes(frames[1].raw))
    assert other.end == one.end == Cut(spans[-1].timeline, spans[-1].end)
    assert other.group.head.digest == one.group.head.digest
    other.checkpoint()
    other.reopen()
    assert other.letters("root") == "op......"
    assert other.letters("root", tail) == "x......."


def test_what_was_about_to_be_followed_and_came_torn_is_an_orphan(sites: tuple[GroupRig, GroupRig]) -> None:
    """An old copy takes its own timeline back. Its first frame could not be written, and a power loss
    brought the file back that was removed then."""
    one, _ = sites
    volume = one.group.volume("root").id
    one.sync()
    one.drop()
    old = one.copy_to(one.directory.parent / "old")
    one.open()
    one.write(volume, 0, b"n")
    span = one.group.spans(one.end.position)[-1]
    frames = list(one.group.reader.frames(span.timeline, span.start, span.end, None))
    old.open()
    end = old.end
    old.group.state.note_followed("g", span.timeline)
    path = old.directory / "g" / segment_path(span.timeline, span.start)
    path.parent.mkdir()
    path.write_bytes(bytes(frames[0].raw)[:40] + bytes(SMALL_SEGMENT_BYTES - 40))
    old.reopen()
    assert old.end == end
    for frame in frames:
        old.group.follow(frame.prefix, bytes(frame.raw))
    old.reopen()
    assert old.end == one.end
    assert old.letters("root") == one.letters("root")
    old.drop()


def test_a_revert_to_more_of_a_branch_than_came_here_is_not_followed(make_rig: MakeRig) -> None:
    """The peer was away when its partner turned a volume back to what only that one had of a timeline that
    both know."""
    one = make_rig("one", seed=1)
    other = make_rig("other", site="par", world=one.world, seed=2)
    volume = one.create("root", 16)
    one.write(volume, 0, b"a")
    follow(one, other)
    one.write(volume, 0, b"b")
    tail = one.end
    other.reopen()
    other.group.begin_writing()
    other.write(volume, 0, b"c")
    take_other_line(one, other)
    one.reopen()
    one.group.begin_writing()
    follow(one, other)
    one.group.append_records([Revert(volume=volume, cut=tail)])
    before = other.end
    with pytest.raises(Trimmed, match="a history that is not here"):
        follow(one, other)
    assert (other.end, other.letters("root")[0], one.letters("root")[0]) == (before, "c", "b")


def test_a_timeline_too_many_is_refused_before_it_is_durable(
    make_rig: Callable[..., GroupRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first frame, and the head that named it, kept the group closed from then on."""
    rig = make_rig()
    volume = rig.create("root", 16)
    monkeypatch.setattr(timelines, "TIMELINES_MAX", 4)
    for block in range(3):
        rig.reopen()
        rig.write(volume, block, b"a")
    rig.reopen()
    files = rig.files()
    for _ in range(2):
        with pytest.raises(WrongState, match="too many timelines"):
            rig.write(volume, 9, b"b")
        with pytest.raises(WrongState, match="too many timelines"):
            clone_of(rig, rig.end)
        assert not rig.group.failed
        assert rig.files() == files
        rig.reopen()
    assert rig.letters("root").startswith("aaa.")
    monkeypatch.undo()
    rig.write(volume, 9, b"b")
