"""Timelines: lineages, and lanes that never let two timelines claim the same positions."""

from __future__ import annotations

import pytest

from engine.history.timelines import Span, Timeline, TimelineTable, holds, holds_cut
from protocol.errors import Corruption, NotFound
from protocol.limits import LINEAGE_TIMELINES_MAX
from protocol.positions import POSITION_MAX, Cut


def timeline(id_: int, parent: int, fork: int, lane: int = 0) -> Timeline:
    return Timeline(id=id_, parent=parent, fork=fork, generation=id_, writer="lon", lane=lane)


@pytest.fixture
def table() -> TimelineTable:
    """1 to 100, then 2 to 250, then 3; and 4, a branch of 1 at 60."""
    return TimelineTable(
        [timeline(1, 0, 0), timeline(2, 1, 100), timeline(3, 2, 250), timeline(4, 1, 60, lane=1)]
    )


def test_a_lineage_ends_each_span_where_the_next_begins(table: TimelineTable) -> None:
    assert table.lineage(3, 300) == [Span(1, 0, 0, 100), Span(2, 0, 100, 250), Span(3, 0, 250, 300)]
    assert table.lineage(4) == [Span(1, 0, 0, 60), Span(4, 1, 60, POSITION_MAX)]


def test_a_cut_below_a_fork_needs_no_child(table: TimelineTable) -> None:
    """`@TIMELINE:POSITION` of a timeline at the fork itself, or before it."""
    assert table.lineage(3, 250) == [Span(1, 0, 0, 100), Span(2, 0, 100, 250)]
    assert table.lineage(3, 90) == [Span(1, 0, 0, 90)]
    assert table.lineage(1, 0) == []


def test_what_is_not_held_is_not_found(table: TimelineTable) -> None:
    assert 9 not in table
    with pytest.raises(NotFound):
        table.get(9)
    with pytest.raises(NotFound):
        table.lineage(9)


def test_a_timeline_without_its_parent_is_corruption(table: TimelineTable) -> None:
    with pytest.raises(Corruption) as caught:
        table.add(timeline(8, 7, 10))
    assert caught.value.position == str(Cut(7, 10))
    assert 8 not in table


def test_an_event_is_held_inside_a_span_a_cut_also_at_its_end(table: TimelineTable) -> None:
    spans = table.lineage(3, 300)
    assert holds(spans, 1, 99)
    assert not holds(spans, 1, 100)
    assert not holds(spans, 4, 60)
    assert holds_cut(spans, Cut(1, 100))
    assert not holds_cut(spans, Cut(1, 101))
    assert holds_cut(spans, Cut(3, 300))
    assert not holds_cut(spans, Cut(3, 301))


def test_a_child_at_its_parents_end_stays_in_the_lane() -> None:
    table = TimelineTable([timeline(1, 0, 0)])
    assert table.lane_for_child(1, 100, certain=True) == 0


def test_a_child_needs_another_lane_if_its_parent_may_go_on() -> None:
    """The parent's tail holds the same positions with other bytes."""
    table = TimelineTable([timeline(1, 0, 0)])
    assert table.lane_for_child(1, 99, certain=False) == 1


def test_a_timeline_whose_lane_is_taken_further_on_cannot_be_extended(table: TimelineTable) -> None:
    assert not table.may_extend(1, 100)
    assert table.may_extend(3, 400)


def test_a_second_child_at_the_same_place_needs_another_lane(table: TimelineTable) -> None:
    assert table.lane_for_child(1, 100, certain=True) == 2
    assert table.lane_for_child(2, 250, certain=True) == 2
    assert table.lane_for_child(3, 400, certain=True) == 0
    assert table.lane_for_child(4, 90, certain=True) == 1


def test_a_root_beside_others_has_a_lane_of_its_own(table: TimelineTable) -> None:
    assert table.lane_for_child(0, 0, certain=True) == 2
    assert TimelineTable().lane_for_child(0, 0, certain=True) == 0


def test_all_are_listed_by_start(table: TimelineTable) -> None:
    assert [each.id for each in table.all()] == [1, 4, 2, 3]


def test_a_lineage_may_be_as_long_as_there_are_timelines() -> None:
    """Each start that is written to begins one, so those of some years, or of a bad week, are thousands: a
    lineage that was called too long then kept the group closed for ever."""
    many = LINEAGE_TIMELINES_MAX + 100
    table = TimelineTable(timeline(each, each - 1, each - 1) for each in range(1, many + 1))
    assert len(table.lineage(many)) == many


def test_one_that_leads_back_to_itself_is_corruption() -> None:
    table = TimelineTable([timeline(1, 2, 10), timeline(2, 1, 10)])
    with pytest.raises(Corruption):
        table.lineage(2)
