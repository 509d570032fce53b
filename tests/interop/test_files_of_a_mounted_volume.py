"""A cut that was taken while its file system was mounted: what was written last is in its log, and comes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.mounting import MountedHost
from tests.support.sites import Site

Tool = Callable[[str], str]


@pytest.fixture
def synced(site: Site, scratch: Path, tool: Tool) -> None:
    """`g/v` at the cut `mounted`: a file was synced a moment ago, and the file system stays mounted."""
    uri = site.create_volume("g/v", "128M")
    host = MountedHost(scratch / "host", uri, tool)
    try:
        host.make_file_system()
        (host.point / "old").write_text("old")
        host.stop()
        host.start()
        (host.point / "new").write_text("new")
        for name in ("new", "."):
            file = os.open(host.point / name, os.O_RDONLY)
            os.fsync(file)
            os.close(file)
        site.farshore("backup", "create", "g", "--label", "mounted")
        host.stop()
    finally:
        host.close()


@pytest.mark.usefixtures("synced")
def test_the_log_is_played_back_on_a_clone(site: Site, scratch: Path) -> None:
    without = site.json("ls", "g/v@mounted:/", "--no-replay")
    assert not without["replayed"]
    paths = [entry["path"] for entry in without["entries"]]
    assert "/old" in paths
    assert "/new" not in paths

    listed = site.json("ls", "g/v@mounted:/")
    assert listed["replayed"]
    assert [entry["path"] for entry in listed["entries"]] == ["/lost+found", "/new", "/old"]
    out = scratch / "out"
    restored = site.json("restore", "files", "g/v", "--at", "mounted", "/new", "--to", str(out))
    assert restored["replayed"]
    assert (out / "new").read_text() == "new"
    assert site.json("clone", "list")["clones"] == []
