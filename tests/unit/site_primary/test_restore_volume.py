"""Turning volumes back to a cut, undoing it, and the check that claims success."""

from __future__ import annotations

import random
from typing import Any

import pytest

from engine.index.deep_view import DEEP_FROM
from engine.index.view import VolumeView
from engine.peering.restore_ways import depth_of
from engine.steps import at_once
from protocol.errors import Mismatch, NotFound
from protocol.events import VolumeDeleted
from protocol.positions import Cut
from site_primary.restore_volume import (
    STEP_BLOCKS,
    RestorePlan,
    carry_out,
    check_restored,
    plan_restore,
)
from tests.unit.engine.group_rig import GroupRig, follow
from tests.unit.engine.retention.test_reclaim import truncate


class Two:
    """Volumes `root` and `data`, changed after `cut`."""

    def __init__(self, rig: GroupRig) -> None:
        self.rig = rig
        self.root = rig.create("root", 4)
        self.data = rig.create("data", 4)
        rig.write(self.root, 0, b"a", b"b")
        rig.write(self.data, 0, b"x")
        self.cut = rig.end
        rig.write(self.root, 1, b"c", b"d")
        rig.write(self.data, 0, b"y")

    def restore(self, *names: str, cut: Cut | None = None) -> RestorePlan:
        plan = plan_restore(self.rig.group, list(names), cut or self.cut, skip_missing=False)
        carry_out(self.rig.group, plan)
        return plan

    def check(self, plan: RestorePlan) -> int:
        return at_once(check_restored(self.rig.group, plan, random.Random(1)))

    @property
    def letters(self) -> tuple[str, str]:
        return self.rig.letters("root"), self.rig.letters("data")


@pytest.fixture
def two(rig: GroupRig) -> Two:
    return Two(rig)


def test_a_volume_goes_back_alone(two: Two) -> None:
    plan = two.restore("root")
    assert two.letters == ("ab..", "y...")
    assert two.check(plan) == 4


def test_a_group_goes_back_in_one_frame(two: Two) -> None:
    before = two.rig.end
    plan = two.restore("root", "data")
    assert two.letters == ("ab..", "x...")
    assert two.check(plan) == 8
    frames = list(two.rig.group.reader.prefixes(before.timeline, before.position, two.rig.end.position))
    assert [frame.events for frame in frames] == [2]


def test_a_restore_is_undone_by_the_cut_before_it(two: Two) -> None:
    plan = two.restore("root", "data")
    two.rig.write(two.root, 3, b"z")
    assert two.letters == ("ab.z", "x...")
    undone = two.restore("root", "data", cut=plan.before)
    assert two.letters == ("acd.", "y...")
    assert two.check(undone) == 8
    redone = two.restore("root", cut=undone.before)
    assert two.letters == ("ab.z", "y...")
    assert two.check(redone) == 4


def test_every_cut_still_shows_what_it_showed(two: Two) -> None:
    plan = two.restore("root")
    after = two.rig.end
    two.rig.write(two.root, 0, b"n")
    two.rig.checkpoint()
    two.rig.reopen()
    assert two.rig.letters("root", two.cut) == "ab.."
    assert two.rig.letters("root", plan.before) == "acd."
    assert two.rig.letters("root", after) == "ab.."
    assert two.rig.letters("root") == "nb.."


def test_a_restore_travels_in_the_journal(two: Two, make_rig) -> None:
    other = make_rig("other", site="par", world=two.rig.world)
    two.restore("root")
    follow(two.rig, other)
    assert other.letters("root") == "ab.."


def test_what_did_not_exist_at_the_cut_is_refused_or_left_alone(two: Two) -> None:
    before_data = Cut(two.cut.timeline, two.data)
    with pytest.raises(NotFound, match="data"):
        plan_restore(two.rig.group, ["root", "data"], before_data, skip_missing=False)
    plan = plan_restore(two.rig.group, ["root", "data"], before_data, skip_missing=True)
    assert [volume.name for volume in plan.volumes] == ["root"]
    assert plan.untouched == ("data",)
    with pytest.raises(NotFound, match="no volume"):
        plan_restore(two.rig.group, ["data"], before_data, skip_missing=True)


def test_another_volume_of_the_same_name_is_not_turned_back(two: Two) -> None:
    two.rig.group.append_records([VolumeDeleted(volume=two.root)])
    two.rig.create("root", 4)
    with pytest.raises(NotFound):
        plan_restore(two.rig.group, ["root"], two.cut, skip_missing=False)


def test_a_volume_that_is_not_there_now_cannot_be_turned_back(two: Two) -> None:
    two.rig.group.append_records([VolumeDeleted(volume=two.root)])
    with pytest.raises(NotFound, match="g/root"):
        plan_restore(two.rig.group, ["root"], two.cut, skip_missing=True)


