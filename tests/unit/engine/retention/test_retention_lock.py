"""The retention lock, path by path: each way in which history or a backup may be given up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from msgspec import structs

from engine.copies.copies import Copy
from engine.copies.keep_rules import KeepRules
from engine.copies.pruning import plan_prune
from engine.group.clone_rows import CloneRow
from engine.group.head_moves import begin_timeline
from engine.group.settings import GroupSettings
from engine.history.branch_drop import BranchDrops, check_droppable
from engine.history.branches import branches
from engine.retention.journal_space import ReplicationSlot
from engine.retention.lock_clock import LOCK_TABLE
from engine.retention.reclaim import POLL_S
from protocol.errors import Locked, NoSpace, Refused, Trimmed
from protocol.events import NO_POLICY, CopyDeleted, CopyLocked, CopyPinned, VolumeDeleted
from protocol.limits import LOCK_S_MAX
from protocol.positions import POSITION_MAX
from site_primary.backup import check_deletable, delete_backups, lock_backup, pin_backup, take_backup
from tests.unit.engine.group_rig import GroupRig, follow
from tests.unit.engine.retention.test_reclaim import fill

MakeRig = Callable[..., GroupRig]
DAY_S = 86_400.0
WINDOW_S = 600.0
# Without the lock such a site keeps nothing but its newest segment.
LOCKED = GroupSettings(
    journal_limit_bytes=POSITION_MAX, reserve_bytes=0, window_s=0.0, window_bytes=0, lock_window_s=WINDOW_S
)
UNLOCKED = replace(LOCKED, lock_window_s=0.0)


@pytest.fixture
def site(make_rig: MakeRig) -> GroupRig:
    rig = make_rig("locked", settings=LOCKED)
    rig.create("root", 16)
    return rig


def volume(rig: GroupRig) -> int:
    return rig.group.volume("root").id


def pass_time(rig: GroupRig, seconds: float) -> None:
    """Time passes and something is written now and then, so that what is old can be truncated."""
    rig.settle(seconds)
    rig.write(volume(rig), 15, b"t")
    rig.sync()
    rig.write(volume(rig), 15, b"u")
    rig.sync()
    rig.settle(4 * POLL_S)


def back_up(rig: GroupRig, label: str, lock_s: int = 0) -> Copy:
    take_backup(rig.group, volume=None, label=label, cut=None, pinned=False, rng=rig.rng, lock_s=lock_s)
    rig.sync()
    rig.settle(2 * POLL_S)
    return rig.group.copies.find(rig.group.spans(), label, "g")


def names(rig: GroupRig) -> list[str]:
    return [copy.name for copy in rig.group.copies.at(rig.group.spans())]


# -- the site's window


def test_every_cut_of_the_window_can_be_read_and_older_ones_are_truncated(site: GroupRig) -> None:
    cuts = fill(site, volume(site), 3)
    then = {cut: site.letters("root", cut) for cut in cuts[::40]}
    pass_time(site, WINDOW_S / 2)
    assert len(site.segment_files()) > 3
    for cut, letters in then.items():
        assert site.letters("root", cut) == letters
    pass_time(site, WINDOW_S)
    pass_time(site, 10.0)
    assert len(site.segment_files()) < 3
    with pytest.raises(Trimmed):
        site.group.kept.require(cuts[0])


@pytest.mark.parametrize("jump_s", [1000 * DAY_S, -1000 * DAY_S])
def test_a_clock_that_jumps_releases_nothing(site: GroupRig, jump_s: float) -> None:
    cuts = fill(site, volume(site), 2)
    site.clock.jump(jump_s)
    pass_time(site, 10.0)
    site.reopen()
    site.clock.jump(jump_s)
    pass_time(site, 10.0)
    site.world.reboot()
    site.reopen()
    site.clock.jump(jump_s)
    pass_time(site, 10.0)
    assert site.group.kept.readable(cuts[0])
    pass_time(site, WINDOW_S)
    pass_time(site, 10.0)
    assert not site.group.kept.readable(cuts[0])


def test_a_policy_with_no_window_does_not_shorten_it(site: GroupRig) -> None:
    cuts = fill(site, volume(site), 2)
    site.group.append_records([structs.replace(NO_POLICY, window_s=0, window_bytes=1)])
    pass_time(site, 10.0)
    assert site.group.kept.readable(cuts[0])


def test_the_times_of_frames_do_not_matter(make_rig: MakeRig) -> None:
    """A peer whose frames all say 2024 does not have them truncated as they come."""
    writer = make_rig("writer", settings=UNLOCKED)
    writer.create("root", 16)
    site = make_rig("locked", settings=LOCKED, site="par", world=writer.world, seed=2)
    follow(writer, site)
    site.clock.jump(100 * DAY_S)
    cuts = fill(writer, volume(writer), 3)
    follow(writer, site)
    site.sync()
    site.settle(20.0)
    assert site.group.kept.readable(cuts[0])
    assert not writer.group.kept.readable(cuts[0])


def test_a_backup_deleted_keeps_its_cut_for_the_window(site: GroupRig) -> None:
    copy = back_up(site, "old")
    then = site.letters("root", copy.cut)
    fill(site, volume(site), 3)
    pass_time(site, 2 * WINDOW_S)
    pass_time(site, WINDOW_S)
    horizon = site.group.kept.horizon()
    assert horizon is not None
    assert horizon.position > copy.cut.position
    site.group.append_records([CopyPinned(copy_id=copy.id, pinned=False), CopyDeleted(copy_id=copy.id)])
    pass_time(site, WINDOW_S / 2)
    site.reopen()
    pass_time(site, WINDOW_S / 4)
    assert names(site) == []
    assert site.letters("root", copy.cut) == then
    # So it can be had back.
    take_backup(site.group, volume=None, label="again", cut=copy.cut, pinned=False, rng=site.rng)
    back = site.group.copies.find(site.group.spans(), "again", "g")
    delete_backups(site.group, [back])
    pass_time(site, WINDOW_S + 60.0)
    assert not site.group.kept.readable(copy.cut)


def test_a_deleted_volume_is_there_at_every_cut_of_the_window(site: GroupRig) -> None:
    cuts = fill(site, volume(site), 2)
    then = site.letters("root", cuts[5])
    gone = volume(site)
    site.create("other", 4)
    site.group.append_records([VolumeDeleted(volume=gone)])
    for _ in range(3):
        site.write(site.group.volume("other").id, 0, b"x")
        site.sync()
        site.settle(4 * POLL_S)
    assert site.letters("root", cuts[5]) == then


def write_until_full(rig: GroupRig) -> None:
    for turn in range(4000):
        rig.write(volume(rig), turn % 16, b"w")
        if turn % 50 == 0:
            rig.sync()
            rig.settle(POLL_S)


def test_a_full_journal_gives_nothing_up_and_detaches_nobody(make_rig: MakeRig) -> None:
    site = make_rig("full", settings=replace(LOCKED, journal_limit_bytes=2 << 20))
    site.create("root", 16)
    detached: list[str] = []
    holder = ReplicationSlot(confirmed=lambda: site.end, detach=lambda: detached.append("par"))
    site.group.space.slots["par"] = holder
    first = site.end
    with pytest.raises(NoSpace):
        write_until_full(site)
    site.settle(10 * POLL_S)
    assert site.group.kept.readable(first)
    assert detached == []
    assert "the retention lock keeps" in site.group.lock.why(site.group.writer.no_space)
    kinds = [(kind, fields.get("reason", "")) for kind, fields in site.events]
    assert any(kind == "journal.no_space" and "retention lock" in reason for kind, reason in kinds)
    # Once the time is over, there is room again.
    site.settle(WINDOW_S + 60.0)
    site.write(volume(site), 0, b"v")
    assert not site.group.kept.readable(first)


def test_a_branch_is_not_dropped_within_the_window(make_rig: MakeRig) -> None:
    writer = make_rig("writer", settings=UNLOCKED)
    writer.create("root", 16)
    site = make_rig("locked", settings=LOCKED, site="par", world=writer.world, seed=2)
    follow(writer, site)
    begin_timeline(site.group, authority=True)
    site.write(volume(site), 3, b"b")
    site.sync()
    mine, then = site.end, site.letters("root")
    begin_timeline(writer.group)
    writer.write(volume(writer), 4, b"w")
    for frame in writer.group.reader.frames(
        writer.group.head.timeline, _start(writer), writer.end.position, None
    ):
        site.group.follow(frame.prefix, bytes(frame.raw), leave=True)
    (branch,) = branches(site.group)
    assert branch.end == mine
    with pytest.raises(Locked, match="lock_window_s"):
        check_droppable(site.group, branch)
    site.settle(WINDOW_S / 2)
    site.reopen()
    site.settle(WINDOW_S / 4)
    with pytest.raises(Locked):
        check_droppable(site.group, branch)
    assert site.letters("root", mine) == then
    site.settle(WINDOW_S / 2)
    check_droppable(site.group, branch)
    BranchDrops(site.group, lambda _: None).begin(branch)
    site.settle(10.0)
    assert not branches(site.group)


def _start(rig: GroupRig) -> int:
    return rig.group.timelines.get(rig.group.head.timeline).fork


def test_a_clone_may_go(site: GroupRig) -> None:
    site.sync()
    row = CloneRow(
        name="try", group="g", cut=site.end, volumes=(volume(site),), timelines=(), temporary=False,
        created_utc_ns=1, purpose="",
    )  # fmt: skip
    clone = site.group.clones.create(row)
    check_droppable(site.group, clone.branch())


def test_without_a_lock_nothing_is_noted(make_rig: MakeRig) -> None:
    site = make_rig("plain", settings=UNLOCKED)
    site.create("root", 16)
    fill(site, volume(site), 2)
    site.settle(10.0)
    assert site.group.state.notes(LOCK_TABLE) == {}


def test_what_is_there_when_a_lock_is_set_counts_as_having_come_then(make_rig: MakeRig) -> None:
    site = make_rig("later", settings=replace(UNLOCKED, window_bytes=POSITION_MAX, window_s=1000.0))
    site.create("root", 16)
    cuts = fill(site, volume(site), 2)
    site.settle(900.0)
    site.settings = LOCKED
    site.reopen()
    pass_time(site, WINDOW_S / 2)
    assert site.group.kept.readable(cuts[0])


def test_bad_notes_lock_for_longer(site: GroupRig) -> None:
    cuts = fill(site, volume(site), 2)
    pass_time(site, WINDOW_S / 2)
    rows = site.group.state.notes(LOCK_TABLE, b"g\0")
    site.group.state.put_notes(LOCK_TABLE, dict.fromkeys(rows, b"\xc1"))
    site.reopen()
    assert [kind for kind, _ in site.events].count("row.set_aside") == 1
    pass_time(site, 0.8 * WINDOW_S)
    assert site.group.kept.readable(cuts[0])
    pass_time(site, WINDOW_S / 2)
    pass_time(site, 10.0)
    assert not site.group.kept.readable(cuts[0])


# -- locks of single backups


@pytest.fixture
def plain(make_rig: MakeRig) -> GroupRig:
    """A site without a lock of its own."""
    rig = make_rig("plain", settings=UNLOCKED)
    rig.create("root", 16)
    rig.write(volume(rig), 0, b"k")
    return rig


def test_a_locked_backup_outlives_whatever_is_said_of_it(plain: GroupRig) -> None:
    copy = back_up(plain, "gold", lock_s=1000)
    then = plain.letters("root", copy.cut)
    plain.group.append_records([CopyPinned(copy_id=copy.id, pinned=False), CopyDeleted(copy_id=copy.id)])
    plain.group.append_records([structs.replace(NO_POLICY, window_s=0)])
    plain.clock.jump(5000 * DAY_S)
    fill(plain, volume(plain), 3)
    pass_time(plain, 400.0)
    plain.reopen()
    plain.clock.jump(5000 * DAY_S)
    pass_time(plain, 400.0)
    assert names(plain) == ["gold"]
    assert plain.letters("root", copy.cut) == then
    assert [fields["object"] for kind, fields in plain.events if kind == "lock.defied"] == ["gold"]
    # What was said takes effect once the lock has ended.
    pass_time(plain, 300.0)
    pass_time(plain, 10.0)
    assert names(plain) == []
    assert not plain.group.kept.readable(copy.cut)


def test_commands_are_refused_by_name_and_time(plain: GroupRig) -> None:
    copy = back_up(plain, "gold", lock_s=1000)
    pin_backup(plain.group, copy, pinned=True)
    copy = plain.group.copies.find(plain.group.spans(), "gold", "g")
    with pytest.raises(Locked, match=r"gold of g is locked until 2024-.*Z: it cannot be deleted") as refused:
        check_deletable(plain.group, copy)
    assert refused.value.subject == "g@gold"
    assert refused.value.next_step
    with pytest.raises(Locked, match="unpinned"):
        pin_backup(plain.group, copy, pinned=False)
    with pytest.raises(Locked):
        delete_backups(plain.group, [copy])
    plan = plan_prune(plain.group, KeepRules(1, 0, 0, 0, 0, 0), labelled=True)
    assert plan.left == [(copy, "locked")]


def test_a_lock_is_extended_and_never_shortened(plain: GroupRig) -> None:
    copy = back_up(plain, "gold", lock_s=1000)
    with pytest.raises(Refused, match="never shortened"):
        lock_backup(plain.group, copy, 500)
    before_ns = plain.group.lock.left_ns(copy.id)
    plain.group.append_records([CopyLocked(copy_id=copy.id, lock_s=1)])  # as a peer may say
    plain.settle(5.0)
    assert before_ns - plain.group.lock.left_ns(copy.id) < 20 * 10**9
    lock_backup(plain.group, copy, 5000)
    plain.settle(2000.0)
    assert plain.group.lock.locked(copy.id)
    plain.settle(3010.0)
    assert not plain.group.lock.locked(copy.id)


def test_a_backup_taken_before_can_be_locked(plain: GroupRig) -> None:
    copy = back_up(plain, "late")
    assert not plain.group.lock.locked(copy.id)
    lock_backup(plain.group, copy, LOCK_S_MAX)
    plain.sync()
    plain.settle(5.0)
    for _ in range(2):
        plain.world.reboot()
        plain.reopen()
        assert plain.group.lock.left_ns(copy.id) > (LOCK_S_MAX - 3600) * 10**9
    with pytest.raises(Locked):
        check_deletable(plain.group, plain.group.copies.find(plain.group.spans(), "late", "g"))


def test_a_backup_that_is_gone_cannot_be_locked(plain: GroupRig) -> None:
    copy = back_up(plain, "gone")
    fill(plain, volume(plain), 2)
    delete_backups(plain.group, [copy])
    pass_time(plain, 10.0)
    pass_time(plain, 10.0)
    with pytest.raises(Trimmed):
        lock_backup(plain.group, copy, 100)


def test_the_branch_of_a_locked_backup_is_not_dropped(make_rig: MakeRig) -> None:
    writer = make_rig("writer", settings=UNLOCKED)
    writer.create("root", 16)
    site = make_rig("other", settings=UNLOCKED, site="par", world=writer.world, seed=2)
    follow(writer, site)
    begin_timeline(site.group, authority=True)
    copy = back_up(site, "gold", lock_s=1000)
    begin_timeline(writer.group)
    writer.group.append_records([CopyDeleted(copy_id=copy.id)])
    for frame in writer.group.reader.frames(
        writer.group.head.timeline, _start(writer), writer.end.position, None
    ):
        site.group.follow(frame.prefix, bytes(frame.raw), leave=True)
    site.sync()
    site.settle(5.0)
    (branch,) = branches(site.group)
    with pytest.raises(Locked, match="gold"):
        check_droppable(site.group, branch)
    assert copy.cut in site.group.copies.retained(site.group.spans(), site.group.writer.durable)
    site.settle(1000.0)
    check_droppable(site.group, branch)
