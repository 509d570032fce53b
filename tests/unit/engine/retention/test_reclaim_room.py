"""Truncating with little room on the file system: what has to be moved counts, not what the segment holds."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from engine.journal import room
from engine.ports.disk import DiskFile, SyncDone
from engine.ports.durable import RealDisk
from engine.retention.journal_space import ReplicationSlot
from engine.retention.reclaim import POLL_S, RETRY_S
from protocol.errors import NoSpace
from protocol.limits import BLOCK_BYTES, INDEX_TRANSACTION_BYTES
from tests.unit.engine.conftest import SMALL_SEGMENT_BYTES
from tests.unit.engine.group_rig import GroupRig
from tests.unit.engine.retention.test_reclaim import KEEP_ALL, KEEP_NOTHING, fill, truncate

MakeRig = Callable[..., GroupRig]


def test_c54_a_segment_larger_than_the_room_goes_if_what_is_needed_of_it_fits(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment of an earlier version may have 64 MiB on a file system where 20 MiB are free, of which a
    volume of 8 MiB needs no more than that: it went never, and hosts got ENOSPC for good."""
    rig = make_rig()
    volume = rig.create("root", 16)
    fill(rig, volume, 4)
    rig.checkpoint()
    expected = rig.letters("root")
    free = INDEX_TRANSACTION_BYTES + 20 * BLOCK_BYTES
    rig.group.settings = replace(KEEP_ALL, reserve_bytes=free)  # all of it is the reserve
    monkeypatch.setattr(RealDisk, "free_bytes", lambda _: free)
    assert rig.group.writer.segment_bytes < SMALL_SEGMENT_BYTES
    rig.group.settings = replace(KEEP_NOTHING, reserve_bytes=free)
    rig.settle(5 * RETRY_S)
    assert len(rig.segment_files()) > 1  # a quarter of the reserve is not for this
    stages = [fields["stage"] for kind, fields in rig.events if kind == "journal.pressure"]
    assert stages
    assert len(stages) == len(set(stages))  # not once more with each try
    assert [kind for kind, _ in rig.events].count("fold.failed") == 1
    rig.group.settings = replace(KEEP_NOTHING, reserve_bytes=0)
    rig.settle(2 * RETRY_S)
    assert len(rig.segment_files()) == 1
    assert rig.letters("root") == expected


def fill_disk(rig: GroupRig, volume: int, blocks: int, rng: random.Random) -> dict[int, bytes]:
    """Write here and there until it is refused; the letters of the blocks written."""
    written: dict[int, bytes] = {}
    while True:
        first = rng.randrange(blocks - 7)
        letters = [bytes([rng.randrange(97, 123)]) for _ in range(rng.randint(1, 8))]
        try:
            rig.write(volume, first, *letters)
        except NoSpace:
            return written
        written |= {first + at: letter for at, letter in enumerate(letters)}
        if rng.random() < 0.1:
            rig.sync()


