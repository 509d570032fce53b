"""The copy table: one row a backup, from its mark."""

from __future__ import annotations

import pytest

from engine.copies import CopyTable
from engine.timelines import Span
from protocol.errors import NotFound, Refused
from protocol.events import Consistency, Mark
from protocol.positions import Cut

HERE = [Span(1, 0, 0, 1000)]


def mark(copy_id: int, label: str, cut: Cut | None = None) -> Mark:
    return Mark(
        copy_id=copy_id, label=label, cut=cut, volumes=(10,), consistency=Consistency.CRASH, pinned=False
    )


@pytest.fixture
def copies() -> CopyTable:
    table = CopyTable()
    table.marked(1, 200, 200, 7_000, mark(0xAB, "second"))
    table.marked(1, 100, 100, 5_000, mark(0xCD, "first"))
    table.marked(2, 150, 150, 6_000, mark(0xEF, "elsewhere"))
    return table


def test_a_copys_cut_is_its_marks_own_frame(copies: CopyTable) -> None:
    """Everything before the mark is in, nothing after."""
    copy = copies.find(HERE, "first", "vm1")
    assert (copy.cut, copy.position, copy.utc_ns) == (Cut(1, 100), 100, 5_000)


def test_a_mark_may_name_an_earlier_cut(copies: CopyTable) -> None:
    copies.marked(1, 300, 300, 9_000, mark(1, "late", Cut(1, 42)))
    assert copies.find(HERE, "late", "vm1").cut == Cut(1, 42)


def test_copies_are_listed_oldest_first_and_only_those_of_the_lineage(copies: CopyTable) -> None:
    assert [copy.label for copy in copies.at(HERE)] == ["first", "second"]
    assert [copy.label for copy in copies.at([Span(1, 0, 0, 200)])] == ["first"]
    assert [copy.label for copy in copies.at([Span(1, 0, 0, 120), Span(2, 1, 120, 999)])] == [
        "first",
        "elsewhere",
    ]


def test_a_copy_is_found_by_label_or_id(copies: CopyTable) -> None:
    assert copies.find(HERE, "00000000000000ab", "vm1").label == "second"
    for name in ("none", "ab", "elsewhere"):
        with pytest.raises(NotFound, match="vm1"):
            copies.find(HERE, name, "vm1")


def test_a_label_never_changes_what_it_means(copies: CopyTable) -> None:
    with pytest.raises(Refused, match="first"):
        copies.require_free(HERE, "first", "vm1")
    copies.require_free(HERE, "third", "vm1")


def test_seeing_a_mark_again_changes_nothing(copies: CopyTable) -> None:
    copies.marked(1, 100, 100, 5_000, mark(0xCD, "first"))
    assert len(copies.at(HERE)) == 2
