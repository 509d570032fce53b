"""Sweeps come to their end, whatever else the group is at and however often they are asked for."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace

import pytest

from engine.index.requests import IndexRequest
from engine.retention import sweep
from engine.retention.reclaim import POLL_S, RETRY_S
from engine.retention.reclaim_requests import SWEEP_KEY, SweepPlan, TruncatePlan
from protocol.events import CopyDeleted
from site_primary.backup import take_backup
from tests.unit.engine.group_rig import GroupRig
from tests.unit.engine.retention.test_reclaim import KEEP_ALL, KEEP_NOTHING, fill, truncate

pytestmark = pytest.mark.usefixtures("run_sizes")

BACKUPS = 12
MakeRig = Callable[..., GroupRig]


@pytest.fixture(autouse=True)
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a sweep takes many."""
    monkeypatch.setattr(sweep, "SWEEP_SLICE", 1)


@pytest.fixture
def kept(rig: GroupRig) -> list[int]:
    """Backups of what was truncated since, the oldest first."""
    volume = rig.create("root", 16)
    cuts = fill(rig, volume, 3)
    for number in range(BACKUPS):
        cut = cuts[3 + 2 * number]
        take_backup(rig.group, volume=None, label=f"b{number}", cut=cut, pinned=False, rng=rig.rng)
    truncate(rig)
    rig.settle(60.0)
    rig.indexer.requests.clear()
    return [copy.id for copy in rig.group.copies.at(rig.group.spans())]


def delete(rig: GroupRig, copy: int) -> None:
    rig.group.append_records([CopyDeleted(copy_id=copy)])
    rig.sync()
    rig.group.reclaim.consider()


def stored(rig: GroupRig) -> int:
    with rig.group.store.read() as read:
        cursor = read.cursor("blocks")
        return sum(1 for _ in iter(cursor.next, False))


def slices(rig: GroupRig) -> list[SweepPlan]:
    return [each for each in rig.indexer.requests if isinstance(each, SweepPlan)]


def test_one_that_is_asked_for_again_and_again_ends(rig: GroupRig, kept: list[int]) -> None:
    """Each backup that is deleted asks for one: as schedules prune theirs, no sweep came past its
    beginning, and a drop of a branch that waited for one never ended."""
    swept: list[int] = []
    rig.group.reclaim.sweep((), lambda: swept.append(len(slices(rig))))
    before = stored(rig)
    for copy in kept:
        delete(rig, copy)
        rig.settle(0.2)
    assert swept
    rig.settle(30.0)
    assert stored(rig) < before - BACKUPS // 2, "another sweep began after the last deletion"
    assert not rig.group.kept.retention.kept


def test_one_goes_on_however_often_it_is_looked_for(rig: GroupRig, kept: list[int]) -> None:
    """Frames have reclaim look, at some rates more often than slices are apart."""
    swept: list[int] = []
    rig.group.reclaim.sweep((), lambda: swept.append(len(slices(rig))))
    for _ in range(100):
        rig.settle(0.01)
        rig.group.reclaim.consider()
    assert swept
    assert swept[0] > 5


def test_one_goes_on_beside_truncations_without_end(rig: GroupRig, kept: list[int]) -> None:
    """Nobody waits for it; what a deleted backup kept would stay for as long as hosts write."""
    volume = rig.group.volume("root").id
    fill(rig, volume, 40)
    rig.checkpoint()
    rig.indexer.hold = True
    for copy in kept:
        rig.group.append_records([CopyDeleted(copy_id=copy)])
    rig.sync()
    rig.group.settings = KEEP_NOTHING
    rig.indexer.requests.clear()
    for _ in range(30):
        rig.group.reclaim.consider()
        rig.indexer.answer()
    assert rig.group.reclaim.running
    kinds = [type(each) for each in rig.indexer.requests]
    assert 2 <= kinds.count(SweepPlan) <= len(kinds) // 8
    rig.indexer.hold = False
    rig.indexer.answer()


