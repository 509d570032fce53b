"""What the machine refuses is named: which file could not be made durable, and what a file system lacks."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.ports.durable import RealDisk


def refuse_to_sync(_: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_what_cannot_be_made_durable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = RealDisk(tmp_path, None)
    file = disk.preallocate("a", 4096)
    monkeypatch.setattr(os, "fsync", refuse_to_sync)
    monkeypatch.setattr(os, "fdatasync", refuse_to_sync)
    told: list[OSError | None] = []
    disk.start_sync([file], [], told.append)
    with pytest.raises(OSError, match="cannot be made durable") as caught:
        disk.sync([], [""])
    assert [error.filename for error in told if error] == ["a"]
    assert caught.value.filename == str(tmp_path)
    assert caught.value.errno == errno.EIO


def test_what_a_file_system_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = RealDisk(tmp_path, None)
    full, quota = OSError(errno.ENOSPC, "full"), OSError(errno.EDQUOT, "quota")
    assert "quota" in disk.why_full(quota)
    for files, free, lack in ((1000, 0, "inodes"), (1000, 1, "room"), (0, 0, "room")):
        status = SimpleNamespace(f_files=files, f_favail=free)
        monkeypatch.setattr(os, "statvfs", lambda _, status=status: status)
        assert lack in disk.why_full(full)


def test_a_root_that_has_gone(tmp_path: Path) -> None:
    root = tmp_path / "g"
    root.mkdir()
    disk = RealDisk(root, None)
    root.rmdir()
    with pytest.raises(OSError, match="the directory has gone") as caught:
        disk.free_bytes()
    assert caught.value.errno == errno.ENODEV
    assert "room" in disk.why_full(OSError(errno.ENOSPC, "full"))
