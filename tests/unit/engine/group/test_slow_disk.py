"""Hosts wait for a disk that is slow to sync, so that recovery knows how much a failed sync may have lost."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

import engine.journal.writer
from engine.ports.disk import DiskFile, SyncDone
from engine.ports.durable import RealDisk
from protocol.events import WRITE
from protocol.limits import BLOCK_BYTES
from tests.unit.engine.group.test_clones import clone_of
from tests.unit.engine.group_rig import GroupRig

UNSYNCED_BYTES = 16 * BLOCK_BYTES


class SlowDisk:
    """Syncs of a group end when they are told to. `relieved` counts how often hosts were told to go on."""

    def __init__(self, rig: GroupRig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.relieved = 0
        self._under_way: list[SyncDone] = []
        monkeypatch.setattr(engine.journal.writer, "UNSYNCED_BYTES_MAX", UNSYNCED_BYTES)
        monkeypatch.setattr(RealDisk, "start_sync", self._start)
        rig.group.listeners.relief.append(self._relieve)

    def _start(self, files: Sequence[DiskFile], directories: Sequence[str], done: SyncDone) -> None:
        self._under_way.append(done)

    def _relieve(self) -> None:
        self.relieved += 1

    def end(self) -> None:
        """The sync that is under way is done."""
        self._under_way.pop(0)(None)


def test_hosts_wait_while_much_is_written_and_not_durable(
    rig: GroupRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = rig.create("root", 64)
    rig.write(volume, 0, b"a")
    rig.sync()
    disk = SlowDisk(rig, monkeypatch)
    group = rig.group
    began = group.writer.durable
    rig.write(volume, 1, b"b")
    group.when_durable(lambda _: None)
    while not group.overloaded:
        rig.write(volume, 1, b"b")
    assert UNSYNCED_BYTES <= group.writer.written - began < UNSYNCED_BYTES + 2 * BLOCK_BYTES
    rig.write(volume, 1, b"b")  # as what was read of hosts before they had to wait
    group.when_durable(lambda _: None)
    disk.end()  # of what was written when it began: one block
    assert group.overloaded
    assert disk.relieved == 0
    disk.end()
    assert not group.overloaded
    assert disk.relieved == 1


def test_hosts_of_a_clone_wait_for_its_own_journal(rig: GroupRig, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = rig.create("root", 64)
    rig.write(volume, 0, b"a")
    clone = clone_of(rig, rig.end)
    disk = SlowDisk(rig, monkeypatch)
    while not clone.overloaded:
        clone.append([(WRITE, volume, 1, 1)], [b"b" * BLOCK_BYTES], BLOCK_BYTES)
    assert not rig.group.overloaded
    clone.when_durable(lambda _: None)
    disk.end()
    assert not clone.overloaded
    assert disk.relieved == 1
