"""When checkpoints begin, and what happens to the memtable around them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from engine.group.settings import GroupSettings
from engine.index.checkpoint_timing import RETRY_S
from protocol.positions import POSITION_MAX, Cut
from tests.unit.engine.group_rig import GroupRig, follow

MakeRig = Callable[..., GroupRig]
SMALL = GroupSettings(journal_limit_bytes=POSITION_MAX, reserve_bytes=0, memtable_soft=10, memtable_hard=30)


def test_a_full_memtable_begins_one(make_rig: MakeRig) -> None:
    rig = make_rig(settings=SMALL)
    volume = rig.create("root")
    for block in range(9):
        rig.write(volume, block, b"a")
    assert rig.indexer.plans == []
    rig.write(volume, 9, b"a")
    assert len(rig.indexer.plans) == 1
    assert rig.group.memtable.count == 0
    assert rig.group.checkpoints.reached == rig.end.position


def test_so_many_bytes_of_journal_begin_one(make_rig: MakeRig) -> None:
    rig = make_rig(
        settings=GroupSettings(
            journal_limit_bytes=POSITION_MAX, reserve_bytes=0, checkpoint_after_bytes=20_000
        )
    )
    volume = rig.create("root")
    for _ in range(5):
        rig.write(volume, 0, b"a")
    assert len(rig.indexer.plans) == 1


def test_one_waits_until_what_it_covers_is_durable(rig: GroupRig, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = rig.create("root")
    rig.write(volume, 0, b"a")
    target = rig.end
    waiting = []
    monkeypatch.setattr(rig.group.disk, "start_sync", lambda files, directories, done: waiting.append(done))
    rig.checkpoint()
    rig.write(volume, 1, b"b")
    assert rig.indexer.plans == []
    waiting.pop()(None)
    (plan,) = rig.indexer.plans
    assert plan.target == target
    assert plan.durable >= plan.target.position


def test_reads_are_right_while_one_runs(rig: GroupRig) -> None:
    """The index may have it already, the memtable still has: both say the same."""
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a", b"b")
    rig.indexer.hold = True
    rig.checkpoint()
    assert rig.letters("root") == "ab.."
    rig.write(volume, 1, b"c")
    assert rig.letters("root") == "ac.."
    rig.indexer.answer()
    assert rig.letters("root") == "ac.."
    assert rig.group.memtable.count == 1


def test_only_one_runs_at_a_time(rig: GroupRig) -> None:
    volume = rig.create("root")
    rig.indexer.hold = True
    for block in range(3):
        rig.write(volume, block, b"a")
        rig.checkpoint()
    assert len(rig.indexer.plans) == 1
    rig.indexer.answer()
    rig.checkpoint()
    assert len(rig.indexer.plans) == 2


def test_there_is_none_without_anything_new(rig: GroupRig) -> None:
    rig.checkpoint()
    rig.create("root")
    rig.checkpoint()
    rig.checkpoint()
    assert len(rig.indexer.plans) == 1
    rig.reopen()
    rig.checkpoint()
    assert rig.indexer.plans == []


def test_one_that_fails_is_tried_again_and_nothing_is_forgotten_meanwhile(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a")
    rig.indexer.failures = [OSError(28, "no space"), OSError(28, "no space")]
    rig.checkpoint()
    rig.write(volume, 1, b"b")
    assert rig.group.checkpoints.reached == 0
    assert rig.letters("root") == "ab.."
    rig.settle(RETRY_S + 0.1)
    assert len(rig.indexer.plans) == 2
    rig.settle(RETRY_S)
    assert len(rig.indexer.plans) == 3
    assert len({plan.target for plan in rig.indexer.plans}) == 1
    assert rig.group.checkpoints.reached == rig.indexer.plans[0].target.position
    assert rig.letters("root") == "ab.."
    assert [kind for kind, _ in rig.events].count("checkpoint.failed") == 2


def test_hosts_wait_at_the_hard_limit_and_are_told_of_relief(make_rig: MakeRig) -> None:
    rig = make_rig(settings=SMALL)
    volume = rig.create("root")
    relieved = []
    rig.group.listeners.relief.append(lambda: relieved.append(rig.group.memtable.count))
    rig.indexer.hold = True
    for block in range(29):
        rig.write(volume, block, b"a")
    assert not rig.group.overloaded
    rig.write(volume, 29, b"a")
    assert rig.group.overloaded
    rig.indexer.answer()
    assert relieved == [20]
    assert not rig.group.overloaded


def test_a_dropped_layer_is_freed_in_slices(rig: GroupRig) -> None:
    volume = rig.create("root", 6000)
    for block in range(0, 6000, 3):  # none of them holds a whole run
        rig.write(volume, block, *[b"a"] * 3)
    layer = rig.group.memtable.layers[0]
    rig.checkpoint()
    left = [sum(len(versions) for versions in layer.volumes.values())]
    while left[-1]:
        rig.world.step()
        left.append(sum(len(versions) for versions in layer.volumes.values()))
    assert left[0] == 6000
    assert max(before - after for before, after in pairwise(left)) <= 2000


def longer_line(make_rig: MakeRig) -> tuple[GroupRig, GroupRig, Cut]:
    """A site, and one that followed it and wrote more on a line of its own; where that left."""
    one = make_rig("one")
    other = make_rig("other", site="par", world=one.world, seed=2)
    volume = one.create("root")
    follow(one, other)
    fork = other.end
    for block in range(20):
        other.write(volume, block, b"o")  # it was opened to hosts
    return one, other, fork


def leave_for(target: GroupRig, source: GroupRig, fork: Cut) -> None:
    """Go from the fork on as the other did."""
    for frame in source.group.reader.frames(fork.timeline, fork.position, source.end.position, None):
        target.group.follow(frame.prefix, bytes(frame.raw), leave=True)


def test_one_that_failed_is_made_although_the_head_went_elsewhere(make_rig: MakeRig) -> None:
    """What the head left is durable; the new head may never reach the old one's position."""
    one, other, fork = longer_line(make_rig)
    other.indexer.failures.append(OSError(28, "no room"))
    other.checkpoint()
    one.write(one.group.volume("root").id, 0, b"r")
    assert one.end.position < other.end.position
    leave_for(other, one, fork)
    assert other.end == one.end
    left = other.indexer.plans[-1].target
    other.settle(RETRY_S + 1.0)
    assert other.indexer.plans[-1].target == left
    assert len(other.indexer.plans) == 2
    assert other.letters("root", left).startswith("o" * 20)


def test_who_waits_is_told_although_the_head_went_to_a_shorter_line(make_rig: MakeRig) -> None:
    """What was written is indexed, as a branch; the new head may never come to where the old one was."""
    one, other, fork = longer_line(make_rig)
    other.sync()
    other.indexer.hold = True
    told: list[Cut] = []
    other.group.checkpoints.when_indexed(told.append)
    one.write(one.group.volume("root").id, 0, b"r")
    left = other.end
    leave_for(other, one, fork)
    assert other.end.position < left.position
    other.sync()
    other.indexer.hold = False
    other.indexer.answer()
    other.settle(60.0)
    assert told == [one.end]
    assert other.group.checkpoints.indexed(left.timeline)
