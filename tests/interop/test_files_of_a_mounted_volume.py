"""A cut that was taken while its file system was mounted: what was written last is in its log, and comes."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.clients import succeed
from tests.support.mounting import MountedHost, loop_device, mounted, mounts_of, nbdfuse, require_mounting
from tests.support.sites import Site

Tool = Callable[[str], str]


def test_xfs_by_the_kernel(site: Site, scratch: Path, tool: Tool) -> None:
    """Not read in user space: refused, and read where the kernel may; its log is played back on a clone."""
    require_mounting()
    uri = site.create_volume("g/x", "512M")
    with nbdfuse(tool("nbdfuse"), uri, scratch) as file, loop_device(tool("losetup"), file) as device:
        succeed(tool("mkfs.xfs"), "-q", device)
        with mounted(device, scratch) as point:
            (point / "sub").mkdir()
            (point / "sub" / "file").write_text("in xfs")
            with (point / "sparse").open("wb") as sparse:
                sparse.truncate(64 << 20)
                sparse.seek(32 << 20)
                sparse.write(b"middle")
            (point / "link").symlink_to("/etc/shadow")
            os.setxattr(point / "sub" / "file", "user.colour", b"blue")
            succeed("sync", "--file-system", point)
            site.farshore("backup", "create", "g", "--label", "b")
    if shutil.which("guestmount") is None:
        refused = site.farshore("ls", "g/x@b:/", exit_code=13)
        assert "holds xfs" in refused
        assert "--kernel-mount" in refused
    out = scratch / "out"
    words = ["restore", "files", "g/x", "--at", "b", "/", "--to", str(out), "--kernel-mount"]
    restored = site.json(*words)
    assert (restored["files"], restored["links"], restored["missed"]) == (2, 1, [])
    assert (out / "sub" / "file").read_text() == "in xfs"
    assert os.getxattr(out / "sub" / "file", "user.colour") == b"blue"
    assert os.readlink(out / "link") == "/etc/shadow"
    assert (out / "sparse").stat().st_size == 64 << 20
    assert (out / "sparse").stat().st_blocks * 512 < 1 << 20
    assert site.json("clone", "list")["clones"] == []
    assert mounts_of(site) == []


def test_a_file_that_was_removed_is_found_whole(site: Site, scratch: Path, tool: Tool) -> None:
    """Its inode is emptied in place before its name goes: between the two there is a name and nothing else.
    What `files last` prints restores it, for whom no log is played back."""
    uri = site.create_volume("g/v", "128M")
    host = MountedHost(scratch / "host", uri, tool)
    try:
        host.make_file_system()
        (host.point / "report").write_text("first draft")
        succeed("sync", "--file-system", host.point)
        site.farshore("backup", "create", "g", "--label", "night")
        (host.point / "report").write_text("second draft")
        succeed("sync", "--file-system", host.point)
        (host.point / "report").unlink()
        succeed("sync", "--file-system", host.point)
        data = site.json("files", "last", "g/v:/report")
        shown = site.farshore("files", "last", "g/v:/report")
        host.stop()
    finally:
        host.close()
    assert (data["size_bytes"], data["exact"]) == (len("second draft"), True)
    assert shown.count("--no-replay") == 1
    words = shlex.split(data["restore"])
    assert words[-1] == "--no-replay"
    site.farshore(*words[words.index("restore") : -2], str(scratch / "back"), words[-1])
    assert (scratch / "back" / "report").read_text() == "second draft"
    assert site.json("clone", "list")["clones"] == []


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
