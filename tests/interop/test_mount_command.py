"""`farshore mount` and `umount`: past moments with their log replayed, live volumes, partitions, and every
way in which a mount may be found broken."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from console.mounts.attach import is_mounted
from console.mounts.mounting import Mount, at, mounts
from tests.conftest import missing
from tests.support.clients import MIB, succeed
from tests.support.mounting import mounts_of
from tests.support.sites import Site, running_sites


@pytest.fixture
def point(scratch: Path, tool: Callable[[str], str]) -> Iterator[Path]:
    """An empty directory to mount on; whatever a failed test leaves there is taken away."""
    for name in ("nbdfuse", "losetup", "mkfs.ext4", "blkid"):
        tool(name)
    if os.geteuid() != 0 or not Path("/dev/fuse").exists() or not Path("/dev/loop-control").exists():
        missing("mounting needs root, /dev/fuse and loop devices")
    point = scratch / "mnt"
    point.mkdir()
    yield point
    for left in mounts():
        if scratch in left.point.parents:
            left.undo(lambda _site, _clone: None)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """One site for the whole file; at the end it must stop cleanly and have logged no unexpected error."""
    with running_sites("a") as (one,):
        yield one
        assert one.stop() == 0
        one.check_log()


@pytest.fixture(scope="module")
def image(site: Site, tool: Callable[[str], str]) -> Path:
    """An ext4 file system of 64 MiB that holds the file `first`."""
    tree, image = site.directory.parent / "tree", site.directory.parent / "image"
    tree.mkdir()
    (tree / "first").write_text("first\n")
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    succeed(tool("mkfs.ext4"), "-q", "-d", tree, image)
    return image


@pytest.fixture(scope="module")
def volume(site: Site, image: Path, tool: Callable[[str], str]) -> str:
    """A volume `g/v` with the image; a backup of that has the label `clean`."""
    succeed(tool("nbdcopy"), image, site.create_volume("g/v", "64M"))
    site.farshore("backup", "create", "g", "--label", "clean")
    return "g/v"


def mounted(site: Site, *words: str | Path) -> dict[str, Any]:
    """MOUNT of `farshore mount`."""
    data: dict[str, Any] = site.json("mount", *map(str, words))
    return data


def nothing_is_left(site: Site, point: Path) -> None:
    """No mount, no clone; the directory is an ordinary empty one."""
    assert not is_mounted(point)
    assert list(point.iterdir()) == []
    assert [each for each in mounts() if each.point == point] == []
    assert site.json("clone", "list")["clones"] == []


def nbdfuse_of(there: Mount) -> int:
    """Its process id."""
    return int((there.directory / "attached" / "pid").read_text())


def test_a_clean_cut_is_mounted_as_it_is(site: Site, volume: str, point: Path) -> None:
    data = mounted(site, f"{volume}@clean", point)
    assert (data["filesystem"], data["clone"], data["replayed"]) == ("ext4", None, False)
    assert (point / "first").read_text() == "first\n"
    with pytest.raises(OSError, match="Read-only"):
        (point / "second").write_text("")
    assert f"{point}  {volume}@clean" in " ".join(site.farshore("mount", "--list").split()).replace(" ", "  ")
    refused = site.farshore("mount", volume, str(point), exit_code=11)
    assert f"umount {point}" in refused.partition("next: ")[2]
    site.farshore("umount", str(point))
    nothing_is_left(site, point)
    assert "nothing of ours is mounted" in site.farshore("umount", str(point), exit_code=10)


def test_a_cut_of_a_mounted_file_system_shows_what_was_written_last(
    site: Site, volume: str, point: Path, scratch: Path
) -> None:
    live = scratch / "live"
    live.mkdir()
    mounted(site, volume, live, "--writable")
    (live / "second").write_text("second\n")
    with (live / "second").open() as file:
        os.fsync(file.fileno())
    site.farshore("backup", "create", "g", "--label", "dirty")

    # Mounted twice, it would be destroyed.
    assert "hosts connected" in site.farshore("mount", volume, str(point), "--writable", exit_code=11)
    nothing_is_left(site, point)

    data = mounted(site, f"{volume}@dirty", point)
    assert data["replayed"]
    assert data["clone"]
    assert (point / "second").read_text() == "second\n"
    with pytest.raises(OSError, match="Read-only"):
        (point / "third").write_text("")
    site.farshore("umount", str(point))
    nothing_is_left(site, point)

    data = mounted(site, f"{volume}@dirty", point, "--no-replay")
    assert data["clone"] is None
    assert "what was written last is missing" in data["warnings"][0]
    site.farshore("umount", str(point))
    site.farshore("umount", str(live))
    assert mounted(site, volume, point)["clone"] is None
    assert (point / "second").read_text() == "second\n"
    site.farshore("umount", str(point))
    nothing_is_left(site, point)


def test_what_is_written_to_a_mounted_cut_changes_nothing(site: Site, volume: str, point: Path) -> None:
    before = site.json("volume", "show", volume)["head"]["position"]
    data = mounted(site, f"{volume}@clean", point, "--writable")
    assert data["clone"] == site.json("clone", "list")["clones"][0]["clone"]
    (point / "second").write_text("second\n")
    site.farshore("umount", str(point))
    nothing_is_left(site, point)
    assert site.json("volume", "show", volume)["head"]["position"] == before


def test_a_clone_is_mounted_by_its_name(site: Site, volume: str, point: Path) -> None:
    site.farshore("clone", "create", f"{volume}@clean", "copy")
    mounted(site, "copy/v", point, "--writable")
    (point / "second").write_text("second\n")
    site.farshore("umount", str(point))
    mounted(site, "copy/v", point)
    assert (point / "second").read_text() == "second\n"
    site.farshore("umount", str(point))
    assert [clone["clone"] for clone in site.json("clone", "list")["clones"]] == ["copy"]
    site.farshore("clone", "delete", "copy", "--confirm", "copy")


def test_a_partition_is_mounted(
    site: Site, point: Path, scratch: Path, tool: Callable[[str], str], image: Path
) -> None:
    whole = scratch / "disk"
    with whole.open("wb") as disk:
        disk.truncate(66 * MIB)
        # An MBR: one Linux partition of 64 MiB that begins at the first MiB (sector 2048).
        disk.seek(446)
        disk.write(bytes([0, 0, 2, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little"))
        disk.write((64 * MIB // 512).to_bytes(4, "little"))
        disk.seek(510)
        disk.write(b"\x55\xaa")
        disk.seek(MIB)
        disk.write(image.read_bytes())
    succeed(tool("nbdcopy"), whole, site.create_volume("g/disk", "66M"))
    assert "no partition 2" in site.farshore("mount", "g/disk", str(point), "--partition", "2", exit_code=10)
    for choice in ((), ("--partition", "1")):
        mounted(site, "g/disk", point, *choice)
        assert (point / "first").read_text() == "first\n"
        site.farshore("umount", str(point))
        nothing_is_left(site, point)


def test_umount_cleans_up_after_a_killed_nbdfuse(site: Site, volume: str, point: Path) -> None:
    mounted(site, f"{volume}@clean", point, "--writable")
    (point / "second").write_text("second\n")
    os.kill(nbdfuse_of(at(point)), signal.SIGKILL)
    site.farshore("umount", str(point))
    nothing_is_left(site, point)
    mounted(site, f"{volume}@clean", point)
    site.farshore("umount", str(point))


def test_umount_cleans_up_after_a_killed_daemon(site: Site, volume: str, point: Path) -> None:
    mounted(site, f"{volume}@clean", point, "--writable")
    (point / "second").write_text("second\n")
    site.kill()
    said = site.run("umount", str(point))
    assert said.returncode == 0, said.stderr
    assert "the daemon is away" in said.stderr
    site.start()
    nothing_is_left(site, point)


def test_c47_a_mount_whose_daemon_was_restarted_is_said_to_have_failed(
    site: Site, volume: str, point: Path
) -> None:
    mounted(site, f"{volume}@clean", point)
    assert [row["failed"] for row in mounts_of(site)] == [False]
    assert site.stop() == 0
    site.start()
    assert [row["failed"] for row in mounts_of(site)] == [True]
    assert f"farshore umount {point}" in site.farshore("mount", "--list")
    site.farshore("umount", str(point))
    nothing_is_left(site, point)
    mounted(site, f"{volume}@clean", point)
    assert (point / "first").read_text() == "first\n"
    site.farshore("umount", str(point))


def test_a_busy_mount_stays_whole(site: Site, volume: str, point: Path) -> None:
    mounted(site, f"{volume}@clean", point)
    with (point / "first").open() as file:
        refused = site.farshore("umount", str(point), exit_code=11)
        assert "fuser -vm" in refused
        assert file.read() == "first\n"
    site.farshore("umount", str(point))
    nothing_is_left(site, point)


def test_what_cannot_be_mounted_leaves_nothing(site: Site, point: Path) -> None:
    site.create_volume("g/empty", "16M")
    said = json.loads(site.run("mount", "g/empty", str(point), "--json").stdout.splitlines()[-1])
    assert "nothing known" in said["errors"][0]["message"]
    nothing_is_left(site, point)
    assert "is not empty" in site.farshore("mount", "g/empty", "/etc", exit_code=13)


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[Path]:
    """A memory cgroup, of version 1 or 2; its processes go back to the root afterwards."""
    root = Path("/sys/fs/cgroup")
    parent, limit = (
        (root / "memory", "memory.limit_in_bytes") if (root / "memory").is_dir() else (root, "memory.max")
    )
    group = parent / f"farshore-{os.getpid()}"
    try:
        if parent == root:
            (root / "cgroup.subtree_control").write_text("+memory")
        group.mkdir()
        (group / limit).write_text(str(limit_bytes))
    except OSError as error:
        missing(f"no memory cgroup can be made here: {error}")
    try:
        yield group
    finally:
        for process in (group / "cgroup.procs").read_text().split():
            (parent / "cgroup.procs").write_text(process)
        group.rmdir()


@pytest.mark.slow
def test_writing_back_with_little_memory(site: Site, volume: str, point: Path) -> None:
    """Writer, nbdfuse and daemon share a memory cgroup that is smaller than what is written: dirty pages
    must go through both of them before any of the three gets more."""
    mounted(site, volume, point, "--writable")
    with memory_group(96 * MIB) as group:
        for number in (site.pid, nbdfuse_of(at(point))):
            (group / "cgroup.procs").write_text(str(number))
        script = f"echo $$ > {group}/cgroup.procs; exec dd if=/dev/zero of={point}/big bs=1M conv=fsync"
        for _ in range(4):
            words = ["timeout", "60", "sh", "-c", f"{script} count=40"]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        site.farshore("umount", str(point))
    assert site.process is not None
    assert site.process.poll() is None
