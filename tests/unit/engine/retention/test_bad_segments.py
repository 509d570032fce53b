"""What reclaim makes of segments that it cannot read, or not remove."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial

import pytest

from engine.retention.reclaim import POLL_S, RETRY_S
from tests.unit.engine.group_rig import GroupRig
from tests.unit.engine.retention.test_reclaim import fill, truncate

pytestmark = pytest.mark.usefixtures("run_sizes")


@pytest.mark.parametrize("how", ["damaged", "gone", "unreadable"])
def test_a_bad_frame_takes_nothing_out_of_the_window(
    rig: GroupRig, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The first of a segment says how old the one before is; taken for as old as can be, that one went. And a
    bad sector there ended the group at each look."""
    volume = rig.create("root", 16)
    cuts = fill(rig, volume, 3)
    rig.checkpoint()
    files = rig.segment_files()
    rig.group.segments.close()
    if how == "damaged":
        with files[1].open("r+b") as file:
            file.write(b"\xff" * 8)
    elif how == "gone":
        files.pop(1).unlink()
    else:
        bad = files[1].stat().st_ino
        monkeypatch.setattr(os, "pread", partial(_fails_at, bad, os.pread))
        monkeypatch.setattr(os, "preadv", partial(_fails_at, bad, os.preadv))
    rig.settle(2 * POLL_S)
    monkeypatch.undo()
    assert rig.segment_files() == files
    assert rig.group.kept.readable(cuts[0])


def _fails_at(inode: int, read: Callable[..., object], descriptor: int, *rest: object) -> object:
    if os.fstat(descriptor).st_ino == inode:
        raise OSError(errno.EIO, "a bad sector")
    return read(descriptor, *rest)


def test_a_file_that_cannot_be_removed_goes_at_the_next_start(
    rig: GroupRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended the group."""
    volume = rig.create("root", 16)
    fill(rig, volume, 3)
    rig.checkpoint()
    expected, first = rig.letters("root"), rig.segment_files()[0]
    unlink = os.unlink

    def fails(path: str) -> None:
        if str(path).endswith(first.name):
            raise OSError(errno.EIO, "a bad directory")
        unlink(path)

    monkeypatch.setattr(os, "unlink", fails)
    truncate(rig)
    rig.settle(RETRY_S + POLL_S)
    truncate(rig)
    monkeypatch.undo()
    assert [kind for kind, _ in rig.events].count("fold.failed") == 1
    assert rig.segment_files()[0] == first
    assert len(rig.segment_files()) == 2
    for files in (1, 1):
        assert rig.letters("root") == expected
        rig.reopen()
        assert len(rig.segment_files()) == files
