"""A file that gets its name once it is whole, and what it does not overwrite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from console.images.unfinished_file import UnfinishedFile
from protocol.errors import FarshoreError, UsageError


def test_what_the_new_file_builds_on_is_not_replaced(tmp_path: Path) -> None:
    """By whichever name, that of the partial file included."""
    needed = tmp_path / "base.partial"
    needed.write_bytes(b"base")
    (tmp_path / "symbolic").symlink_to(needed)
    (tmp_path / "hard").hardlink_to(needed)
    with needed.open() as opened:
        for name in ("base.partial", "symbolic", "hard", "base"):
            for replace in (True, False):
                with pytest.raises(UsageError, match="builds on"):
                    UnfinishedFile(tmp_path / name, replace=replace, needed=[opened.fileno()])
    assert needed.read_bytes() == b"base"
    assert sorted(os.listdir(tmp_path)) == ["base.partial", "hard", "symbolic"]


@pytest.mark.parametrize("name", ["/", ".", "", "..", "../", "fifo"])
def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="is no file") as error:
        UnfinishedFile(Path(name), replace=True)
    assert error.value.subject == str(Path(name))
    assert os.listdir(tmp_path) == ["fifo"]


@pytest.mark.parametrize("name", ["loop", "file/v.img", "nowhere/v.img", "n" * 300])
def test_where_no_file_can_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    with pytest.raises(FarshoreError, match="cannot write"):
        UnfinishedFile(tmp_path / name, replace=True)
