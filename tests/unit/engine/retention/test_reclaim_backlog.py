"""Reclaim when there is much to do at once, and when nobody writes."""

from __future__ import annotations

import pytest

from engine.retention.thinning import Changes
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


def rows(rig: GroupRig) -> list[tuple[bytes, bytes]]:
    """All of `versions`."""
    found = []
    with rig.group.store.read() as transaction:
        cursor = transaction.cursor("versions")
        while cursor.next():
            found.append((cursor.key(), cursor.value()))
    return found
