"""Appending and making durable are two verbs: what each promises, and what happens when the disk says no."""

from __future__ import annotations

import errno
from itertools import pairwise
from pathlib import Path

import pytest

from engine.journal import room
from engine.journal import segments as segments_module
from engine.journal import writer as writer_module
from engine.journal.format import SPARE_PATH, segment_path, timeline_directory
from engine.journal.reader import JournalReader
from protocol.errors import WrongState
from protocol.limits import BLOCK_BYTES, SYNC_AFTER_S
from tests.unit.engine.journal.writer_bench import SEGMENT, SMALLEST, TIMELINE, Bench


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch, small_segments: None) -> None:
    monkeypatch.setattr(room, "SEGMENT_BYTES", SEGMENT)
    monkeypatch.setattr(room, "SEGMENT_BYTES_MIN", SMALLEST)
    monkeypatch.setattr(writer_module, "truncation_bytes", lambda *_: 0)  # of several segments' size here


@pytest.fixture
def bench(directory: Path) -> Bench:
    return Bench(directory)


# Writing.


def test_what_is_appended_is_in_the_file_and_not_called_durable(bench: Bench) -> None:
    frame = bench.append()
    content = bench.on_disk()[0]
    assert content[: len(frame.raw)] == frame.raw
    assert len(content) == SMALLEST
    assert not any(content[len(frame.raw) :])
    assert (bench.writer.written, bench.writer.durable) == (frame.prefix.end, 0)
    assert bench.disk.syncs == []


def test_a_frame_that_does_not_continue_the_journal_is_refused(bench: Bench) -> None:
    frame = bench.append()
    for stranger in (frame, bench.frame(timeline=TIMELINE + 1)):
        with pytest.raises(WrongState):
            bench.writer.append(stranger)
    assert bench.writer.written == frame.prefix.end


def test_a_frame_never_spans_two_files(bench: Bench) -> None:
    """One that does not fit begins the next, whose name is its position; the one before is cut to its
    frames."""
    for _ in range(40):
        bench.append()
    files = bench.on_disk()
    starts = sorted(files)
    for start, following in pairwise(starts):
        assert start + len(files[start]) == following
    assert bench.frames() == 40


def test_c41_segments_grow_with_what_the_timeline_holds(bench: Bench) -> None:
    """40 groups that are hardly written must not take 64 MiB each, twice with the spare one; a busy one soon
    has the largest, in the next timeline too."""
    sizes = []
    for _ in range(60):
        bench.append()
        sizes.append(bench.segments.of_timeline(TIMELINE)[-1].size)
        bench.world.run_for(0)
        spare = bench.directory / SPARE_PATH
        assert spare.stat().st_size <= 2 * sizes[-1]
    assert list(dict.fromkeys(sizes)) == [SMALLEST, 2 * SMALLEST, SEGMENT]
    while bench.writer.written < 9 * SEGMENT:
        bench.append()
    bench.writer.start(TIMELINE + 1, 1, bench.writer.written)
    bench.append()
    assert bench.segments.of_timeline(TIMELINE + 1)[0].size == SEGMENT


