"""When segments are truncated, what is refused from then on, and that a crash in the middle costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from msgspec import structs

from engine.group.settings import GroupSettings
from engine.history.cuts import checked_cut, cut_at_time
from engine.history.reach import oldest_cut
from engine.retention.journal_space import ReplicationSlot
from engine.retention.reclaim import POLL_S, RETRY_S
from protocol.errors import Trimmed
from protocol.events import NO_POLICY
from protocol.positions import POSITION_MAX, Cut
from site_primary.backup import take_backup
from tests.unit.engine.group_rig import GroupRig, follow, take_other_line

pytestmark = pytest.mark.usefixtures("run_sizes")

MakeRig = Callable[..., GroupRig]
KEEP_ALL = GroupSettings(journal_limit_bytes=POSITION_MAX, reserve_bytes=0)
KEEP_NOTHING = replace(KEEP_ALL, window_bytes=0)


def fill(rig: GroupRig, volume: int, segments: int) -> list[Cut]:
    """Write until there are so many more files; the cuts."""
    cuts = []
    goal = len(rig.segment_files()) + segments
    turn = 0
    while len(rig.segment_files()) < goal:
        rig.write(volume, turn % 8, bytes([97 + turn % 26]))
        cuts.append(rig.end)
        turn += 1
    rig.sync()
    # One more frame says that all before it is durable.
    rig.write(volume, 9, b"z")
    rig.sync()
    return cuts


def truncate(rig: GroupRig) -> None:
    rig.group.settings = KEEP_NOTHING
    rig.settle(2 * POLL_S)
    rig.group.settings = KEEP_ALL


def test_only_the_last_segment_stays_and_reads_go_on(rig: GroupRig) -> None:
    volume = rig.create("root", 16)
    cuts = fill(rig, volume, 3)
    take_backup(rig.group, volume=None, label="kept", cut=cuts[10], pinned=False, rng=rig.rng)
    expected, then = rig.letters("root"), rig.letters("root", cuts[10])
    early = cut_at_time(rig.group, rig.group.head.utc_ns)
    assert early == rig.end
    truncate(rig)
    assert len(rig.segment_files()) == 1
    for _ in range(2):
        assert rig.letters("root") == expected
        assert rig.letters("root", cuts[10]) == then
        assert checked_cut(rig.group, cuts[10]) == cuts[10]
        for gone in (cuts[0], cuts[11]):
            with pytest.raises(Trimmed):
                checked_cut(rig.group, gone)
            with pytest.raises(Trimmed):
                rig.letters("root", gone)
        rig.reopen()


def test_the_window_of_a_groups_policy_counts_and_not_the_sites(rig: GroupRig) -> None:
    volume = rig.create("root", 16)
    fill(rig, volume, 3)
    rig.settle(2 * POLL_S)
    assert len(rig.segment_files()) == 4
    rig.group.append_records([structs.replace(NO_POLICY, window_s=3600)])
    rig.settle(2 * POLL_S)
    assert len(rig.segment_files()) == 4
    rig.reopen()
    rig.group.append_records([structs.replace(NO_POLICY, window_s=0)])
    rig.sync()
    rig.write(volume, 9, b"z")
    rig.settle(2 * POLL_S)
    assert len(rig.segment_files()) == 1


def test_a_time_before_the_floor_is_refused(rig: GroupRig) -> None:
    volume = rig.create("root", 16)
    rig.settle(10.0)
    first_ns = rig.clock.utc_ns()
    fill(rig, volume, 2)
    rig.settle(10.0)
    truncate(rig)
    with pytest.raises(Trimmed, match="oldest time that can still be restored"):
        cut_at_time(rig.group, first_ns - 1)


def test_a_file_that_a_crash_left_goes_at_the_next_start(rig: GroupRig) -> None:
    volume = rig.create("root", 16)
    fill(rig, volume, 2)
    rig.checkpoint()
    expected = rig.letters("root")
    rig.indexer.hold = True
    before = len(rig.segment_files())
    truncate(rig)
    assert len(rig.segment_files()) == before
    rig.reopen()
    assert len(rig.segment_files()) == before - 1
    assert rig.letters("root") == expected


def test_a_truncation_that_fails_is_tried_again(rig: GroupRig) -> None:
    volume = rig.create("root", 16)
    fill(rig, volume, 2)
    rig.checkpoint()
    rig.indexer.failures = [OSError(28, "no space")]
    rig.group.settings = KEEP_NOTHING
    rig.settle(POLL_S)
    assert rig.group.reclaim.failures == 1
    assert [kind for kind, _ in rig.events].count("fold.failed") == 1
    rig.settle(RETRY_S + POLL_S)
    assert len(rig.segment_files()) == 1


def test_holders_keep_frames_until_the_journal_is_full(make_rig: MakeRig) -> None:
    rig = make_rig()
    volume = rig.create("root", 16)
    cuts = fill(rig, volume, 2)
    detached = []
    space = rig.group.space
    space.slots["par"] = ReplicationSlot(confirmed=lambda: cuts[5], detach=lambda: detached.append("par"))
    files = len(rig.segment_files())
    truncate(rig)
    assert len(rig.segment_files()) == files
    used = rig.group.segments.total_bytes()
    rig.group.settings = replace(KEEP_NOTHING, journal_limit_bytes=used + used // 20)
    rig.settle(3 * POLL_S)
    assert detached == ["par"]
    assert len(rig.segment_files()) == 1
    stages = [fields["stage"] for kind, fields in rig.events if kind == "journal.pressure"]
    assert stages[:2] == ["warning", "detach"]
    # What it had stays readable, over a restart too.
    rig.reopen()
    assert rig.group.kept.readable(cuts[5])
    assert rig.group.kept.leases.get("peer:par") == cuts[5]
    assert not rig.group.kept.readable(cuts[6])


def let_go(rig: GroupRig, confirmed: Callable[[], Cut]) -> int:
    """A slot `par` that is made to do without frames; what the journal took before."""
    space = rig.group.space
    space.slots["par"] = ReplicationSlot(confirmed=confirmed, detach=lambda: None)
    used = rig.group.segments.total_bytes()
    rig.group.settings = replace(KEEP_NOTHING, journal_limit_bytes=used + used // 20)
    rig.settle(3 * POLL_S)
    assert "par" not in space.slots
    return used


def test_whoever_does_without_is_known_all_the_same_and_holds_again(make_rig: MakeRig) -> None:
    """A peer that was let go went on, and the next session asked for what changed since the moment it was let
    go: the peer had truncated that long ago, and everything was sent."""
    rig = make_rig()
    volume = rig.create("root", 16)
    cuts = fill(rig, volume, 2)
    has = [cuts[5]]
    used = let_go(rig, lambda: has[0])
    rig.group.settings = replace(KEEP_NOTHING, journal_limit_bytes=100 * used)
    later = fill(rig, volume, 2)
    has[0] = later[0]
    rig.settle(3 * POLL_S)
    space = rig.group.space
    assert "par" in space.slots
    assert space.limit() == later[0].position
    assert rig.group.kept.journal_reaches(later[0])


def test_what_one_has_that_does_without_is_written_down_with_each_truncation(make_rig: MakeRig) -> None:
    rig = make_rig()
    volume = rig.create("root", 16)
    cuts = fill(rig, volume, 2)
    has = [cuts[5]]
    let_go(rig, lambda: has[0])
    has[0] = cuts[-1]  # it goes on, and has not all that there was when it was let go
    fill(rig, volume, 2)
    truncate(rig)
    assert "par" not in rig.group.space.slots
    assert not rig.group.kept.journal_reaches(cuts[-1])
    rig.reopen()
    assert rig.group.kept.leases.get("peer:par") == cuts[-1]
    assert rig.group.kept.readable(cuts[-1])


def test_a_lease_released_is_swept(rig: GroupRig) -> None:
    volume = rig.create("root", 16)
    cuts = fill(rig, volume, 2)
    rig.group.kept.leases.hold("job:1", cuts[5])
    truncate(rig)
    then = rig.letters("root", cuts[5])

    def stored() -> int:
        with rig.group.store.read() as read:
            cursor = read.cursor("blocks")
            return sum(1 for _ in iter(cursor.next, False))

    before = stored()
    assert then
    rig.group.kept.leases.release("job:1")
    rig.group.reclaim.sweep()
    rig.settle(1.0)
    assert stored() < before
    with pytest.raises(Trimmed):
        rig.letters("root", cuts[5])


def test_a_sweep_that_is_asked_for_while_one_runs_is_made_too(rig: GroupRig) -> None:
    """What it is for may lie behind the slice that runs: two branches that were dropped at once."""
    volume = rig.create("root", 16)
    rig.write(volume, 0, b"a", b"b")
    rig.checkpoint()

    def versions() -> int:
        with rig.group.store.read() as read:
            cursor = read.cursor("versions")
            return sum(1 for _ in iter(cursor.next, False))

    seen: list[tuple[str, int]] = []
    rig.indexer.hold = True
    rig.group.reclaim.sweep((), lambda: seen.append(("first", versions())))
    rig.settle(0.2)
    assert rig.group.reclaim.running
    lane = rig.group.timelines.get(rig.group.head.timeline).lane
    rig.group.reclaim.sweep(((lane, 0),), lambda: seen.append(("second", versions())))
    rig.indexer.hold = False
    rig.indexer.answer()
    rig.settle(1.0)
    assert [name for name, _ in seen] == ["first", "second"]
    assert dict(seen)["second"] == 0, "its lane is given out again"


def test_hosts_are_slowed_down_and_never_stopped(make_rig: MakeRig) -> None:
    rig = make_rig(settings=replace(KEEP_ALL, throttle=True))
    volume = rig.create("root", 16)
    fill(rig, volume, 2)
    rig.group.space.slots["check"] = ReplicationSlot(confirmed=lambda: None, detach=lambda: None)
    used = rig.group.segments.total_bytes()
    rig.group.settings = replace(KEEP_ALL, throttle=True, journal_limit_bytes=used * 5 // 4)
    rig.settle(2 * POLL_S)
    assert not rig.group.overloaded
    relieved = []
    rig.group.listeners.relief.append(lambda: relieved.append(rig.clock.monotonic()))
    began = rig.clock.monotonic()
    rig.write(volume, 0, b"a", b"b")
    assert rig.group.overloaded
    rig.settle(5.0)
    assert not rig.group.overloaded
    assert relieved
    assert 0.005 < relieved[0] - began < 1.0


def test_a_backup_of_the_floor_itself_outlives_the_next_truncation(rig: GroupRig) -> None:
    """Where the last truncation ended no frame ends any more: the digest there comes from that truncation."""
    volume = rig.create("root", 16)
    fill(rig, volume, 2)
    truncate(rig)
    horizon = rig.group.kept.horizon()
    assert horizon is not None
    expected = rig.letters("root", horizon)
    take_backup(rig.group, volume=None, label="edge", cut=horizon, pinned=False, rng=rig.rng)
    fill(rig, volume, 2)
    truncate(rig)
    for _ in range(2):
        assert checked_cut(rig.group, horizon) == horizon
        assert rig.letters("root", horizon) == expected
        rig.reopen()


def truncated_past_a_fork(
    make_rig: MakeRig, third: GroupRig | None = None
) -> tuple[GroupRig, Cut, list[int]]:
    """A head that left a timeline at a kept cut (that of time 10), below where it is still in the journal. A
    third site has all of that timeline."""
    one = make_rig("one")
    volume = one.create("root", 16)
    other = make_rig("other", site="par", world=one.world, seed=2)
    follow(one, other)
    cuts, times = [], []
    for number in range(100):
        other.settle(1.0)
        times.append(other.write(volume, number % 8, b"b").prefix.utc_ns)
        cuts.append(other.end)
        if number == 10:
            follow(other, one)
    fork = one.end
    assert fork == cuts[10]
    if third is not None:
        follow(other, third)
    take_backup(other.group, volume=None, label="kept", cut=fork, pinned=False, rng=other.rng)
    other.sync()
    other.write(volume, 9, b"z")
    truncate(other)
    assert other.group.kept.retention.truncated_to(fork.timeline) > fork.position
    one.settle(1.0)
    one.write(volume, 0, b"o")
    take_other_line(other, one)
    return other, fork, times


def test_a_time_below_a_fork_that_a_branch_was_truncated_past(make_rig: MakeRig) -> None:
    rig, fork, times = truncated_past_a_fork(make_rig)
    for at in (times[10], times[40], times[99]):
        assert cut_at_time(rig.group, at) == fork
    with pytest.raises(Trimmed, match="oldest time"):
        cut_at_time(rig.group, times[10] - 1)


def test_the_floor_of_a_head_that_left_below_one_is_where_it_left(make_rig: MakeRig) -> None:
    """All that both lines have was truncated for the other one; nothing of it can be read but that cut."""
    rig, fork, _ = truncated_past_a_fork(make_rig)
    (horizon,) = rig.group.kept.retention.horizons
    assert horizon.position > rig.end.position > fork.position
    volume = rig.group.volume("root")
    for _ in range(2):
        assert rig.group.kept.horizon() == fork
        assert oldest_cut(rig.group, volume) == fork
        assert rig.group.kept.readable(fork)
        rig.reopen()


def test_a_floor_on_the_heads_line_is_that_of_the_head(make_rig: MakeRig) -> None:
    """Also where a branch has one further up."""
    rig, fork, _ = truncated_past_a_fork(make_rig)
    volume = rig.group.volume("root").id
    fill(rig, volume, 2)
    truncate(rig)
    horizons = rig.group.kept.retention.horizons
    own = rig.group.kept.horizon()
    assert own in horizons
    assert len(horizons) == 2
    assert own is not None
    assert own.timeline != fork.timeline


def test_a_time_below_a_truncated_run_whose_start_is_still_held(make_rig: MakeRig) -> None:
    """A run that was truncated whole stands on a segment that stays, because a branch goes on in it."""
    other = make_rig("other")
    one = make_rig("one", site="par", world=other.world, seed=2)
    volume, moments = other.create("root", 16), []
    for number in range(6):
        other.settle(1.0)
        moments.append((other.write(volume, number, b"a").prefix.utc_ns, other.end))
    follow(other, one)
    kept_ns, kept = moments[2]
    take_backup(other.group, volume=None, label="kept", cut=kept, pinned=False, rng=other.rng)
    for number in range(10):
        other.write(volume, number, b"b")
    one.settle(1.0)
    between = [one.write(volume, number, b"c").prefix.utc_ns for number in range(3)]
    one.settle(1.0)
    one.reopen()
    fill(one, volume, 3)
    first, truncated, head = one.group.spans(one.group.writer.written)
    for span in (truncated, head):
        for frame in one.group.reader.frames(span.timeline, span.start, span.end, None):
            other.group.follow(frame.prefix, bytes(frame.raw), leave=True)
    other.settle(1.0)
    fill(other, volume, 1)
    truncate(other)
    retention = other.group.kept.retention
    assert retention.truncated_to(truncated.timeline) == truncated.end
    assert not retention.truncated_to(first.timeline)
    for utc_ns in (kept_ns, kept_ns + 1, moments[3][0] - 1):
        assert cut_at_time(other.group, utc_ns) == kept
    # What is not kept, came last below the fork, or was truncated with the run.
    for utc_ns in (moments[1][0], moments[-1][0], *between):
        with pytest.raises(Trimmed, match="oldest time"):
            cut_at_time(other.group, utc_ns)
