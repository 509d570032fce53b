"""Cuts as `TIMELINE:POSITION`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import UsageError
from protocol.positions import POSITION_MAX, Cut, parse_cut, timeline_text

timelines = st.integers(0, (1 << 64) - 1)


@given(timelines, st.integers(0, POSITION_MAX))
def test_a_cut_survives_its_text(timeline: int, position: int) -> None:
    cut = Cut(timeline, position)
    assert parse_cut(str(cut)) == cut
    assert str(cut) == f"{timeline_text(timeline)}:{position}"


def test_the_text_is_what_file_names_and_exports_use() -> None:
    assert str(Cut(0x8F3A, 4096)) == "0000000000008f3a:4096"
    assert timeline_text((1 << 64) - 1) == "f" * 16


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8f3a:4096",
        "0000000000008f3a",
        "0000000000008f3a:",
        "0000000000008F3A:1",
        "0000000000008f3a:-1",
        "0000000000008f3a:+1",
        "0000000000008f3a:1 ",
        "0000000000008f3a:1\n",
        " 0000000000008f3a:1",
        "00000000000008f3a:1",
        "0000000000008f3a:0x10",
        "0000000000008f3a:１",
        f"0000000000008f3a:{POSITION_MAX + 1}",
        "0000000000008f3a:" + "9" * 30,
    ],
)
def test_anything_else_is_a_usage_error_that_says_how(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_cut(text)
    assert "16 hex digits" in caught.value.next_step


def test_cuts_of_one_timeline_order_by_position() -> None:
    assert sorted([Cut(1, 9), Cut(1, 2), Cut(1, 5)]) == [Cut(1, 2), Cut(1, 5), Cut(1, 9)]
