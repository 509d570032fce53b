"""The copy table: one row a backup, from its mark."""

from __future__ import annotations

import pytest

from engine.copies.copies import CopyTable
from engine.history.timelines import Span
from protocol.errors import NotFound, Refused
from protocol.events import Consistency, CopyDeleted, CopyPinned, Mark
from protocol.positions import Cut

HERE = [Span(1, 0, 0, 1000)]


def mark(copy_id: int, label: str, cut: Cut | None = None) -> Mark:
    return Mark(
        copy_id=copy_id, label=label, cut=cut, volumes=(10,), consistency=Consistency.CRASH, pinned=False
    )


@pytest.fixture
def copies() -> CopyTable:
    table = CopyTable()
    table.apply(1, 200, 200, 7_000, mark(0xAB, "second"))
    table.apply(1, 100, 100, 5_000, mark(0xCD, "first"))
    table.apply(2, 150, 150, 6_000, mark(0xEF, "elsewhere"))
    return table


def test_a_copys_cut_is_its_marks_own_frame(copies: CopyTable) -> None:
    """Everything before the mark is in, nothing after."""
    copy = copies.find(HERE, "first", "vm1")
    assert (copy.cut, copy.position, copy.utc_ns) == (Cut(1, 100), 100, 5_000)


def test_a_mark_may_name_an_earlier_cut(copies: CopyTable) -> None:
    copies.apply(1, 300, 300, 9_000, mark(1, "late", Cut(1, 42)))
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
    copies.apply(1, 100, 100, 5_000, mark(0xCD, "first"))
    assert len(copies.at(HERE)) == 2


def test_a_deleted_copy_is_gone_where_its_deletion_is_and_its_label_stays_taken(copies: CopyTable) -> None:
    copies.apply(1, 500, 500, 9_000, CopyDeleted(copy_id=0xCD))
    assert [copy.label for copy in copies.at(HERE)] == ["second"]
    assert [copy.label for copy in copies.at([Span(1, 0, 0, 400)])] == ["first", "second"]
    with pytest.raises(NotFound):
        copies.find(HERE, "first", "vm1")
    with pytest.raises(Refused, match="deleted"):
        copies.require_free(HERE, "first", "vm1")


def test_what_is_deleted_keeps_its_cut_until_that_is_durable(copies: CopyTable) -> None:
    everything = {Cut(1, 100), Cut(1, 200), Cut(2, 150)}
    copies.apply(1, 500, 500, 9_000, CopyDeleted(copy_id=0xCD))
    assert copies.retained(HERE, 500) == everything
    assert copies.retained(HERE, 501) == everything - {Cut(1, 100)}
    assert copies.retained([Span(1, 0, 0, 400)], 900) == everything, "deleted on a branch only"
    assert copies.cuts() == everything


def test_a_copy_of_a_branch_stays_until_it_is_deleted_there(copies: CopyTable) -> None:
    copies.apply(2, 300, 300, 9_000, CopyDeleted(copy_id=0xEF))
    assert copies.retained(HERE, 900) == {Cut(1, 100), Cut(1, 200)}


def test_the_newest_word_on_a_pin_counts(copies: CopyTable) -> None:
    assert not copies.find(HERE, "first", "vm1").pinned
    copies.apply(1, 300, 300, 9_000, CopyPinned(copy_id=0xCD, pinned=True))
    copies.apply(1, 600, 600, 9_000, CopyPinned(copy_id=0xCD, pinned=False))
    copies.apply(2, 700, 700, 9_000, CopyPinned(copy_id=0xCD, pinned=True))
    assert not copies.find(HERE, "first", "vm1").pinned
    assert copies.find([Span(1, 0, 0, 500)], "first", "vm1").pinned


def test_what_is_forgotten_of_a_timeline_counts_no_more(copies: CopyTable) -> None:
    copies.apply(1, 300, 300, 9_000, CopyPinned(copy_id=0xCD, pinned=True))
    copies.apply(1, 500, 500, 9_000, CopyDeleted(copy_id=0xCD))
    copies.forget(1, 150)
    assert [copy.label for copy in copies.at(HERE)] == ["first"]
    assert not copies.at(HERE)[0].pinned
