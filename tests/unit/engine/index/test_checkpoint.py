"""A checkpoint puts into the index what the journal says up to a durable place, all of it or nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.index.checkpoint import CheckpointPlan, run_checkpoint
from engine.index.indexed_history import load_checkpoint, load_records, load_timelines
from engine.index.versions import TABLES, VERSION_KEY, read_version
from engine.journal.reader import BadFrame, JournalReader
from engine.journal.segments import SegmentMap
from engine.ports.durable import RealDisk
from protocol.errors import WrongState
from protocol.events import TRIM, WRITE, ZERO
from protocol.limits import BLOCK_BYTES
from protocol.positions import Cut
from tests.unit.engine.group_rig import GroupRig, follow

pytestmark = pytest.mark.usefixtures("run_sizes")

MakeRig = Callable[..., GroupRig]


def plan_of(rig: GroupRig, target: Cut | None = None) -> CheckpointPlan:
    group = rig.group
    target = target or group.end
    return CheckpointPlan(target=target, durable=group.writer.written, timelines=tuple(group.timelines.all()))


def run(rig: GroupRig, plan: CheckpointPlan) -> int:
    """As the indexer does, with files of its own."""
    segments = SegmentMap(RealDisk(rig.directory / "g", None))
    segments.load()
    try:
        return run_checkpoint(rig.group.store, JournalReader(segments), plan)
    finally:
        segments.close()


def content(rig: GroupRig) -> dict[str, list[tuple[bytes, bytes]]]:
    """Every row of every table."""
    found: dict[str, list[tuple[bytes, bytes]]] = {}
    with rig.group.store.read() as read:
        for table in TABLES:
            cursor = read.cursor(table)
            rows = found[table] = []
            while cursor.next():
                rows.append((bytes(cursor.key()), bytes(cursor.value())))
    return found


def versions(rig: GroupRig) -> list[tuple[int, int, bool]]:
    """(block, number, zero) of every version in the index, newest first within a block."""
    rows = content(rig)["versions"]
    return [
        (VERSION_KEY.unpack(key)[2], version.number, version.zero)
        for key, value in rows
        for version in [read_version(key, value)]
    ]


def test_past_what_is_durable_is_refused(rig: GroupRig) -> None:
    """An index row that names bytes which a power loss took would be a lie that no journal walk could
    find."""
    volume = rig.create("root")
    rig.write(volume, 0, b"a")
    before = content(rig)
    plan = plan_of(rig)
    with pytest.raises(WrongState, match="durable"):
        run(rig, replace(plan, durable=plan.target.position - 1))
    assert content(rig) == before


def test_every_version_is_kept_newest_first(rig: GroupRig) -> None:
    volume = rig.create("root")
    first = rig.write(volume, 3, b"a", b"b").prefix
    second = rig.write(volume, 3, b"c").prefix
    assert run(rig, plan_of(rig)) == 3
    assert versions(rig) == [
        (3, second.payload_at, False),
        (3, first.payload_at, False),
        (4, first.payload_at + BLOCK_BYTES, False),
    ]


def test_a_zeroed_range_leaves_tombstones_only_over_older_versions(rig: GroupRig) -> None:
    """A discarded terabyte must not become a quarter of a billion rows."""
    volume = rig.create("root", 1 << 28)
    rig.write(volume, 7, b"a")
    zero = rig.append([(ZERO, volume, 0, 1 << 28)]).prefix
    assert run(rig, plan_of(rig)) == 2
    assert versions(rig)[0] == (7, zero.end - 1, True)
    trim = rig.append([(WRITE, volume, 8, 1), (TRIM, volume, 0, 1 << 28)], b"b").prefix
    assert run(rig, plan_of(rig)) == 3
    assert {(block, number) for block, number, zero in versions(rig) if zero} == {
        (7, zero.end - 1),
        (7, trim.end - 1),
        (8, trim.end - 1),
    }


def test_the_next_checkpoint_goes_on_where_the_last_one_ended(rig: GroupRig) -> None:
    volume = rig.create("root")
    rig.write(volume, 0, b"a")
    assert run(rig, plan_of(rig)) == 1
    rig.write(volume, 1, b"b")
    assert run(rig, plan_of(rig)) == 1
    assert run(rig, plan_of(rig)) == 0
    with rig.group.store.read() as read:
        assert load_checkpoint(read) == rig.end
        row = load_timelines(read)[rig.end.timeline]
        assert (row.indexed, row.digest) == (rig.end.position, rig.group.head.digest)


def test_records_carry_time_and_place(rig: GroupRig) -> None:
    volume = rig.create("root")
    run(rig, plan_of(rig))
    with rig.group.store.read() as read:
        records = list(load_records(read))
    assert [row[0] for *_, row in records] == [16, 17]
    assert records[1] == (
        rig.end.timeline,
        volume,
        volume,
        rig.group.head.utc_ns,
        (17, "root", 64 * BLOCK_BYTES),
    )


def test_a_journal_that_cannot_be_read_changes_nothing(rig: GroupRig) -> None:
    volume = rig.create("root")
    rig.write(volume, 0, b"a")
    run(rig, plan_of(rig))
    frame = rig.write(volume, 1, b"b").prefix
    rig.write(volume, 2, b"c")
    before = content(rig)
    path = rig.segment_files()[0]
    damaged = bytearray(path.read_bytes())
    damaged[frame.payload_at] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(BadFrame):
        run(rig, plan_of(rig))
    assert content(rig) == before


def test_a_target_in_the_past_takes_what_lies_before_it(rig: GroupRig) -> None:
    volume = rig.create("root")
    rig.write(volume, 0, b"a")
    cut = rig.end
    rig.write(volume, 1, b"b")
    assert run(rig, plan_of(rig, cut)) == 1
    assert run(rig, plan_of(rig)) == 1


def test_a_fork_below_what_is_indexed_is_taken_up_where_it_left(rig: GroupRig, directory: Path) -> None:
    """A follower indexed a tail that the writer lost: it stays indexed in its lane, beside the new
    timeline."""
    volume = rig.create("root")
    rig.write(volume, 0, b"a")
    rig.drop()
    shutil.copytree(rig.directory, directory / "follower")
    rig.open()
    follower = GroupRig(directory / "follower")
    follower.open()
    tail = rig.write(volume, 1, b"x").prefix
    follow(rig, follower)
    follower.checkpoint()
    rig.drop()
    segment = max(rig.segment_files(), key=lambda path: path.name)
    start = int(segment.stem, 16)
    segment.write_bytes(segment.read_bytes()[: tail.position - start])
    rig.open()
    rig.write(volume, 2, b"b")
    follow(rig, follower)
    assert run(follower, plan_of(follower)) == 1
    assert [(block, zero) for block, _, zero in versions(follower)] == [(0, False), (1, False), (2, False)]
    assert follower.letters("root")[:4] == "a.b."
    follower.reopen()
    assert follower.letters("root")[:4] == "a.b."
    follower.drop()
