"""Dropping a branch: what stands on it, or looks through it where it can still be read, keeps it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from engine.group.site_state import SiteState
from engine.history.branch_drop import BranchDrops, check_droppable
from engine.history.branches import Branch, branches, find_branch
from engine.index.checkpoint import CheckpointPlan
from engine.index.forgetting import ForgetPlan
from engine.index.indexer import HANDLERS
from engine.index.levels import level_and_first
from engine.index.requests import IndexRequest
from engine.index.versions import NUMBER_MASK, unpack_version_key
from engine.journal.format import timeline_directory
from engine.journal.segments import SegmentMap
from engine.ports.disk import DiskFile
from engine.ports.durable import RealDisk
from engine.ports.store import Store
from protocol.errors import Refused
from protocol.events import Revert
from protocol.positions import Cut
from site_primary.backup import take_backup
from tests.unit.engine.group.test_clones import clone_of, letters
from tests.unit.engine.group.test_clones import drop as drop_clone
from tests.unit.engine.group_rig import GroupRig, follow, take_other_line
from tests.unit.engine.retention.test_reclaim import KEEP_NOTHING, fill, truncate, truncated_past_a_fork

pytestmark = pytest.mark.usefixtures("run_sizes")

Sites = tuple[GroupRig, GroupRig]


@pytest.fixture(params=["tail", "timeline"])
def branched(sites: Sites, request: pytest.FixtureRequest) -> tuple[GroupRig, Cut, Branch]:
    """A site that left what it had for another history; the end of what it had, and the branch that this is:
    the tail of a timeline that the head's lineage has too, or a timeline of its own."""
    one, other = sites
    volume = one.group.volume("root").id
    if request.param == "tail":
        one.drop()
        old = one.copy_to(one.directory.parent / "old")
        one.open()
        one.group.head.began = True  # it goes on in its timeline
        one.write(volume, 0, b"x", b"y")
        follow(one, other)
        tail = other.end
        old.open()
        old.write(volume, 0, b"o")
        take_other_line(other, old)
        old.drop()
    else:
        one.reopen()
        other.write(volume, 0, b"x", b"y")
        tail = other.end
        one.write(volume, 0, b"o")
        take_other_line(other, one)
    other.sync()
    return other, tail, find_branch(other.group, tail.timeline)


def test_a_clone_of_a_branch_keeps_it(branched: tuple[GroupRig, Cut, Branch]) -> None:
    rig, tail, branch = branched
    clone = clone_of(rig, tail)
    with pytest.raises(Refused, match="clone copy stands on the branch"):
        check_droppable(rig.group, branch)
    assert letters(clone).startswith("xy")
    drop_clone(rig, clone)
    rig.settle(10.0)
    check_droppable(rig.group, branch)


def test_a_clone_of_the_head_does_not(branched: tuple[GroupRig, Cut, Branch]) -> None:
    rig, _, branch = branched
    clone = clone_of(rig, rig.end)
    check_droppable(rig.group, branch)
    check_droppable(rig.group, clone.branch())
    BranchDrops(rig.group, lambda _: None).begin(branch)
    rig.settle(10.0)
    for _ in range(2):
        (clone,) = rig.group.clones
        assert letters(clone).startswith("o.")
        rig.reopen()


def test_a_restore_of_the_past_keeps_what_it_went_back_to(branched: tuple[GroupRig, Cut, Branch]) -> None:
    """It was undone, but the time between can still be read."""
    rig, tail, branch = branched
    volume = rig.group.volume("root").id
    before = rig.end
    rig.group.append_records([Revert(volume=volume, cut=tail)])
    between = rig.end
    assert rig.letters("root").startswith("xy")
    rig.group.append_records([Revert(volume=volume, cut=before)])
    assert rig.letters("root").startswith("o.")
    with pytest.raises(Refused, match="what it was then can still be read"):
        check_droppable(rig.group, branch)
    # Once nobody can read that time any more, the branch may go.
    rig.group.kept.leases.hold("in the way", rig.end, durable=True)
    fill_and_truncate(rig, volume, between)
    check_droppable(rig.group, branch)
    BranchDrops(rig.group, lambda _: None).begin(branch)
    rig.settle(10.0)
    for _ in range(2):
        assert rig.letters("root").startswith("o.")
        rig.write(volume, 7, b"w")
        rig.settle(5.0)
        assert not rig.group.failed
        rig.reopen()


def test_a_restore_below_the_horizon_keeps_what_shows_above_it(
    branched: tuple[GroupRig, Cut, Branch],
) -> None:
    """It was undone, but only after the horizon: up to there every cut shows what it went back to."""
    rig, tail, branch = branched
    volume = rig.group.volume("root").id
    before = rig.end
    rig.group.append_records([Revert(volume=volume, cut=tail)])
    restored = rig.end
    fill_and_truncate(rig, volume, restored)
    undone = rig.end
    rig.group.append_records([Revert(volume=volume, cut=before)])
    assert not rig.group.kept.readable(restored)
    with pytest.raises(Refused, match="what it was then can still be read"):
        check_droppable(rig.group, branch)
    assert rig.letters("root", undone).startswith("xy")
    fill_and_truncate(rig, volume, undone)
    check_droppable(rig.group, branch)


