"""What a start reads from the disk, as the run before may have ended on a sync that failed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.journal.recovery import SETTLED_BYTES, SYNC_FILES_MAX, settle
from engine.journal.segments import SegmentMap
from engine.ports.disk import DiskFile
from engine.ports.durable import RealDisk
from protocol.limits import FRAME_BYTES_MAX, SEGMENT_BYTES, UNSYNCED_BYTES_MAX
from tests.unit.engine.journal.test_recovery import TIMELINE, Journal


def test_however_many_small_segments_there_are(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest 64 were taken for all that a failed sync may have lost: of what lay before, a power loss
    took what recovery had read in the cache and called durable."""
    journal = Journal(directory)
    for _ in range(2 * SYNC_FILES_MAX + 1):
        journal.lay([journal.frame()], tail=0)
    segments = SegmentMap(journal.disk)
    segments.load()
    synced, forgotten = list[DiskFile](), list[DiskFile]()

    def sync(disk: RealDisk, files: Sequence[DiskFile], directories: Sequence[str]) -> None:
        assert len(files) <= SYNC_FILES_MAX
        synced.extend(files)

    monkeypatch.setattr(RealDisk, "sync", sync)
    monkeypatch.setattr(RealDisk, "forget_cached", lambda disk, files: forgotten.extend(files))
    settle(journal.disk, segments, TIMELINE, 0)
    assert len(synced) == len(forgotten) == 2 * SYNC_FILES_MAX + 1
    del synced[:]
    settle(journal.disk, segments, TIMELINE, journal.frames[-2].prefix.position)
    assert len(synced) == 2
    segments.close()


def test_it_is_more_than_may_be_written_and_not_durable() -> None:
    """With the last segment, which may be empty, and the frame that filled the measure."""
    assert SETTLED_BYTES >= UNSYNCED_BYTES_MAX + SEGMENT_BYTES + FRAME_BYTES_MAX
