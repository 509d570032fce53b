"""Bytes over time: as many as the frames have, whatever the moments, and no more steps for a longer range."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.history import over_time
from engine.history.over_time import BytesUntil, Happening, marks
from protocol.frames import FramePrefix
from protocol.positions import Cut
from tests.unit.engine.group_rig import GroupRig, memory_directory


@pytest.fixture(scope="module")
def rig() -> Iterator[GroupRig]:
    """A group whose writer was started three times, with frames of several sizes and pauses."""
    directory = memory_directory()
    made = GroupRig(directory / "one")
    made.open()
    volume = made.create("root", 64)
    for run in range(3):
        for block in range(12):
            made.write(volume, block, *[b"abc"[run : run + 1]] * (1 + block % 3))
            made.sync()
            made.settle(0.5 + block * run)
        made.settle(60)
        made.reopen()
        made.group.begin_writing()
    yield made
    made.drop()
    shutil.rmtree(directory, ignore_errors=True)


def frames_of(rig: GroupRig) -> list[tuple[int, int]]:
    """Time and bytes of each frame of the head's lineage, oldest first."""
    group = rig.group
    return [
        (prefix.utc_ns, prefix.end - prefix.position)
        for span in group.spans(group.writer.written)
        for prefix in group.reader.prefixes(span.timeline, span.start, span.end)
    ]


def counted(rig: GroupRig, times: Sequence[int]) -> BytesUntil:
    until = BytesUntil(rig.group, times)
    for _ in until.walk():
        pass
    assert len(until.found) == len(times)
    return until


@given(st.data())
def test_it_is_what_the_frames_have(rig: GroupRig, data: st.DataObject) -> None:
    frames = frames_of(rig)
    first, last = frames[0][0], frames[-1][0]
    near = st.sampled_from([time + by for time, _ in frames for by in (-1, 0, 1)])
    times = sorted(data.draw(st.lists(near | st.integers(first - 10**9, last + 10**9), min_size=1)))
    until = counted(rig, times)
    assert until.found == [sum(size for at, size in frames if at <= time) for time in times]
    assert until.exact
    assert (until.begins_ns, until.is_whole) == (first, True)


def test_the_work_does_not_grow_with_the_range(rig: GroupRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past its bound bytes are spread evenly: never fewer than the moment before, all of them in the end."""
    frames = frames_of(rig)
    monkeypatch.setattr(over_time, "FRAMES_MAX", 5)
    first, last = frames[0][0], frames[-1][0]
    times = [first + (last - first) * number // 40 for number in range(41)]
    until = counted(rig, times)
    assert not until.exact
    assert until.found == sorted(until.found)
    assert until.found[-1] == sum(size for _, size in frames)
    read = []
    real = rig.group.reader.prefix_at

    def counting(timeline: int, position: int) -> FramePrefix | None:
        read.append(position)
        return real(timeline, position)

    monkeypatch.setattr(rig.group.reader, "prefix_at", counting)
    counted(rig, [0, *times, 2 * last])
    assert len(read) <= 5 + 1 + len(rig.group.spans(rig.end.position))


def test_nothing_is_written_yet() -> None:
    directory = memory_directory()
    made = GroupRig(directory / "one")
    made.open()
    try:
        until = counted(made, [1, 2, 3])
        assert (until.found, until.begins_ns, until.is_whole) == ([0, 0, 0], None, True)
        assert [mark for mark in marks(made.group, 0, 1 << 62) if mark] == []
    finally:
        made.drop()
        shutil.rmtree(directory, ignore_errors=True)


def test_a_restart_of_the_writer_is_no_takeover(rig: GroupRig) -> None:
    assert len(rig.group.spans(rig.end.position)) >= 3
    assert [mark for mark in marks(rig.group, 0, 1 << 62) if mark] == []


def test_marks_say_what_they_are() -> None:
    mark = over_time.Mark(what=Happening.BACKUP, utc_ns=1, cut=Cut(1, 0), name="nightly")
    assert mark.what.value == "backup"
