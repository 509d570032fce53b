"""Visibility: which versions count, after restarts, restores, their undoing, and on branches."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.history.timelines import Timeline, TimelineTable
from engine.history.visibility import Interval, Step, step, visibility
from engine.history.volumes import VolumeHistory
from protocol.errors import Refused
from protocol.events import Revert
from protocol.limits import VISIBILITY_INTERVALS_MAX, VOLUMES_PER_GROUP_MAX
from protocol.positions import POSITION_MAX, Cut

VOLUME = 50


class History:
    """One group's timelines and reverts of one volume."""

    def __init__(self) -> None:
        self.timelines = TimelineTable()
        self.volumes = VolumeHistory()

    def timeline(self, id_: int, parent: int = 0, fork: int = 0, lane: int = 0) -> None:
        made = Timeline(id=id_, parent=parent, fork=fork, generation=id_, writer="lon", lane=lane)
        self.timelines.add(made)

    def revert(self, timeline: int, position: int, cut: Cut, volume: int = VOLUME) -> None:
        self.volumes.reverted(timeline, position, Revert(volume=volume, cut=cut))

    def seen(self, timeline: int, position: int = POSITION_MAX) -> tuple[Interval, ...]:
        return visibility(self.timelines, self.volumes, VOLUME, timeline, position)


@pytest.fixture
def history() -> History:
    made = History()
    made.timeline(1)
    return made


def test_a_volume_begins_with_one_interval_from_its_id(history: History) -> None:
    assert history.seen(1, 200) == (Interval(0, 50, 200),)
    assert history.seen(1, 50) == ()


def test_restarts_join_into_one_interval(history: History) -> None:
    history.timeline(2, 1, 100)
    history.timeline(3, 2, 150)
    assert history.seen(3, 200) == (Interval(0, 50, 200),)


def test_another_lane_is_an_interval_of_its_own(history: History) -> None:
    history.timeline(2, 1, 100, lane=1)
    assert history.seen(2, 200) == (Interval(1, 100, 200), Interval(0, 50, 100))


def test_a_revert_puts_the_cut_under_what_comes_after(history: History) -> None:
    history.revert(1, 300, Cut(1, 120))
    assert history.seen(1, 400) == (Interval(0, 300, 400), Interval(0, 50, 120))


def test_a_cut_before_a_revert_does_not_know_it(history: History) -> None:
    history.revert(1, 300, Cut(1, 120))
    assert history.seen(1, 300) == (Interval(0, 50, 300),)


def test_reverts_nest(history: History) -> None:
    """Back to 120; then back to 350, which was itself after the first revert."""
    history.revert(1, 300, Cut(1, 120))
    history.revert(1, 500, Cut(1, 350))
    assert history.seen(1, 600) == (Interval(0, 500, 600), Interval(0, 300, 350), Interval(0, 50, 120))


def test_an_undone_restore_leaves_no_trace_of_it(history: History) -> None:
    """Turned back at 300, and at 400 to just before that: what was between is out, all before is in again."""
    history.revert(1, 300, Cut(1, 120))
    history.revert(1, 400, Cut(1, 300))
    assert history.seen(1, 500) == (Interval(0, 400, 500), Interval(0, 50, 300))


def test_undone_at_once_the_intervals_join(history: History) -> None:
    history.revert(1, 300, Cut(1, 120))
    history.revert(1, 301, Cut(1, 301))
    assert history.seen(1, 500) == (Interval(0, 300, 500), Interval(0, 50, 120))


def test_a_revert_to_before_the_volume_shows_nothing_older(history: History) -> None:
    history.revert(1, 300, Cut(1, 10))
    assert history.seen(1, 400) == (Interval(0, 300, 400),)


def test_a_revert_on_a_branch_counts_there_only(history: History) -> None:
    history.timeline(2, 1, 100)
    history.timeline(3, 1, 100, lane=1)
    history.revert(3, 150, Cut(1, 60))
    assert history.seen(2, 200) == (Interval(0, 50, 200),)
    assert history.seen(3, 200) == (Interval(1, 150, 200), Interval(0, 50, 60))


def test_a_revert_of_another_volume_does_not_count(history: History) -> None:
    history.revert(1, 300, Cut(1, 120), volume=51)
    assert history.seen(1, 400) == (Interval(0, 50, 400),)


