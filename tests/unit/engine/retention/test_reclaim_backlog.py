"""Reclaim when there is much to do at once, and when nobody writes."""

from __future__ import annotations

from typing import Any

import pytest

from engine.retention.needed import Keep, what_to_keep
from engine.retention.reclaim import POLL_S
from engine.retention.reclaim_requests import SweepPlan
from engine.retention.thinning import Changes
from protocol.events import CopyDeleted
from protocol.limits import BLOCK_BYTES
from site_primary.backup import take_backup
from tests.unit.engine.group_rig import GroupRig
from tests.unit.engine.retention.test_reclaim import fill, truncate

pytestmark = pytest.mark.usefixtures("run_sizes")


@pytest.mark.parametrize("indexed", [False, True])
def test_it_begins_by_itself_after_a_start(rig: GroupRig, indexed: bool) -> None:
    """Nobody writes: what the newest frame said of an earlier run is true in this one."""
    volume = rig.create("root", 16)
    fill(rig, volume, 3)
    expected = rig.letters("root")
    if indexed:  # then nothing is replayed
        rig.checkpoint()
    for _ in range(2):
        rig.reopen()
    assert len(rig.segment_files()) == 4
    truncate(rig)
    assert len(rig.segment_files()) == 1
    assert rig.letters("root") == expected


def test_of_a_backlog_only_what_none_of_it_wrote_again_moves(
    rig: GroupRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[bytes] = []

    def store(self: Changes, key: bytes, crc: int, data: memoryview) -> None:
        moved.append(key)
        before(self, key, crc, data)

    before = Changes.store
    monkeypatch.setattr(Changes, "store", store)
    volume = rig.create("root", 16)
    cuts = fill(rig, volume, 6)
    take_backup(rig.group, volume=None, label="kept", cut=cuts[3], pinned=False, rng=rig.rng)
    then, now = rig.letters("root", cuts[3]), rig.letters("root")
    rig.checkpoint()
    truncate(rig)
    assert len(rig.segment_files()) == 1
    # The blocks that the backup sees, and those that are there now, of which the last segment has some.
    assert 0 < len(moved) <= len(then.strip(".")) + 16
    assert (rig.letters("root", cuts[3]), rig.letters("root")) == (then, now)


@pytest.mark.parametrize("value", [b"", b"\x01", b"\x09....", b"\x02....", b"\x03....", bytes(21)])
def test_a_row_that_cannot_be_read_ends_it_with_nothing_changed(rig: GroupRig, value: bytes) -> None:
    volume = rig.create("root", 16)
    fill(rig, volume, 1)
    rig.checkpoint()
    (key, _), *_ = rows(rig)
    with rig.group.store.write() as write:
        write.put("versions", key, value)
    before, segments = rows(rig), rig.segment_files()
    truncate(rig)
    (failed,) = (fields for kind, fields in rig.events if kind == "fold.failed")
    assert f"volume {volume:x} block 0 is damaged" in failed["error"]
    assert rows(rig) == before
    assert rig.segment_files() == segments


def rows(rig: GroupRig) -> list[tuple[bytes, bytes]]:
    """All of `versions`."""
    found = []
    with rig.group.store.read() as transaction:
        cursor = transaction.cursor("versions")
        while cursor.next():
            found.append((cursor.key(), cursor.value()))
    return found


@pytest.mark.parametrize("answered", [False, True])
def test_a_volume_of_nothing_but_runs_is_read_while_they_fall_apart(rig: GroupRig, answered: bool) -> None:
    """Whoever read it knows that it has no single blocks. A truncation makes some, which can be read before
    the daemon hears of it, and no checkpoint follows."""
    volume = rig.create("root", 64)
    turn = 0
    while len(rig.segment_files()) < 4:
        # The first of them is never written again: the first segment has something to move.
        rig.write(volume, (turn % 3 + 1) * 16 if turn else 0, *[bytes([97 + turn % 26])] * 16)
        turn += 1
    rig.sync()
    rig.write(volume, 16, *[b"z"] * 16)
    rig.sync()
    rig.checkpoint()
    expected = rig.letters("root")
    rig.indexer.hold = not answered
    truncate(rig)
    assert (len(rig.segment_files()) == 1) is answered
    assert rig.letters("root") == expected
    stretches = rig.live("root").extents(0, 64 * BLOCK_BYTES)
    assert sum(blocks for blocks, data in stretches if data) == len(expected.strip(".")) * BLOCK_BYTES


def test_a_sweep_decides_once_and_again_when_something_is_another(
    rig: GroupRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tens of thousands of backups a decision takes longer than a host may wait between two slices."""
    volume = rig.create("root", 16)
    cuts = fill(rig, volume, 3)
    group, backups = rig.group, {}
    for label, cut in (("a", cuts[5]), ("b", cuts[9]), ("c", cuts[13])):
        take_backup(group, volume=None, label=label, cut=cut, pinned=False, rng=rig.rng)
        backups[label] = rig.letters("root", cut), cut
    truncate(rig)
    decided = 0

    def decide(*arguments: Any) -> Keep:
        nonlocal decided
        decided += 1
        return what_to_keep(*arguments)

    monkeypatch.setattr("engine.retention.reclaim.what_to_keep", decide)
    monkeypatch.setattr("engine.retention.sweep.SWEEP_SLICE", 1)
    group.reclaim.sweep()
    rig.settle(POLL_S)
    slices = sum(isinstance(each, SweepPlan) for each in rig.indexer.requests)
    assert slices > 8
    assert decided <= 1
    before = decided
    rig.indexer.hold = True
    group.reclaim.sweep()
    rig.settle(POLL_S)  # one slice of it
    group.append_records([CopyDeleted(copy_id=group.copies.find(group.spans(), "b", "g").id)])
    rig.sync()
    rig.indexer.hold = False
    rig.indexer.answer()
    rig.settle(2 * POLL_S)
    assert before < decided <= before + 2
    for _ in range(2):
        assert [group.kept.readable(cut) for _, cut in backups.values()] == [True, False, True]
        for label in ("a", "c"):
            assert rig.letters("root", backups[label][1]) == backups[label][0]
        rig.reopen()
        group = rig.group
