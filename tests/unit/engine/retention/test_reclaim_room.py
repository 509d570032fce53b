"""Truncating with little room on the file system: what has to be moved counts, not what the segment holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from engine.ports.durable import RealDisk
from engine.retention.reclaim import RETRY_S
from engine.retention.truncation import TRANSACTION_BYTES
from protocol.limits import BLOCK_BYTES
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
    free = TRANSACTION_BYTES + 20 * BLOCK_BYTES
    rig.group.settings = replace(KEEP_ALL, reserve_bytes=free)  # all of it is the reserve
    monkeypatch.setattr(RealDisk, "free_bytes", lambda _: free)
    assert rig.group.writer.segment_bytes < SMALL_SEGMENT_BYTES
    rig.group.settings = replace(KEEP_NOTHING, reserve_bytes=free)
    rig.settle(2 * RETRY_S)
    assert len(rig.segment_files()) > 1  # a quarter of the reserve is not for this
    assert [kind for kind, _ in rig.events].count("fold.failed") == 1
    rig.group.settings = replace(KEEP_NOTHING, reserve_bytes=0)
    rig.settle(2 * RETRY_S)
    assert len(rig.segment_files()) == 1
    assert rig.letters("root") == expected


def test_what_the_index_has_free_counts_as_room(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the long run truncations live on the pages that those before gave back."""
    rig = make_rig()
    volume = rig.create("root", 16)
    monkeypatch.setattr("engine.retention.truncation.TRANSACTION_BYTES", 0)
    for _ in range(3):
        fill(rig, volume, 2)
        truncate(rig)
    fill(rig, volume, 2)
    rig.checkpoint()
    monkeypatch.setattr(RealDisk, "free_bytes", lambda _: 2 * BLOCK_BYTES)
    truncate(rig)
    assert len(rig.segment_files()) == 1
