"""A full disk, and the journal's limit: hosts are told, nothing is lost, and service goes on by itself."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.journal import room, writer
from engine.journal.format import SPARE_PATH, timeline_directory
from engine.journal.writer import RETRY_SPACE_AFTER_S
from protocol.errors import NoSpace
from protocol.limits import BLOCK_BYTES
from tests.unit.engine.journal.writer_bench import SEGMENT, SMALLEST, TIMELINE, Bench


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch, small_segments: None) -> None:
    monkeypatch.setattr(room, "SEGMENT_BYTES", SEGMENT)
    monkeypatch.setattr(room, "SEGMENT_BYTES_MIN", SMALLEST)
    monkeypatch.setattr(writer, "truncation_bytes", lambda *_: 0)  # of several segments' size here


@pytest.fixture
def bench(directory: Path) -> Bench:
    return Bench(directory)


def fill(bench: Bench) -> NoSpace:
    """Append until it is refused; the refusal."""
    for _ in range(1000):
        try:
            bench.append()
        except NoSpace as error:
            return error
    raise AssertionError("there is no end to the space")


def test_a_nearly_full_disk_gets_smaller_segments(bench: Bench) -> None:
    bench.disk.free = SMALLEST + 1000
    bench.append()
    assert len(bench.on_disk()[0]) == SMALLEST


def test_a_full_disk_refuses_and_takes_the_same_frame_when_space_returns(bench: Bench) -> None:
    bench.append()
    bench.disk.free = SMALLEST + 999  # the reserve is not for hosts
    error = fill(bench)
    assert error.position.endswith(f":{bench.writer.written}")
    end, frames = bench.writer.written, bench.frames()
    bench.disk.free = 1 << 30
    with pytest.raises(NoSpace):
        bench.append()  # hosts in a loop must not make the file system work each time
    bench.world.run_for(RETRY_SPACE_AFTER_S)
    bench.append()
    assert (bench.writer.written > end, bench.frames()) == (True, frames + 1)
    assert [bool(lack) for lack in bench.lacks] == [True, False]


def test_enospc_from_the_disk_itself_is_the_same(bench: Bench) -> None:
    """Free bytes are only a hint: quotas and other programs decide."""
    for code, lack in ((errno.ENOSPC, "file system has no room"), (errno.EDQUOT, "quota .* is used up")):
        bench.disk.fail_preallocate = [code]
        with pytest.raises(NoSpace, match=lack):
            bench.append()
        assert not (bench.directory / timeline_directory(TIMELINE)).exists()
        bench.world.run_for(RETRY_SPACE_AFTER_S)
    bench.append()
    assert bench.frames() == 1


def test_a_small_frame_is_taken_where_a_larger_one_had_no_room(bench: Bench) -> None:
    """The segment that the larger one was to replace is gone by then."""
    bench.disk.fail_pwrite = [errno.EIO]
    with pytest.raises(OSError, match="as the test asked"):
        bench.append()
    bench.disk.free = SMALLEST + 1000
    with pytest.raises(NoSpace):
        bench.append(blocks=2 * SMALLEST // BLOCK_BYTES)
    bench.world.run_for(RETRY_SPACE_AFTER_S)
    bench.append()
    bench.writer.sync_now()
    assert bench.frames() == 1


def test_where_the_size_that_is_due_does_not_fit_a_smaller_one_is_tried(bench: Bench) -> None:
    while bench.writer.segment_bytes < SEGMENT:
        bench.append()
    bench.append(blocks=SEGMENT // BLOCK_BYTES - 2)
    bench.disk.fail_preallocate = [errno.ENOSPC, errno.EDQUOT]
    bench.append(blocks=2)
    assert bench.segments.of_timeline(TIMELINE)[-1].size == SMALLEST


def test_another_error_of_the_disk_is_passed_on(bench: Bench) -> None:
    bench.disk.fail_preallocate = [errno.EIO]
    with pytest.raises(OSError, match="as the test asked") as caught:
        bench.append()
    assert caught.value.errno == errno.EIO
    bench.append()
    assert bench.frames() == 1


def test_the_journal_limit_is_a_limit(directory: Path) -> None:
    bench = Bench(directory, limit_bytes=SEGMENT + SMALLEST)
    error = fill(bench)
    assert f"limit of {SEGMENT + SMALLEST}" in error.message
    assert "journal_limit_bytes" in error.next_step
    assert sum(map(len, bench.on_disk().values())) <= SEGMENT + SMALLEST
    frames = bench.frames()
    bench.writer.limit_bytes = 4 * SEGMENT
    bench.world.run_for(RETRY_SPACE_AFTER_S)
    bench.append()
    assert bench.frames() == frames + 1


def test_the_next_segment_is_prepared_while_this_one_fills(bench: Bench) -> None:
    bench.append()
    assert not bench.disk.exists(SPARE_PATH)
    bench.world.run_for(0)
    assert bench.disk.exists(SPARE_PATH)
    bench.disk.fail_preallocate = [errno.EIO] * 9
    for _ in range(4):
        bench.append()
    assert not bench.disk.exists(SPARE_PATH)
    assert len(bench.on_disk()) == 2
    assert bench.frames() == 5


def test_c54_a_spare_does_not_take_the_last_room(bench: Bench) -> None:
    bench.disk.free = 2 * SMALLEST
    bench.append()
    bench.world.run_for(0)
    assert not bench.disk.exists(SPARE_PATH)


def test_a_spare_does_not_break_the_limit(directory: Path) -> None:
    bench = Bench(directory, limit_bytes=2 * SMALLEST - 1)
    bench.append()
    bench.world.run_for(0)
    assert not bench.disk.exists(SPARE_PATH)


def test_no_inodes_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """`df` shows room then, and who is told "no room" looks in the wrong place."""
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_files=1000, f_favail=0))
    bench.disk.fail_preallocate = [errno.ENOSPC]
    with pytest.raises(NoSpace, match="no inodes left for another journal segment") as caught:
        bench.append()
    assert "df -i" in caught.value.next_step
    assert bench.lacks == ["the file system has no inodes left for another journal segment"]


def test_no_room_for_a_timelines_directory_is_no_room(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first write after a start makes one: hosts got EIO."""

    def refuse(_: str) -> None:
        raise OSError(errno.ENOSPC, "as the test asked")

    with monkeypatch.context() as context:
        context.setattr(bench.disk, "make_directory", refuse)
        with pytest.raises(NoSpace, match="file system"):
            bench.append()
    bench.world.run_for(RETRY_SPACE_AFTER_S)
    bench.append()
    assert bench.frames() == 1


def test_a_file_system_that_became_read_only_is_said_until_it_is_not(bench: Bench) -> None:
    bench.append()
    bench.disk.fail_pwrite = [errno.EROFS, errno.EROFS]
    for _ in range(2):
        with pytest.raises(OSError, match="as the test asked"):
            bench.append()
    assert bench.lacks == ["the file system is read-only"]
    bench.append()
    assert bench.lacks == ["the file system is read-only", ""]
    assert bench.frames() == 2
