"""Turning volumes back to a cut, undoing it, and the check that claims success."""

from __future__ import annotations

import random

import pytest

from engine.peering.restore_ways import REVERT_INTERVALS_MAX, too_deep
from protocol.errors import Mismatch, NotFound
from protocol.events import VolumeDeleted
from protocol.positions import Cut
from site_primary.restore_volume import (
    RestorePlan,
    carry_out,
    check_restored,
    plan_restore,
)
from tests.unit.engine.group_rig import GroupRig, follow


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
        return check_restored(self.rig.group, plan, random.Random(1))

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


def test_reverts_upon_reverts_become_too_deep(two: Two) -> None:
    """Each to a cut that an earlier one led to, never the newest."""
    volumes = [two.rig.group.volume("root")]
    cuts = [two.cut]
    for _ in range(REVERT_INTERVALS_MAX - 1):
        assert not too_deep(two.rig.group, volumes, cuts[-1])
        two.restore("root", cut=cuts[-1])
        two.rig.write(two.root, 2, b"e")
        cuts.append(two.rig.end)
        two.rig.write(two.root, 2, b"f")
    assert too_deep(two.rig.group, volumes, cuts[-1])
    assert not too_deep(two.rig.group, volumes, cuts[0])


def test_a_restore_to_now_changes_nothing(two: Two) -> None:
    before = two.letters
    plan = two.restore("root", "data", cut=two.rig.end)
    assert two.letters == before
    assert two.check(plan) == 8