def fill_and_truncate(rig: GroupRig, volume: int, cut: Cut) -> None:
    """Write, and have it truncated, until a cut cannot be read any more."""
    turn = 0
    while rig.group.kept.readable(cut):
        rig.write(volume, 2 + turn % 4, b"z")
        turn += 1
        if turn % 100 == 0:
            rig.sync()
            rig.write(volume, 6, b"z")
            truncate(rig)


def test_a_tail_that_comes_back_is_not_taken_for_truncated(make_rig: Callable[..., GroupRig]) -> None:
    """It was truncated past the fork while it was the head's, was dropped, and comes again from a third
    site."""
    third = make_rig("third", site="ber", seed=3)
    rig, fork, _ = truncated_past_a_fork(make_rig, third)
    (branch,) = branches(rig.group)
    check_droppable(rig.group, branch)
    BranchDrops(rig.group, lambda _: None).begin(branch)
    rig.settle(10.0)
    assert rig.group.kept.retention.truncated_to(fork.timeline) <= fork.position
    end = third.end
    for frame in third.group.reader.frames(fork.timeline, fork.position, end.position, None):
        rig.group.follow(frame.prefix, bytes(frame.raw), leave=True)
    for reopened in (False, True):
        if reopened:
            rig.checkpoint()
            rig.reopen()
        assert rig.end == end
        assert rig.letters("root") == third.letters("root")


def test_no_run_of_a_branch_falls_apart_behind_the_sweep(sites: Sites) -> None:
    """The branch was to be truncated while it was the head: the horizon is past all of it, and its runs are
    whole. What the sweep finds of them between single blocks goes, and nothing comes in its place."""
    one, other = sites
    volume = one.create("large", 32)
    follow(one, other)
    one.reopen()
    fork = other.end
    for turn in range(12):
        other.write(volume, turn % 2 * 16, *[b"x"] * 16)
        other.write(volume, 16 + turn, b"y")
    take_backup(other.group, volume=None, label="kept", cut=fork, pinned=False, rng=other.rng)
    other.sync()
    other.write(volume, 0, b"z")
    other.sync()
    other.checkpoint()
    other.indexer.hold = True
    truncate(other)
    other.reopen()  # before it hears of the first segment, so that it asks for no other
    one.write(volume, 31, b"o")
    take_other_line(other, one)
    (branch,) = branches(other.group)
    lane = other.group.timelines.get(branch.timeline).lane
    assert any(level_and_first(unpack_version_key(key)[2])[0] for key in _rows(other, lane, fork))
    BranchDrops(other.group, lambda _: None).begin(branch)
    other.settle(10.0)
    assert not other.group.dropping
    assert not _rows(other, lane, fork)
    assert other.letters("large") == "." * 31 + "o"


def test_a_branch_with_damaged_rows_goes_all_the_same(branched: tuple[GroupRig, Cut, Branch]) -> None:
    rig, _, branch = branched
    rig.checkpoint()
    lane = rig.group.timelines.get(branch.timeline).lane
    doomed = _rows(rig, lane, branch.fork)
    with rig.group.store.write() as write:
        for key in doomed:
            write.put("versions", key, b"\x09none")
    expected = rig.letters("root")
    BranchDrops(rig.group, lambda _: None).begin(branch)
    rig.settle(10.0)
    assert doomed
    assert not rig.group.dropping
    assert not _rows(rig, lane, branch.fork)
    assert rig.letters("root") == expected


def _rows(rig: GroupRig, lane: int, fork: Cut) -> list[bytes]:
    """Keys of rows in a lane that are of what came after a cut."""
    found = []
    with rig.group.store.read() as transaction:
        cursor = transaction.cursor("versions")
        more = cursor.set_range(b"\0")
        while more:
            row_lane, *_, inverted = unpack_version_key(cursor.key())
            if row_lane == lane and inverted ^ NUMBER_MASK >= fork.position:
                found.append(bytes(cursor.key()))
            more = cursor.next()
    return found


