"""Groups over many restarts: one lane, no position twice, time that never goes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.journal.format import segment_path
from protocol.positions import Cut
from tests.unit.engine.group_rig import GroupRig, follow


@pytest.fixture
def rig(directory: Path) -> GroupRig:
    """As in conftest, but tests here drop it."""
    made = GroupRig(directory / "one")
    made.open()
    return made


def test_several_segments_are_one_journal(rig: GroupRig) -> None:
    """Half of them in the index, half replayed."""
    volume = rig.create("root", 200)
    for block in range(200):
        rig.write(volume, block, bytes([65 + block % 26]))
        if block == 90:
            rig.checkpoint()
    assert len(rig.segment_files()) >= 3
    expected = rig.letters("root")
    found = rig.reopen()
    assert found.frames == 109
    assert rig.letters("root") == expected
    assert rig.reopen().frames == 109
    assert rig.letters("root") == expected
    rig.drop()


def test_restart_storm(rig: GroupRig) -> None:
    """Ten restarts with writes between, the wall clock jumping back: one lane, no position twice, time never
    goes back, and every write is there at every cut."""
    volume = rig.create("root", 12)
    expected = ["."] * 12
    seen: list[tuple[Cut, str]] = []
    last_ns = 0
    for round_ in range(10):
        rig.clock.jump(-60.0 if round_ % 2 else 5.0)
        letter = chr(65 + round_)
        for block in (round_, round_ + 1, 0):
            frame = rig.write(volume, block, letter.encode())
            expected[block] = letter
            assert frame.prefix.utc_ns >= last_ns
            last_ns = frame.prefix.utc_ns
        seen.append((rig.end, "".join(expected)))
        if round_ in (3, 4, 8):
            rig.checkpoint()
        rig.reopen()
    assert rig.letters("root") == "".join(expected)
    for cut, letters in seen:
        assert rig.letters("root", cut) == letters
    timelines = rig.group.timelines.all()
    assert len(timelines) == 10
    assert {timeline.lane for timeline in timelines} == {0}
    assert [timeline.generation for timeline in timelines] == [1] * 10
    assert len({timeline.fork for timeline in timelines}) == 10
    assert len(rig.live("root").intervals) == 1
    rig.drop()


def test_a_restart_without_a_write_makes_no_timeline(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a")
    before = rig.end
    for _ in range(3):
        rig.reopen()
        assert rig.end == before
    rig.drop()


def test_a_followers_branch_is_the_same_after_a_restart(rig: GroupRig, directory: Path) -> None:
    """The writer came back without its last frame; what the follower has of it stays as a branch beside the
    new timeline, in another lane, before and after a restart."""
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a")
    rig.drop()
    elsewhere = rig.copy_to(directory / "follower")
    rig.open()
    elsewhere.open()
    lost = rig.write(volume, 1, b"b").prefix
    tail = rig.write(volume, 2, b"x").prefix
    follow(rig, elsewhere)
    assert elsewhere.letters("root") == "abx."
    rig.drop()
    segment = rig.directory / "g" / segment_path(lost.timeline, rig.group.timelines.get(lost.timeline).fork)
    start = rig.group.timelines.get(lost.timeline).fork
    content = segment.read_bytes()
    segment.write_bytes(content[: tail.position - start])
    rig.open()
    rig.write(volume, 3, b"c")
    follow(rig, elsewhere)
    for _ in range(2):
        assert elsewhere.letters("root") == "ab.c" == rig.letters("root")
        assert elsewhere.end == rig.end
        assert elsewhere.group.head.digest == rig.group.head.digest
        assert {timeline.lane for timeline in elsewhere.group.timelines.all()} == {0, 1}
        assert elsewhere.letters("root", Cut(lost.timeline, tail.end)) == "abx."
        elsewhere.reopen()
    elsewhere.checkpoint()
    elsewhere.reopen()
    assert elsewhere.letters("root") == "ab.c"
    assert elsewhere.letters("root", Cut(lost.timeline, tail.end)) == "abx."
    elsewhere.drop()
    rig.drop()