def test_success_is_not_claimed_for_what_did_not_happen(two: Two) -> None:
    """The plan was made, the event is not there."""
    plan = plan_restore(two.rig.group, ["root"], two.cut, skip_missing=False)
    two.rig.write(two.root, 0, b"n")
    with pytest.raises(Mismatch) as caught:
        two.check(plan)
    assert str(plan.before) in caught.value.next_step


def deeper(two: Two, times: int, seed: int) -> list[Cut]:
    """So many restores, each to a cut that an earlier one led to, never the newest; with writes, some of
    which they take back, and checkpoints in between."""
    rng, cuts = random.Random(seed), [two.cut]
    for _ in range(times):
        two.restore("root", cut=cuts[-1])
        two.rig.write(two.root, rng.randrange(4), bytes([rng.randrange(1, 256)]))
        cuts.append(two.rig.end)
        for block in rng.sample(range(4), rng.randrange(1, 4)):
            two.rig.write(two.root, block, bytes([rng.randrange(1, 256)]))
        if rng.random() < 0.1:
            two.rig.checkpoint()
    return cuts


def test_reverts_upon_reverts_are_counted(two: Two) -> None:
    volumes = [two.rig.group.volume("root")]
    cuts = deeper(two, 20, seed=1)
    assert depth_of(two.rig.group, volumes, cuts[-1]) == 21
    assert depth_of(two.rig.group, volumes, cuts[0]) == 1


@pytest.mark.parametrize("seed", range(4))
def test_many_intervals_show_what_looking_into_each_shows(two: Two, seed: int) -> None:
    """Live, at each of the cuts, and again after a restart, when nothing is known of them."""
    cuts = deeper(two, 60, seed)

    def look(view: VolumeView) -> list[tuple[Any, bytes]]:
        with view.batch() as batch:
            return [(view.find(batch, block), view.read_block(batch, block)) for block in range(4)]

    def check() -> list[list[tuple[Any, bytes]]]:
        group = two.rig.group
        views = [group.kept.view_of(two.root, cut) for cut in cuts]
        views.append(group.live_view(group.volume("root")))
        found = [look(view) for view in views]
        for view, seen in zip(views, found, strict=True):
            assert (view._strands is None) == (len(view.intervals) < DEEP_FROM)
            view._strands = None
            assert look(view) == seen
        return found

    before = [[content for _, content in view] for view in check()]
    two.rig.reopen()
    assert [[content for _, content in view] for view in check()] == before


def test_a_thousand_restores_cost_a_read_no_more_looks_than_one(two: Two) -> None:
    group = two.rig.group
    view = group.live_view(group.volume("root"))
    looks = 0
    newest = type(group.memtable).newest

    def counted(*arguments: Any) -> int:
        nonlocal looks
        looks += 1
        return newest(*arguments)

    deeper(two, 1000, seed=5)
    view = group.live_view(group.volume("root"))
    assert len(view.intervals) > 900
    with pytest.MonkeyPatch.context() as patch, view.batch() as batch:
        patch.setattr(type(group.memtable), "newest", counted)
        assert view.find(batch, 6) is None  # never written
        assert looks == 1


def test_a_restore_to_now_changes_nothing(two: Two) -> None:
    before = two.letters
    plan = two.restore("root", "data", cut=two.rig.end)
    assert two.letters == before
    assert two.check(plan) == 8


def test_the_check_looks_at_a_few_blocks_at_a_time_and_at_what_was_restored(
    rig: GroupRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 8 volumes; hosts write meanwhile, to those too, and what nobody holds any more is truncated."""
    volumes = [rig.create(f"v{number}", 300) for number in range(8)]
    for volume in volumes:
        rig.write(volume, 0, *[b"a"] * 30)
    cut = rig.end
    for volume in volumes:
        rig.write(volume, 10, *[b"b"] * 30)
    group, found = rig.group, 0

    def find(self: VolumeView, *arguments: Any) -> Any:
        nonlocal found
        found += 1
        return before(self, *arguments)

    before = VolumeView.find
    plan = plan_restore(group, [f"v{number}" for number in range(8)], cut, skip_missing=False)
    carry_out(group, plan)
    monkeypatch.setattr(VolumeView, "find", find)
    steps, most, compared = check_restored(group, plan, random.Random(1)), 0, None
    while compared is None:
        found = 0
        try:
            next(steps)
        except StopIteration as ended:
            compared = ended.value
        most = max(most, found)
        for volume in volumes:
            rig.write(volume, 5, b"c", b"d")
        rig.sync()
        rig.checkpoint()
        truncate(rig)
    assert compared == 8 * 300
    assert 0 < most <= 2 * STEP_BLOCKS
    assert not group.kept.leases.cuts()
