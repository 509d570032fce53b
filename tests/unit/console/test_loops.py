"""Which loop devices stand on a file, by what the kernel says."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.mounts import loops
from console.mounts.loops import loops_of


def test_a_device_is_found_after_its_file_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when nbdfuse was killed: the device was never given back, and what is below stayed busy."""
    monkeypatch.setattr(loops, "BLOCK_DEVICES", tmp_path)
    for name, backing in (("loop0", "/x/volume (deleted)"), ("loop1", "/x/volume"), ("loop2", "/y/volume")):
        (tmp_path / name / "loop").mkdir(parents=True)
        (tmp_path / name / "loop" / "backing_file").write_text(f"{backing}\n")
    (tmp_path / "loop3").mkdir()
    assert loops_of(Path("/x/volume")) == ["/dev/loop0", "/dev/loop1"]
