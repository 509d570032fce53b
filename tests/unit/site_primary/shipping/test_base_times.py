"""Times at a site that has a base: what lies in its gap is refused, and what is here is found."""

from __future__ import annotations

import pytest

from engine.history.cuts import cut_at_time
from engine.history.reach import gaps
from protocol.errors import Trimmed
from protocol.positions import Cut
from tests.unit.engine.group_rig import follow
from tests.unit.site_primary.shipping.base_pair import BasePair


def test_times_in_the_gap_are_refused(pair: BasePair) -> None:
    volume = pair.one.create("root", 8)
    times = []
    for letter in (b"a", b"b", b"c", b"d", b"e"):
        pair.one.settle(10.0)
        pair.one.write(volume, 0, letter)
        times.append(pair.one.group.head.utc_ns)
        if letter == b"b":
            follow(pair.one, pair.other)
            start = pair.other.end
    cut = pair.copy(start)
    group = pair.other.group
    assert cut_at_time(group, times[4]) == cut
    first = cut_at_time(group, times[0])
    assert pair.other.letters("root", first)[0] == "a"
    for at in (times[1], times[2], times[3]):
        with pytest.raises(Trimmed):
            cut_at_time(group, at)


def write_later(pair: BasePair, volume: int, block: int) -> tuple[Cut, int]:
    """Ten seconds after the last one; the cut behind it and its time."""
    pair.one.settle(10.0)
    pair.one.write(volume, block, b"x")
    return pair.one.end, pair.one.group.head.utc_ns


@pytest.mark.parametrize("went_on", [False, True])
def test_what_was_here_past_the_start_of_a_base_is_found_by_its_time(pair: BasePair, went_on: bool) -> None:
    """The other site could no longer read where this one was, and sent a base on an earlier cut of both. This
    one may have written something of its own meanwhile, which is a branch then."""
    volume = pair.one.create("root", 8)
    start = pair.one.end
    cuts, times = [], []
    for number in range(6):
        cut, utc_ns = write_later(pair, volume, number)
        cuts.append(cut)
        times.append(utc_ns)
        if number == 2:
            follow(pair.one, pair.other)
            pair.other.sync()
    if went_on:
        pair.other.group.head.sealed = False  # as of who follows
        pair.other.write(volume, 1, b"u")
        pair.leave = True
    base = pair.copy(start)
    group = pair.other.group
    for cut, utc_ns in zip(cuts[:2], times[:2], strict=True):
        assert cut_at_time(group, utc_ns) == cut
        assert pair.other.letters("root", cut) == pair.one.letters("root", cut)
    # Of what came at that time only the outcome is here: the frame at the edge may not have been the last.
    for at in times[2:5]:
        with pytest.raises(Trimmed, match=f"after {cuts[2]}"):
            cut_at_time(group, at)
    assert cut_at_time(group, times[5]) == base
    assert gaps(group) == [(cuts[2], base)]


def test_times_in_a_gap_above_a_base_are_refused_too(pair: BasePair) -> None:
    """The second base stands on the same cut as the first, whose cut is where its gap begins."""
    volume = pair.one.create("root", 8)
    follow(pair.one, pair.other)
    start = pair.other.end
    pair.other.sync()
    cuts, times = [], []
    for number in range(6):
        cut, utc_ns = write_later(pair, volume, number)
        cuts.append(cut)
        times.append(utc_ns)
        if number in (2, 5):
            assert pair.copy(start) == cuts[-1]
    group = pair.other.group
    for at in times[:5]:
        with pytest.raises(Trimmed):
            cut_at_time(group, at)
    assert cut_at_time(group, times[5]) == cuts[5]
    assert gaps(group) == [(start, cuts[2]), (cuts[2], cuts[5])]
