"""The map of segment files: found by timeline and by lane, few of them open."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.journal import segments as segments_module
from engine.journal.segments import Segment, SegmentMap
from engine.ports.durable import RealDisk
from protocol.errors import Corruption

ONE, TWO = 0x11, 0x22


def store(directory: Path, timeline: int, start: int, content: bytes) -> None:
    path = directory / Segment(timeline, start, 0).path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def segments(directory: Path) -> SegmentMap:
    """Timeline 0x11 from 0 to 300 in three files, its child 0x22 from 300 on in the same lane."""
    for start in (0, 100, 200):
        store(directory, ONE, start, bytes([start // 100]) * 100)
    store(directory, TWO, 300, b"\x09" * 100)
    (directory / "journal/notes.txt").write_text("not ours")
    made = SegmentMap(RealDisk(directory, None))
    made.load()
    for timeline in (ONE, TWO):
        made.set_lane(timeline, 0)
    return made


def start_at(segments: SegmentMap, timeline: int, position: int) -> int | None:
    segment = segments.segment_at(timeline, position)
    return segment.start if segment else None


def test_what_is_on_disk_is_found(segments: SegmentMap) -> None:
    assert segments.timelines() == [ONE, TWO]
    assert [(s.start, s.size) for s in segments.of_timeline(ONE)] == [(0, 100), (100, 100), (200, 100)]
    assert segments.total_bytes() == 400
    assert segments.of_timeline(0x33) == []


def test_a_position_is_in_the_last_segment_that_begins_at_or_before_it(segments: SegmentMap) -> None:
    assert [start_at(segments, ONE, position) for position in (0, 99, 100, 250, 999)] == [0, 0, 100, 200, 200]
    assert start_at(segments, TWO, 299) is None
    assert start_at(segments, 0x33, 0) is None


def test_bytes_are_read_by_lane_over_all_its_timelines(segments: SegmentMap) -> None:
    assert segments.read_bytes(0, 150, 3) == b"\x01\x01\x01"
    assert segments.read_bytes(0, 300, 3) == b"\x09\x09\x09"
    assert segments.run_bytes(0, 150) == 50
    assert segments.run_bytes(1, 150) == 0


@pytest.mark.parametrize(("lane", "number", "length"), [(0, 390, 20), (0, 195, 10), (1, 0, 1), (0, 400, 1)])
def test_bytes_that_are_not_there_are_corruption(
    segments: SegmentMap, lane: int, number: int, length: int
) -> None:
    with pytest.raises(Corruption) as caught:
        segments.read_bytes(lane, number, length)
    assert caught.value.position == str(number)


def test_files_made_since_are_found_by_loading_again(segments: SegmentMap, directory: Path) -> None:
    store(directory, TWO, 400, b"\x0a" * 100)
    segments.load()
    segments.set_lane(TWO, 0)
    assert segments.read_bytes(0, 400, 1) == b"\x0a"
    assert segments.total_bytes() == 500


def test_a_file_that_was_made_anew_is_opened_anew(segments: SegmentMap, directory: Path) -> None:
    """The indexer keeps its map while the daemon comes back to the end of a timeline that it had left."""
    assert segments.read_bytes(0, 300, 1) == b"\x09"
    (directory / Segment(TWO, 300, 0).path).unlink()
    store(directory, TWO, 300, b"\x0b" * 100)
    segments.load_timeline(TWO)
    assert segments.read_bytes(0, 300, 1) == b"\x0b"


def test_a_forgotten_segment_is_out_of_everything(segments: SegmentMap) -> None:
    segment = segments.segment_at(ONE, 200)
    assert segment is not None
    segments.forget(segment)
    assert start_at(segments, ONE, 250) == 100
    with pytest.raises(Corruption):
        segments.read_bytes(0, 250, 1)


def test_few_files_are_open_and_all_can_be_read(
    segments: SegmentMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments_module, "OPEN_FILES_MAX", 2)
    segments.close()
    opened = []
    for number in (0, 100, 200, 300, 0, 100, 200, 300):
        assert len(segments.read_bytes(0, number, 100)) == 100
        opened.append(segments.file(segments.of_timeline(TWO)[0]))
    assert len(set(opened)) > 1


def test_a_file_that_has_gone_is_corruption(segments: SegmentMap, directory: Path) -> None:
    segments.close()
    segment = segments.of_timeline(TWO)[0]
    (directory / segment.path).unlink()
    with pytest.raises(Corruption, match="missing") as caught:
        segments.read_bytes(0, 300, 1)
    assert caught.value.subject == segment.path