@pytest.mark.parametrize("seed", range(8))
def test_c54_a_journal_that_fills_the_disk_leaves_room_to_truncate_it(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """A secondary's journal took what its truncations needed, and the pair was suspended for good."""
    rng = random.Random(seed)
    monkeypatch.setattr(room, "SEGMENT_BYTES", 1 << 20)
    disk_bytes = rng.randint(8, 24) << 20
    rig = make_rig()

    def free_bytes(_: RealDisk) -> int:
        used = (path.stat() for path in (rig.directory / "g").rglob("*") if path.is_file())
        return max(0, disk_bytes - sum(512 * stat.st_blocks for stat in used))

    monkeypatch.setattr(RealDisk, "free_bytes", free_bytes)
    rig.settings = replace(KEEP_ALL, reserve_bytes=disk_bytes // 16)
    rig.reopen()
    blocks = rng.choice((16, 256, 1024))
    volume = rig.create("root", blocks)
    written = fill_disk(rig, volume, blocks, rng)
    held = len(rig.segment_files())
    assert held > 4
    rig.group.settings = replace(KEEP_NOTHING, reserve_bytes=disk_bytes // 16)
    rig.settle(4 * RETRY_S)
    assert "fold.failed" not in [kind for kind, _ in rig.events]
    assert len(rig.segment_files()) < held / 2
    rig.write(volume, 0, b"Z")
    written[0] = b"Z"
    found = rig.letters("root")
    assert all(found[at] == letter.decode() for at, letter in written.items())


def test_c54_history_that_a_peer_may_want_back_goes_before_anybody_waits(make_rig: MakeRig) -> None:
    """It was held until 85 % of the journal were full; on a small disk the rest was less than the writer had
    on the way, and the pair was suspended. A peer that follows is let go no sooner than before."""
    rig = make_rig()
    volume = rig.create("root", 16)
    cuts = fill(rig, volume, 4)
    gone: list[str] = []
    follows = [False]
    slots = rig.group.space.slots
    slots["history of lon"] = ReplicationSlot(
        confirmed=lambda: None,
        detach=lambda: gone.append("history"),
        remember=False,
        lets_go=lambda: follows[0],
    )
    slots["par"] = ReplicationSlot(confirmed=lambda: cuts[-1], detach=lambda: gone.append("par"))
    used = rig.group.segments.total_bytes()
    rig.group.settings = replace(KEEP_NOTHING, journal_limit_bytes=3 * used)
    rig.settle(3 * POLL_S)
    assert gone == []
    assert len(rig.segment_files()) > 4
    rig.group.settings = replace(KEEP_NOTHING, journal_limit_bytes=used * 19 // 10)
    rig.settle(3 * POLL_S)
    assert gone == []  # a base may be to come, on what is here of old
    follows[0] = True
    rig.settle(3 * POLL_S)
    assert gone == ["history"]
    assert len(rig.segment_files()) == 1


def test_what_the_index_has_free_counts_as_room(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the long run truncations live on the pages that those before gave back."""
    rig = make_rig()
    volume = rig.create("root", 16)
    monkeypatch.setattr("engine.retention.truncation.INDEX_TRANSACTION_BYTES", 0)
    for _ in range(3):
        fill(rig, volume, 2)
        truncate(rig)
    fill(rig, volume, 2)
    rig.checkpoint()
    monkeypatch.setattr(RealDisk, "free_bytes", lambda _: 2 * BLOCK_BYTES)
    truncate(rig)
    assert len(rig.segment_files()) == 1


def test_hosts_wait_for_a_sync_before_they_are_told_that_there_is_no_room(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a disk that others kept busy took a second for a sync, a quick host filled the journal: nothing
    of it could be truncated yet, so nobody waited, and the host got ENOSPC."""
    syncs: list[Callable[[], None]] = []

    def start_sync(disk: RealDisk, files: list[DiskFile], directories: list[str], done: SyncDone) -> None:
        def sync() -> None:
            disk.sync(files, directories)
            done(None)

        syncs.append(sync)

    limit_bytes = 16 * SMALL_SEGMENT_BYTES
    rig = make_rig(settings=replace(KEEP_NOTHING, journal_limit_bytes=limit_bytes))
    volume = rig.create("root", 16)
    rig.sync()
    monkeypatch.setattr(RealDisk, "start_sync", start_sync)
    reliefs: list[bool] = []
    rig.group.listeners.relief.append(lambda: reliefs.append(rig.group.overloaded))
    for turn in range(3 * limit_bytes // BLOCK_BYTES):
        while rig.group.overloaded:  # as a host's connection, which is read again with the relief
            assert syncs or rig.world.now_ns < 60e9, "nobody relieves it"
            while syncs:
                syncs.pop(0)()
            rig.settle(0.1)
        rig.write(volume, turn % 16, bytes([97 + turn % 26]))
        rig.settle(0.0001)
    assert reliefs
    assert not any(reliefs)
    assert "journal.no_space" not in [kind for kind, _ in rig.events]
