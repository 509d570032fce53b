"""What a group that is hardly written takes of the disk, with segments of the sizes that they really have."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.journal import room
from protocol.limits import SEGMENT_BYTES, SEGMENT_BYTES_MIN
from tests.unit.engine.group_rig import GroupRig


def test_c41_a_small_group_costs_little_disk(
    make_rig: Callable[..., GroupRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 of one volume of 1 MiB: well under 1 GiB. Each took two segments of 64 MiB."""
    monkeypatch.setattr(room, "SEGMENT_BYTES", SEGMENT_BYTES)
    monkeypatch.setattr(room, "SEGMENT_BYTES_MIN", SEGMENT_BYTES_MIN)
    rig = make_rig()
    volume = rig.create("root", 256)
    for at in range(100):
        rig.write(volume, at, b"x")
    rig.sync()
    rig.checkpoint()
    rig.settle(10.0)
    files = [path.stat() for path in (rig.directory / "g").rglob("*") if path.is_file()]
    assert sum(512 * stat.st_blocks for stat in files) <= 4 << 20