def test_c41_a_frame_larger_than_the_first_segments_gets_one_of_its_size(bench: Bench) -> None:
    bench.append(blocks=2 * SMALLEST // BLOCK_BYTES)
    assert len(bench.on_disk()[0]) == 3 * SMALLEST
    assert bench.frames() == 1


def test_a_segment_is_made_ahead_for_large_frames_too(bench: Bench) -> None:
    """A spare that no frame fitted into stayed for good, and each segment was made while hosts waited."""
    bench.append()
    bench.world.run_for(0)
    bench.disk.made.clear()
    for _ in range(12):
        bench.append(blocks=2 * SMALLEST // BLOCK_BYTES)
        bench.world.run_for(0)
    assert bench.disk.made.count(SPARE_PATH) >= 8
    assert [path for path in bench.disk.made if path != SPARE_PATH] == bench.disk.made[:1]
    assert bench.frames() == 13


def test_c54_eight_segments_fit_into_the_room_that_there_is(bench: Bench) -> None:
    """The journal is shortened by whole segments: one of half the file system would never go."""
    bench.disk.free = 8 * SMALLEST + 1000
    for _ in range(12):
        bench.append()
    assert all(segment.size <= SMALLEST for segment in bench.segments.of_timeline(TIMELINE))


def test_a_failed_write_moves_nothing_and_may_be_tried_again(bench: Bench) -> None:
    bench.append()
    end = bench.writer.written
    bench.disk.fail_pwrite = [errno.EIO]
    with pytest.raises(OSError, match="as the test asked"):
        bench.append()
    assert bench.writer.written == end
    bench.append()
    assert bench.frames() == 2


def test_a_larger_frame_where_the_first_of_a_segment_failed_gets_a_segment_of_its_size(bench: Bench) -> None:
    bench.disk.fail_pwrite = [errno.EIO]
    with pytest.raises(OSError, match="as the test asked"):
        bench.append()
    bench.append(blocks=2 * SMALLEST // BLOCK_BYTES)
    assert len(bench.on_disk()[0]) == 3 * SMALLEST  # all of its room is there
    assert bench.frames() == 1


def test_what_comes_where_a_write_failed_is_durable_at_once(bench: Bench) -> None:
    """The failed frame may be in the file in full, and a power loss may bring it back in place of the next
    one, which the peer may have by then."""
    bench.append()
    bench.disk.fail_pwrite = [errno.EIO]
    with pytest.raises(OSError, match="as the test asked"):
        bench.append(blocks=2)
    assert bench.disk.syncs == []
    bench.append()
    assert [files for files, _ in bench.disk.syncs] == [[segment_path(TIMELINE, 0)]]
    bench.append()
    assert len(bench.disk.syncs) == 1
    assert bench.frames() == 3


def test_a_sync_that_fails_there_moves_nothing(bench: Bench) -> None:
    bench.append()
    end = bench.writer.written
    bench.disk.fail_pwrite = [errno.EIO]
    with pytest.raises(OSError, match="as the test asked"):
        bench.append()
    bench.disk.sync_error = OSError(errno.EIO, "the sync failed")
    with pytest.raises(OSError, match="the sync failed"):
        bench.append()
    assert bench.writer.written == end
    assert bench.failures


def test_the_writers_file_may_be_closed_under_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading many old segments opens as many files, and the oldest open one is closed: it may be the one
    that is written, or one that waits for its sync."""
    for _ in range(120):
        bench.append()
    monkeypatch.setattr(segments_module, "OPEN_FILES_MAX", 2)
    for _ in range(3):
        assert bench.frames() >= 120
        bench.append()
    answers = bench.wait_for(bench.writer.written)
    assert len(bench.disk.waiting) == 1
    bench.disk.finish()
    assert answers == [None]


# Durability.


def test_one_sync_covers_whatever_was_written_when_it_began(bench: Bench) -> None:
    """Group commit: five hosts ask, two syncs answer."""
    bench.append()
    first = bench.wait_for(bench.writer.written)
    later = []
    for _ in range(4):
        bench.append()
        later.append(bench.wait_for(bench.writer.written))
    assert len(bench.disk.waiting) == 1
    bench.disk.finish()
    assert first == [None]
    assert later == [[], [], [], []]
    assert len(bench.disk.waiting) == 1
    bench.disk.finish()
    assert later == [[None]] * 4
    assert bench.disk.waiting == []
    assert len(bench.disk.syncs) == 2
    assert bench.durables == 2


def test_who_asks_for_what_is_durable_is_answered_at_once(bench: Bench) -> None:
    bench.append()
    position = bench.writer.written
    bench.wait_for(position)
    bench.disk.finish()
    assert bench.wait_for(position) == [None]
    assert bench.wait_for(0) == [None]
    assert len(bench.disk.syncs) == 1


def test_unasked_a_sync_begins_after_a_while(bench: Bench) -> None:
    bench.append()
    bench.world.run_for(SYNC_AFTER_S * 0.9)
    assert bench.disk.waiting == []
    bench.world.run_for(SYNC_AFTER_S * 0.2)
    assert len(bench.disk.waiting) == 1
    bench.append()
    bench.disk.finish()
    assert bench.writer.durable < bench.writer.written
    bench.world.run_for(SYNC_AFTER_S * 1.1)
    bench.disk.finish()
    assert bench.writer.durable == bench.writer.written
    bench.world.run_for(10)
    assert len(bench.disk.syncs) == 2


def test_unasked_a_sync_begins_after_so_many_bytes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "SYNC_AFTER_BYTES", 10_000)
    bench.append()
    bench.append()
    assert bench.disk.waiting == []
    bench.append()
    assert len(bench.disk.waiting) == 1


def test_a_sync_covers_every_file_written_and_the_new_names(bench: Bench) -> None:
    for _ in range(20):
        bench.append()
    bench.wait_for(bench.writer.written)
    files, directories = bench.disk.syncs[0]
    assert files == [segment_path(TIMELINE, start) for start in sorted(bench.on_disk())]
    assert directories == [timeline_directory(TIMELINE)]
    bench.disk.finish()
    bench.append()
    bench.wait_for(bench.writer.written)
    assert bench.disk.syncs[1] == ([files[-1]], [])


def test_sync_now_waits_for_nobody_and_claims_only_what_it_synced(bench: Bench) -> None:
    """What a sync under way covers is not durable yet. Taking it for granted, a fork would become the head
    above a parent that a power loss still takes."""
    bench.append()
    asked = bench.wait_for(bench.writer.written)
    under_way = bench.disk.syncs[0]
    bench.writer.sync_now()
    assert bench.disk.syncs[1] == under_way
    assert bench.writer.durable == bench.writer.written
    assert asked == [None]
    bench.disk.finish()
    assert bench.writer.durable == bench.writer.written


# A sync that fails.


def test_after_a_failed_sync_nothing_more_is_trusted(bench: Bench) -> None:
    """The kernel calls the pages clean and the next sync a success: so there is no next sync."""
    bench.append()
    bench.wait_for(bench.writer.written)
    bench.disk.finish()
    durable = bench.writer.durable
    bench.append()
    answers = [bench.wait_for(bench.writer.written) for _ in range(3)]
    bench.append()
    answers.append(bench.wait_for(bench.writer.written))
    error = OSError(errno.EIO, "the disk is gone")
    bench.disk.finish(error)
    assert answers == [[error]] * 4
    assert bench.failures == [error]
    assert bench.writer.durable == durable
    with pytest.raises(OSError, match="restart"):
        bench.append()
    assert bench.wait_for(durable + 1) == [error]
    bench.world.run_for(60)
    assert bench.disk.waiting == []


def test_a_failed_sync_now_fails_the_writer_too(bench: Bench) -> None:
    bench.append()
    bench.disk.sync_error = OSError(errno.EIO, "the disk is gone")
    with pytest.raises(OSError, match="gone"):
        bench.writer.sync_now()
    assert len(bench.failures) == 1
    assert bench.writer.durable == 0


def test_a_sync_that_succeeds_after_another_failed_proves_nothing(bench: Bench) -> None:
    """The one that failed took the error, and the pages, that this one should have met."""
    bench.append()
    answers = bench.wait_for(bench.writer.written)
    bench.disk.sync_error = OSError(errno.EIO, "the disk is gone")
    with pytest.raises(OSError, match="gone"):
        bench.writer.sync_now()
    bench.disk.finish()
    bench.disk.sync_error = None
    with pytest.raises(OSError, match="restart"):
        bench.writer.sync_now()
    assert answers == bench.failures
    assert bench.writer.durable == 0


def test_a_sync_that_cannot_begin_has_failed(bench: Bench) -> None:
    """The file has gone from the directory: better said than waited for."""
    bench.append()
    bench.segments.close()
    (bench.directory / segment_path(TIMELINE, 0)).unlink()
    (answer,) = bench.wait_for(bench.writer.written)
    assert isinstance(answer, OSError)
    assert bench.writer.failed is answer


@pytest.mark.parametrize("under_way", [False, True])
def test_what_was_reclaimed_is_not_synced(bench: Bench, under_way: bool) -> None:
    """A segment's last cut waits for a sync like a write does; once everything in it is durable, it may go
    before that begins. On a nearly full disk every twentieth journal failed so, and waited for a restart."""
    bench.append()
    answers = bench.wait_for(bench.writer.written)
    if not under_way:
        bench.disk.finish()
    while len(bench.on_disk()) < 2:
        bench.append()
    old, _ = bench.segments.of_timeline(TIMELINE)
    bench.segments.forget(old)
    bench.disk.remove(old.path)
    answers_later = bench.wait_for(bench.writer.written)
    bench.writer.sync_now()
    for _ in list(bench.disk.waiting):
        bench.disk.finish()
    assert answers + answers_later == [None, None]
    assert bench.writer.failed is None
    assert bench.writer.durable == bench.writer.written


def test_a_directory_that_went_with_its_last_segment_is_not_synced(bench: Bench) -> None:
    bench.append()
    (only,) = bench.segments.of_timeline(TIMELINE)
    bench.writer.start(TIMELINE + 1, 1, bench.writer.written)
    bench.append()
    bench.segments.forget(only)
    bench.disk.remove(only.path)
    bench.disk.remove(timeline_directory(TIMELINE))
    bench.writer.sync_now()
    assert bench.writer.durable == bench.writer.written


def test_closing_tells_whoever_waits(bench: Bench) -> None:
    bench.append()
    answers = bench.wait_for(bench.writer.written)
    bench.writer.close()
    assert [isinstance(answer, OSError) for answer in answers] == [True]


# Another timeline.


def test_a_timeline_begun_twice_uses_the_place_again(bench: Bench) -> None:
    """A follower that could not finish taking in a fork is given the same fork again."""
    for _ in range(3):
        bench.append()
    bench.writer.sync_now()
    position, digest = bench.writer.written, bench.digest
    for _ in range(2):
        bench.writer.start(TIMELINE + 1, 0, position)
        bench.append()
        bench.writer.start(TIMELINE, 0, position)
        bench.digest = digest
    bench.writer.start(TIMELINE + 1, 0, position)
    bench.append()
    bench.append()
    bench.writer.sync_now()
    reader = JournalReader(bench.segments)
    assert len(list(reader.frames(TIMELINE + 1, position, bench.writer.written, digest))) == 2