@pytest.mark.parametrize("done", [False, True])
def test_an_indexer_that_dies_with_the_last_step_is_asked_again(
    branched: tuple[GroupRig, Cut, Branch], monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    """Whether or not it had done it."""
    rig, _, branch = branched
    forget, asked = HANDLERS[ForgetPlan.kind()], list[tuple[Any, ...]]()

    def dies_first(store: Store, segments: SegmentMap, row: tuple[Any, ...]) -> tuple[int, ...]:
        asked.append(row)
        if len(asked) > 1:
            return forget(store, segments, row)
        if done:
            forget(store, segments, row)
        raise OSError("the indexer process ended")

    monkeypatch.setitem(HANDLERS, ForgetPlan.kind(), dies_first)
    BranchDrops(rig.group, lambda _: None).begin(branch)
    rig.settle(30.0)
    assert len(asked) == 2
    assert not rig.group.dropping
    kinds = [kind for kind, _ in rig.events]
    assert (kinds.count("branch.drop_failed"), kinds.count("branch.dropped")) == (1, 1)
    for _ in range(2):
        assert not branches(rig.group)
        assert rig.letters("root").startswith("o.")
        rig.reopen()


def test_its_files_are_gone_for_good_before_its_rows_are(
    branched: tuple[GroupRig, Cut, Branch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power loss brought some of them back, and the group did not open: the first frame was missing of a
    timeline that nobody knew."""
    rig, _, branch = branched
    sync, forget, story = RealDisk.sync, HANDLERS[ForgetPlan.kind()], list[str]()

    def synced(disk: RealDisk, files: Sequence[DiskFile], directories: Sequence[str]) -> None:
        story.extend(directories)
        sync(disk, files, directories)

    def forgotten(store: Store, segments: SegmentMap, row: tuple[Any, ...]) -> tuple[int, ...]:
        story.append("rows")
        return forget(store, segments, row)

    monkeypatch.setattr(RealDisk, "sync", synced)
    monkeypatch.setitem(HANDLERS, ForgetPlan.kind(), forgotten)
    BranchDrops(rig.group, lambda _: None).begin(branch)
    rig.settle(30.0)
    for span in branch.spans:
        assert timeline_directory(span.timeline) in story[: story.index("rows")]


def test_a_note_that_cannot_be_removed_is_tried_again(
    branched: tuple[GroupRig, Cut, Branch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The site's own file system was full for a moment: the whole group was stopped until a restart."""
    rig, _, branch = branched
    remove, asked = SiteState.remove_drop, list[int]()

    def fails_first(state: SiteState, group: str, timeline: int) -> None:
        asked.append(timeline)
        if len(asked) == 1:
            raise OSError(errno.ENOSPC, "no room")
        remove(state, group, timeline)

    monkeypatch.setattr(SiteState, "remove_drop", fails_first)
    BranchDrops(rig.group, lambda _: None).begin(branch)
    rig.settle(30.0)
    assert asked == [branch.timeline] * 2
    assert not rig.group.dropping
    assert not rig.group.state.drops("g")
    kinds = [kind for kind, _ in rig.events]
    assert (kinds.count("branch.drop_failed"), kinds.count("branch.dropped")) == (1, 1)
    assert not branches(rig.group)


@pytest.mark.parametrize("busy", ["truncating", "checkpointing"])
def test_a_drop_does_not_wait_until_a_busy_group_is_idle(
    branched: tuple[GroupRig, Cut, Branch], busy: str
) -> None:
    """One truncation, or one checkpoint, follows the other."""
    rig, _, branch = branched
    group, volume = rig.group, rig.create("more", 16)
    fill(rig, volume, 60 if busy == "truncating" else 1)
    expected = rig.letters("more")
    rig.checkpoint()
    rig.indexer.hold = True
    if busy == "truncating":
        group.settings = KEEP_NOTHING
        group.reclaim.consider()
    else:
        group.listeners.indexed.append(lambda: _write_and_index(rig, volume))
        _write_and_index(rig, volume)
    assert group.checkpoints.running or group.reclaim.running
    BranchDrops(group, lambda _: None).begin(branch)
    for _ in range(40):
        rig.indexer.answer()
        rig.settle(0.1)
    assert not group.dropping
    assert group.checkpoints.running or group.reclaim.running, "it was busy all the time"
    group.listeners.indexed.clear()
    rig.indexer.hold = False
    rig.indexer.answer()
    for _ in range(2):
        assert rig.letters("more") == expected
        assert not branches(rig.group)
        rig.reopen()


def _write_and_index(rig: GroupRig, volume: int) -> None:
    rig.write(volume, 9, b"z")
    rig.sync()
    rig.group.checkpoints.begin()


def test_a_drop_does_not_keep_room_from_a_checkpoint_that_lacks_it(
    branched: tuple[GroupRig, Cut, Branch],
) -> None:
    """The checkpoint fails until something was truncated, which the drop holds back while it waits for the
    checkpoint."""
    rig, _, branch = branched
    group, volume = rig.group, rig.create("more", 16)
    fill(rig, volume, 3)
    rig.checkpoint()
    BranchDrops(group, lambda _: None).begin(branch)
    full = rig.segment_files()
    run = rig.indexer._run

    def lacks_room(request: IndexRequest) -> tuple[Exception | None, tuple[int, ...]]:
        if isinstance(request, CheckpointPlan) and set(full) <= set(rig.segment_files()):
            return OSError(errno.ENOSPC, "no room"), ()
        return run(request)

    rig.indexer._run = lacks_room  # type: ignore[method-assign]
    rig.write(volume, 9, b"z")
    rig.sync()
    group.checkpoints.begin()
    assert group.checkpoints.failures
    rig.settle(1.0)
    group.settings = KEEP_NOTHING
    rig.settle(60.0)
    assert not group.dropping
    assert not group.checkpoints.running
    assert len(rig.segment_files()) < len(full)
