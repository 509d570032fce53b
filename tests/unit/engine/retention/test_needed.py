"""What must stay readable: horizons, kept cuts, bounds, and which versions those need."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.history.bases import FIRST_BASE_LANE
from engine.history.timelines import Base, Timeline, TimelineTable
from engine.history.volumes import VolumeHistory
from engine.retention.cut_bounds import BoundsOfCuts
from engine.retention.needed import (
    Anchor,
    Keep,
    Retention,
    cut_back,
    departures,
    lane_horizons,
    needed,
    raised,
    readable,
    same_name,
    what_to_keep,
)
from protocol.errors import RemoteProtocolError
from protocol.events import Revert
from protocol.positions import Cut
from protocol.rows import pack_row, unpack_row

ROOT, HEAD, BRANCH = 1, 2, 3


def table() -> TimelineTable:
    """The head left the root at 100; so did a branch, at 60, in a lane of its own."""
    made = TimelineTable()
    for id_, parent, fork, lane in ((ROOT, 0, 0, 0), (HEAD, ROOT, 100, 0), (BRANCH, ROOT, 60, 1)):
        made.add(Timeline(id=id_, parent=parent, fork=fork, generation=1, writer="lon", lane=lane))
    return made


@given(
    st.lists(st.integers(0, 40), unique=True, min_size=1).map(sorted),
    st.sets(st.integers(0, 41), min_size=1),
)
def test_exactly_what_a_reader_finds_is_needed(numbers: list[int], bounds: set[int]) -> None:
    """A reader bound to b finds the newest version numbered below b."""
    found = {max(n for n in numbers if n < b) for b in bounds if any(n < b for n in numbers)}
    ordered = tuple(sorted(bounds))
    for p, newer in pairwise(numbers):
        assert needed(p, newer, ordered) == (p in found)


def test_a_childs_start_is_its_parents_place() -> None:
    assert same_name(table(), Cut(HEAD, 100)) == Cut(ROOT, 100)
    assert same_name(table(), Cut(HEAD, 101)) == Cut(HEAD, 101)
    assert same_name(table(), Cut(ROOT, 0)) == Cut(ROOT, 0)


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        (Cut(HEAD, 150), True),
        (Cut(HEAD, 149), False),
        (Cut(HEAD, 100), False),
        (Cut(ROOT, 40), False),
        (Cut(ROOT, 50), True),  # kept
        (Cut(BRANCH, 61), True),
        (Cut(BRANCH, 60), False),  # the root's 60, which nobody keeps here
        (Cut(ROOT, 120), True),  # past the fork: a tail, no part of the head's lineage
    ],
)
def test_what_is_readable_below_a_floor(cut: Cut, expected: bool) -> None:
    retention = Retention(horizons=frozenset({Cut(HEAD, 150)}), kept={Cut(ROOT, 50): Anchor(b"", 0)})
    assert readable(table(), retention, cut) is expected


def test_a_floor_replaces_those_on_the_way_to_it_and_never_sinks() -> None:
    horizons = raised(table(), frozenset(), Cut(ROOT, 50))
    horizons = raised(table(), horizons, Cut(HEAD, 150))
    assert horizons == {Cut(HEAD, 150)}
    assert raised(table(), horizons, Cut(ROOT, 80)) == horizons
    both = raised(table(), horizons, Cut(BRANCH, 90))
    assert both == {Cut(HEAD, 150), Cut(BRANCH, 90)}
    assert lane_horizons(table(), both) == {0: 150, 1: 90}


def test_a_branch_keeps_the_place_where_it_left() -> None:
    assert departures(table(), [Cut(HEAD, 150)], tails=()) == {Cut(ROOT, 60)}
    assert departures(table(), [Cut(HEAD, 150)], tails=[ROOT]) == {Cut(ROOT, 60), Cut(ROOT, 100)}


def test_what_was_given_up_does_not_come_back() -> None:
    """A mark that names an old cut keeps it only if it is still whole."""
    history, horizons = VolumeHistory(), frozenset({Cut(HEAD, 150)})
    bounds = BoundsOfCuts(table(), history)
    before = Retention(horizons=horizons, kept={Cut(ROOT, 50): Anchor(b"d", 7)})
    wanted = [Cut(ROOT, 50), Cut(ROOT, 70), Cut(HEAD, 160), Cut(99, 5)]
    keep = what_to_keep(table(), history, before, horizons, wanted, (), bounds.of)
    assert keep.cuts == {Cut(ROOT, 50)}
    assert keep.bounds[0] == (50, 150)


def test_reverts_above_the_floor_keep_what_they_go_back_to() -> None:
    history = VolumeHistory()
    history.reverted(HEAD, 170, Revert(volume=5, cut=Cut(ROOT, 30)))
    bounds = BoundsOfCuts(table(), history)
    horizons = frozenset({Cut(HEAD, 150)})
    keep = what_to_keep(table(), history, Retention(), horizons, (), (), bounds.of)
    assert keep.cuts == {Cut(ROOT, 30), Cut(ROOT, 60)}
    assert keep.bounds[0] == (30, 60, 150)
    # Below the horizon it is what the horizon's own view sees.
    horizons = frozenset({Cut(HEAD, 180)})
    keep = what_to_keep(table(), history, Retention(), horizons, (), (), bounds.of)
    assert keep.cuts == {Cut(ROOT, 60)}
    assert keep.bounds[0] == (30, 60, 180)


def test_a_base_keeps_what_it_stands_on() -> None:
    """Frames that were here went on from the base's start, and the horizon came to lie among them: the base
    was laid upon other blocks than it was made for, and the mirror was wrong."""
    held = table()
    held.bases = [
        Base(
            cut=Cut(ROOT, 90),
            start=Cut(ROOT, 20),
            timeline=7,
            lane=FIRST_BASE_LANE,
            end=10,
            utc_ns=1,
            digest=b"",
            left=Cut(ROOT, 50),
        )
    ]
    history = VolumeHistory()
    bounds = BoundsOfCuts(held, history)
    keep = what_to_keep(held, history, Retention(), frozenset({Cut(ROOT, 40)}), (), (), bounds.of)
    assert keep.cuts == {Cut(ROOT, 20)}
    assert keep.bounds[0] == (20, 40)
    # Past the base it is what the horizon's own view sees.
    keep = what_to_keep(held, history, Retention(), frozenset({Cut(HEAD, 150)}), (), (), bounds.of)
    assert keep.cuts == {Cut(ROOT, 60)}
    assert keep.bounds[0] == (20, 60, 150)


def test_bounds_are_worked_out_anew_where_history_became_another() -> None:
    """A branch was dropped, and its timeline came back in another lane; a restore went back to what was not
    here, and is now; one was forgotten with a tail, in whose place other frames came."""
    held, history = table(), VolumeHistory()
    history.reverted(HEAD, 170, Revert(volume=5, cut=Cut(BRANCH, 80)))
    bounds = BoundsOfCuts(held, history)
    assert bounds.of([Cut(HEAD, 180)]) == {0: (60, 180), 1: (80,)}
    branch = held.get(BRANCH)
    held.remove(BRANCH)
    assert bounds.of([Cut(HEAD, 180)]) == {0: (180,)}
    held.add(replace(branch, lane=4))
    assert bounds.of([Cut(HEAD, 180)]) == {0: (60, 180), 4: (80,)}
    history.forget(HEAD, 150)
    assert bounds.of([Cut(HEAD, 180)]) == {0: (180,)}


def test_rows_survive() -> None:
    retention = Retention(
        horizons=frozenset({Cut(HEAD, 150)}),
        kept={Cut(ROOT, 50): Anchor(b"x" * 16, 9), Cut(ROOT, 60): Anchor(b"", 0)},
        truncated={ROOT: (100, Anchor(b"y" * 16, 11))},
    )
    assert Retention.from_value(retention.to_value()) == retention
    assert retention.anchor(ROOT, 50) == Anchor(b"x" * 16, 9)
    assert retention.anchor(ROOT, 60) is None
    assert retention.anchor(ROOT, 100) == Anchor(b"y" * 16, 11)
    assert retention.truncated_to(ROOT) == 100
    assert retention.truncated_to(HEAD) == 0
    keep = Keep(
        horizons=retention.horizons, cuts=frozenset(retention.kept), lane_horizons={0: 3}, bounds={0: (1, 3)}
    )
    assert Keep.from_row(unpack_row(pack_row(keep.to_row()))) == keep
    with pytest.raises(RemoteProtocolError):
        Retention.from_value(pack_row((1, 2, 3)))


def test_floors_of_what_is_dropped_go_back_to_where_it_left() -> None:
    forks = {3: Cut(2, 50), 2: Cut(1, 20)}
    horizons = [Cut(1, 10), Cut(3, 90)]
    assert cut_back(horizons, [], forks.__getitem__) == frozenset(horizons)
    assert cut_back(horizons, [(3, 50)], forks.__getitem__) == {Cut(1, 10), Cut(2, 50)}
    assert cut_back(horizons, [(2, 20), (3, 50)], forks.__getitem__) == {Cut(1, 10), Cut(1, 20)}
    assert cut_back(horizons, [(3, 70)], forks.__getitem__) == {Cut(1, 10), Cut(3, 70)}
    assert cut_back(horizons, [(3, 95)], forks.__getitem__) == set(horizons)
    assert cut_back([Cut(5, 9)], [(5, 0)], lambda _: Cut(0, 0)) == frozenset()