@pytest.mark.parametrize(("fails", "other"), [(TruncatePlan, SweepPlan), (SweepPlan, TruncatePlan)])
def test_one_that_fails_does_not_stop_the_other(
    rig: GroupRig, kept: list[int], fails: type[IndexRequest], other: type[IndexRequest]
) -> None:
    """A damaged segment, or a row that cannot be read, may stay so for days."""
    volume = rig.group.volume("root").id
    fill(rig, volume, 6)
    rig.checkpoint()
    run = rig.indexer._run

    def failing(request: IndexRequest) -> tuple[Exception | None, tuple[int, ...]]:
        return (OSError(errno.EIO, "damaged"), ()) if isinstance(request, fails) else run(request)

    rig.indexer._run = failing  # type: ignore[method-assign]
    rig.indexer.requests.clear()
    rig.group.settings = KEEP_NOTHING
    rig.group.reclaim.sweep()
    rig.settle(2 * RETRY_S)
    counts = [sum(isinstance(each, kind) for each in rig.indexer.requests) for kind in (fails, other)]
    assert 1 <= counts[0] <= 4
    assert counts[1] >= 5
    assert [kind for kind, _ in rig.events].count("fold.failed") == 1


def test_hosts_do_not_wait_for_what_can_never_be_indexed(make_rig: MakeRig) -> None:
    """They waited for a truncation, which waited for a checkpoint that failed for ever."""
    rig = make_rig(settings=KEEP_ALL)
    volume = rig.create("root", 16)
    fill(rig, volume, 3)
    rig.indexer.failures = [OSError(errno.EIO, "damaged") for _ in range(1000)]
    used = rig.group.segments.total_bytes()
    rig.group.settings = replace(KEEP_NOTHING, journal_limit_bytes=used + 1)
    rig.group.writer.limit_bytes = used + 1
    rig.settle(POLL_S)
    assert rig.group.overloaded, "the first failure may be the only one"
    rig.settle(60.0)
    assert not rig.group.overloaded
    rig.indexer.failures = []
    rig.settle(60.0)
    assert len(rig.segment_files()) == 1


def test_one_whose_first_slice_failed_begins_again_and_goes_on_with_no_earlier_one(
    rig: GroupRig, kept: list[int]
) -> None:
    """A site was stopped in the middle of a sweep: where that one was is still written down."""
    rig.indexer.hold = True
    rig.group.reclaim.sweep()
    for _ in range(5):
        rig.settle(0.2)
        rig.indexer.answer()
    rig.reopen()
    with rig.group.store.read() as read:
        assert read.get("meta", SWEEP_KEY) is not None
    before = stored(rig)
    rig.indexer.failures.append(OSError("the indexer process ended"))
    for copy in kept[:-1]:
        delete(rig, copy)
    rig.settle(RETRY_S + 30.0)
    assert [each.begin for each in slices(rig)[:3]] == [True, True, False]
    assert not rig.group.reclaim.running
    assert stored(rig) < before


def test_one_that_was_due_at_a_crash_begins_by_itself(rig: GroupRig, kept: list[int]) -> None:
    """A truncation is the first to give up what deleted backups kept, and the site is killed before the sweep
    that is due: nothing that is written down tells of them any more, and no other deletion may ever come."""
    for copy in kept:
        rig.group.append_records([CopyDeleted(copy_id=copy)])
    goal = len(rig.segment_files()) + 2
    while len(rig.segment_files()) < goal:  # of a block that no backup had
        rig.write(rig.group.volume("root").id, 12, b"x")
        rig.sync()
    rig.checkpoint()
    rig.group.settings = KEEP_NOTHING
    rig.group.reclaim.consider()
    assert TruncatePlan in [type(each) for each in rig.indexer.requests]
    assert not slices(rig)
    before = stored(rig)
    rig.reopen()
    assert not rig.group.kept.retention.kept
    rig.settle(60.0)
    assert slices(rig)
    assert stored(rig) < before
    rig.reopen()
    rig.settle(60.0)
    assert not slices(rig), "it was done"


def test_one_begins_after_a_start_for_what_a_lease_kept(rig: GroupRig) -> None:
    """Who asked for a cut ends with the daemon."""
    cuts = fill(rig, rig.create("root", 16), 3)
    rig.group.kept.leases.take("export", cuts[5])
    truncate(rig)
    rig.settle(60.0)
    assert cuts[5] in rig.group.kept.retention.kept
    rig.reopen()
    rig.settle(60.0)
    assert slices(rig)
    assert cuts[5] not in rig.group.kept.retention.kept
    rig.reopen()
    rig.settle(60.0)
    assert not slices(rig)
