"""A file that gets its name once it is whole, and what it does not overwrite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from console.images.unfinished_file import UnfinishedFile
from protocol.errors import UsageError


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
