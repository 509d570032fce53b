"""What a prune deletes, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.copies.copies import Copy
from engine.copies.keep_rules import KeepRules
from engine.copies.pruning import plan_prune
from protocol.errors import Refused
from protocol.events import Consistency
from site_primary.backup import delete_backups, pin_backup, take_backup
from tests.unit.engine.group_rig import GroupRig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[GroupRig]:
    rig = GroupRig(tmp_path)
    rig.open()
    rig.create("root")
    yield rig
    rig.drop()


def backup(rig: GroupRig, label: str = "", volume: str | None = None) -> Copy:
    copy = take_backup(
        rig.group,
        volume=volume,
        label=label,
        cut=None,
        consistency=Consistency.CRASH,
        pinned=False,
        rng=rig.rng,
    )
    rig.settle(1.0)
    return copy


def deleted(rig: GroupRig, rules: KeepRules, *, labelled: bool = False) -> list[int]:
    return [copy.id for copy in plan_prune(rig.group, rules, labelled=labelled).deleted]


def test_backups_that_the_clock_has_not_come_to_are_not_taken_for_one(rig: GroupRig) -> None:
    """The clock jumped a day ahead and back: all that are taken since have one time."""
    day_s = 86_400.0
    rig.clock.jump(day_s)
    backup(rig)
    rig.clock.jump(-day_s)
    taken = [backup(rig) for _ in range(3)]
    assert len({copy.utc_ns for copy in taken}) == 1
    assert deleted(rig, KeepRules(hourly=24)) == []
    assert len(deleted(rig, KeepRules(last=1))) == 3
    rig.settle(day_s + 60)
    assert taken[-1].id not in deleted(rig, KeepRules(hourly=24))


def test_what_no_rule_keeps_goes(rig: GroupRig) -> None:
    first, second, third = (backup(rig) for _ in range(3))
    plan = plan_prune(rig.group, KeepRules(last=1), labelled=False)
    assert [copy.id for copy in plan.deleted] == [first.id, second.id]
    assert [(copy.id, why) for copy, why in plan.kept] == [(third.id, ["last"])]
    delete_backups(rig.group, plan.deleted)
    assert [copy.id for copy in rig.group.copies.at(rig.group.spans())] == [third.id]


def test_without_rules_nothing_goes(rig: GroupRig) -> None:
    backup(rig)
    plan = plan_prune(rig.group, KeepRules(), labelled=True)
    assert [why for _, why in plan.left] == ["no keep rules"]
    assert not plan.deleted


def test_pinned_and_labelled_ones_are_left_and_take_no_place(rig: GroupRig) -> None:
    pinned, labelled, plain, newest = backup(rig), backup(rig, "mine"), backup(rig), backup(rig)
    pin_backup(rig.group, pinned, pinned=True)
    rig.sync()
    assert deleted(rig, KeepRules(last=1)) == [plain.id]
    assert deleted(rig, KeepRules(last=1), labelled=True) == [labelled.id, plain.id]
    assert [why for _, why in plan_prune(rig.group, KeepRules(last=1), labelled=False).left] == [
        "pinned",
        "labelled",
    ]
    assert newest.id not in deleted(rig, KeepRules(last=1))


def test_one_that_is_damaged_pushes_no_other_out(rig: GroupRig) -> None:
    """The newest of the day cannot be read: the one before it is all there is of that day."""
    whole, damaged = backup(rig), backup(rig)
    rig.group.copies.damaged(damaged.id, "blocks 3 to 5 of root")
    plan = plan_prune(rig.group, KeepRules(daily=1), labelled=False)
    assert [copy.id for copy, _ in plan.kept] == [whole.id]
    assert [(copy.id, why) for copy, why in plan.left] == [(damaged.id, "damaged")]


def test_a_pinned_one_is_not_deleted_with_others(rig: GroupRig) -> None:
    pinned, plain = backup(rig), backup(rig)
    pin_backup(rig.group, pinned, pinned=True)
    copies = rig.group.copies.at(rig.group.spans())
    with pytest.raises(Refused, match="pinned"):
        delete_backups(rig.group, copies)
    assert [copy.id for copy in rig.group.copies.at(rig.group.spans())] == [pinned.id, plain.id]


def test_one_that_is_pinned_after_it_was_looked_up_is_not_deleted(rig: GroupRig) -> None:
    pinned, plain = backup(rig), backup(rig)
    pin_backup(rig.group, pinned, pinned=True)
    with pytest.raises(Refused, match="pinned"):
        delete_backups(rig.group, [plain, pinned])
    assert [copy.id for copy in rig.group.copies.at(rig.group.spans())] == [pinned.id, plain.id]
    found = rig.group.copies.at(rig.group.spans())
    pin_backup(rig.group, found[0], pinned=False)
    delete_backups(rig.group, found)
    assert rig.group.copies.at(rig.group.spans()) == []


def test_c42_a_backup_of_one_volume_is_not_instead_of_one_of_the_group(rig: GroupRig) -> None:
    rig.create("log")
    whole, part = backup(rig), backup(rig, volume="log")
    for rules in (KeepRules(daily=1), KeepRules(last=1)):
        assert deleted(rig, rules) == []
    newer = backup(rig, volume="log")
    assert deleted(rig, KeepRules(daily=1)) == [part.id]
    again = backup(rig)  # has all that is in those before it
    assert deleted(rig, KeepRules(daily=1)) == [whole.id, part.id, newer.id]
    rig.create("data")
    wider = backup(rig)
    assert again.id in deleted(rig, KeepRules(last=1))
    plan = plan_prune(rig.group, KeepRules(last=1), labelled=False)
    assert [copy.id for copy, _ in plan.kept] == [wider.id]
