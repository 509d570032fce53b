"""Names of journal files: what we write we find again, and nothing else is taken for ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.journal.format import segment_path, start_from_name, timeline_directory, timeline_from_name

numbers = st.integers(0, (1 << 64) - 1)


@given(numbers, numbers)
def test_a_segments_path_says_timeline_and_position(timeline: int, start: int) -> None:
    folder, _, name = segment_path(timeline, start).rpartition("/")
    assert folder == timeline_directory(timeline)
    assert timeline_from_name(folder.rpartition("/")[2]) == timeline
    assert start_from_name(name) == start


def test_the_layout_never_changes() -> None:
    assert segment_path(0x8F3A, 4096) == "journal/0000000000008f3a/0000000000001000.seg"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "8f3a",
        "0000000000008F3A",
        "0000000000008f3a.seg",
        "lost+found",
        "00000000000008f3a",
        "-00000000000008f",
    ],
)
def test_other_directories_are_not_ours(name: str) -> None:
    assert timeline_from_name(name) is None


@pytest.mark.parametrize(
    "name", ["spare.seg", "0000000000001000", "0000000000001000.seg.tmp", "1000.seg", "000000000000100g.seg"]
)
def test_other_files_are_not_ours(name: str) -> None:
    assert start_from_name(name) is None