def test_a_revert_to_another_timeline_goes_through_its_lineage(history: History) -> None:
    history.timeline(2, 1, 100, lane=1)
    history.timeline(3, 1, 80, lane=2)
    history.revert(3, 150, Cut(2, 130))
    assert history.seen(3, 200) == (Interval(2, 150, 200), Interval(1, 100, 130), Interval(0, 50, 100))


def test_seeing_the_same_revert_again_changes_nothing(history: History) -> None:
    for _ in range(3):
        history.revert(1, 300, Cut(1, 120))
    assert len(history.seen(1, 400)) == 2


def test_too_many_intervals_are_refused_with_a_way_out(history: History) -> None:
    for at in range(VISIBILITY_INTERVALS_MAX):
        assert len(history.seen(1)) == at + 1
        history.revert(1, 1000 * (at + 1), Cut(1, 1000 * (at + 1) - 100))
    with pytest.raises(Refused) as caught:
        history.seen(1)
    assert "nbdcopy" in caught.value.next_step


def walked(history: History, head: int, end: int) -> tuple[Interval, ...]:
    """Worked out anew: nothing is known of it."""
    fresh = VolumeHistory()
    for entry in history.volumes.all_reverts():
        fresh.reverted(entry.timeline, entry.position, Revert(volume=entry.volume, cut=entry.cut))
    return visibility(history.timelines, fresh, VOLUME, head, end)


# Timelines 1 to 3, each from the middle of the one before.
FORKS = {1: (0, 0, 0), 2: (1, 400, 1), 3: (2, 600, 0)}
places = st.sampled_from([1, 2, 3]).flatmap(
    lambda line: st.tuples(st.just(line), st.integers(FORKS[line][1] // 10 + 1, 99).map(lambda at: 10 * at))
)


@given(st.lists(st.tuples(places, places, st.sampled_from(["revert", "look", "forget"])), max_size=30))
def test_what_is_known_is_what_a_walk_finds(
    steps: list[tuple[tuple[int, int], tuple[int, int], str]],
) -> None:
    """Also where a revert comes late, as those of a branch do, and where a branch is dropped."""
    history = History()
    for line, (parent, fork, lane) in FORKS.items():
        history.timeline(line, parent, fork, lane)
    for one, other, verb in steps:
        # A revert goes back to what was there when it was written.
        earlier, (timeline, position) = sorted((one, other), key=lambda place: place[1])
        cut = Cut(*earlier)
        if verb == "revert" and cut.position < position:
            history.revert(timeline, position, cut)
        elif verb == "forget" and timeline == 3:
            history.volumes.forget(timeline, position)
        for head, end in ((1, 1000), (2, 1000), (3, 1000), one, other):
            assert history.seen(head, end) == walked(history, head, end)


def test_a_thousand_restores_are_worked_out_once(history: History) -> None:
    looked = 0
    last_revert = VolumeHistory.last_revert

    def counted(*arguments: Any) -> Any:
        nonlocal looked
        looked += 1
        return last_revert(*arguments)

    for at in range(1, 1001):
        history.revert(1, 1000 * at, Cut(1, 1000 * at - 100))
    assert len(history.seen(1)) == 1001
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VolumeHistory, "last_revert", counted)
        assert len(history.seen(1)) == 1001
        assert looked == 1
        history.revert(1, 2_000_000, Cut(1, 1_999_900))
        assert len(history.seen(1)) == 1002
        assert looked == 3


def test_of_many_volumes_a_restore_is_a_few_steps_for_each(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them are turned back together, again and again, and shown after each."""
    steps = 0

    def counted(*arguments: Any) -> Step | None:
        nonlocal steps
        steps += 1
        return step(*arguments)

    monkeypatch.setattr("engine.history.visibility.step", counted)
    volumes, deep = range(50, 50 + VOLUMES_PER_GROUP_MAX), 30
    for turn in range(deep):
        position = 1000 * (turn + 1)
        for volume in volumes:
            history.revert(1, position + volume, Cut(1, position - 300), volume)
        steps = 0
        for volume in volumes:
            found = visibility(history.timelines, history.volumes, volume, 1, position + 999)
            assert len(found) == turn + 2
        assert steps <= 2 * len(volumes)
