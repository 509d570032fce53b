"""Drills, mounts and searches on disks with partition tables, as virtual machines have them (C45, C46)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.support.clients import MIB, succeed
from tests.support.file_systems import make_ext
from tests.support.sites import Site, running_sites

# The host that runs the tests has such a file, too.
FSTAB = "test -s $FARSHORE_MOUNT/etc/fstab && grep -q 'of the guest' $FARSHORE_MOUNT/etc/fstab"


def write_disk(tool: Callable[[str], str], parts: list[Path], disk: Path) -> None:
    """An MBR table with a partition for each image, end to end from 1 MiB on."""
    words = ["mklabel", "msdos"]
    place = MIB
    with disk.open("wb") as file:
        for part in parts:
            size = part.stat().st_size
            words += ["mkpart", "primary", f"{place}B", f"{place + size - 1}B"]
            file.seek(place)
            file.write(part.read_bytes())
            place += size
        file.truncate(place + MIB)
    succeed(tool("parted"), "-s", disk, *words)


@pytest.fixture(scope="module")
def site(tool: Callable[[str], str]) -> Iterator[Site]:
    """Group `vm`: `root`, a disk with one partition, and `data`, a file system on the whole volume, with a
    backup `before`. Group `two`: a disk with two partitions. Group `mixed`: both
    kinds of volumes. Group `blank`: zeroes."""
    for name in ("nbdfuse", "losetup", "mke2fs", "partx", "blkid"):
        tool(name)
    if os.geteuid() != 0 or not Path("/dev/fuse").exists() or not Path("/dev/loop-control").exists():
        missing("mounting needs root, /dev/fuse and loop devices")
    with running_sites("a") as (one,):
        work = one.directory.parent
        (work / "tree" / "etc").mkdir(parents=True)
        (work / "tree" / "etc" / "fstab").write_text("# of the guest\n")
        part = make_ext(work / "part", work / "tree", "16M")
        write_disk(tool, [part], work / "one")
        write_disk(tool, [part, part], work / "two")
        for volume, image in (
            ("vm/root", "one"),
            ("vm/data", "part"),
            ("two/root", "two"),
            ("mixed/data", "part"),
            ("mixed/disk", "two"),
        ):
            size = (work / image).stat().st_size
            succeed(tool("nbdcopy"), work / image, one.create_volume(volume, str(size)))
        one.create_volume("blank/v", "8M")
        one.farshore("backup", "create", "vm", "--label", "before")
        yield one
        assert one.json("clone", "list")["clones"] == []
        assert one.stop() == 0
        one.check_log()


def last_step(site: Site, group: str) -> tuple[str, str]:
    """Of the newest drill: the step that came last, and what it said."""
    step = site.json("drill", "show", group)["steps"][-1]
    return f"{step['step']} {step['state']}", step["said"]


@pytest.mark.slow
def test_c45_the_only_partition_of_a_disk_is_the_one_that_is_meant(site: Site, scratch: Path) -> None:
    assert site.run("drill", "run", "vm/root", "--check", FSTAB).returncode == 0
    point = scratch / "mnt"
    point.mkdir()
    site.farshore("mount", "vm/root", str(point), "--writable")
    try:
        assert (point / "etc" / "fstab").read_text() == "# of the guest\n"
        (point / "etc" / "fstab").unlink()
    finally:
        site.farshore("umount", str(point))
    assert site.run("drill", "run", "vm/root", "--check", FSTAB).returncode == 1
    found = site.json("bisect", "vm/root", "--good", "before", "--bad", "latest", "--check", FSTAB)
    assert found["frame"]["kinds"] == {"write": 1}


@pytest.mark.slow
@pytest.mark.parametrize("check", ["test -s $FARSHORE_MOUNT/etc/fstab", "test -s etc/fstab", "true"])
def test_c45_a_drill_that_mounted_nothing_is_never_green(site: Site, check: str) -> None:
    for group, failed in (("blank", "check failed"), ("two", "mount failed")):
        assert site.run("drill", "run", group, "--check", check).returncode == 1
        step, said = last_step(site, group)
        assert step == failed
        assert "--raw" in said
        assert "--partition" in said
    assert site.run("drill", "run", "blank").returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--check", "true")])
def test_c45_a_disk_of_which_nothing_was_chosen_is_not_passed_over(
    site: Site, words: tuple[str, ...]
) -> None:
    """Another volume of the group was mounted: the drill was good although nobody looked at this one."""
    assert site.run("drill", "run", "mixed", *words).returncode == 1
    steps = site.json("drill", "show", "mixed")["steps"]
    (failed,) = [step for step in steps if step["state"] == "failed"]
    assert (failed["volume"], failed["step"]) == ("disk", "mount")
    assert "--partition disk=N" in failed["said"]
    shown = {group["group"]: group["last_drill"] for group in site.json("status")["groups"]}
    assert not shown["mixed"]["ok"]
    assert "drill mixed: the last drill" in site.farshore("check", "mixed", exit_code=1)
    assert site.run("drill", "run", "mixed", *words, "--partition", "disk=2").returncode == 0


@pytest.mark.slow
def test_c45_a_check_of_the_device_says_so(site: Site) -> None:
    whole = 'test "$(blockdev --getsize64 $FARSHORE_DEVICE)" = '
    assert site.run("drill", "run", "blank", "--raw", "--check", f"{whole}{8 * MIB}").returncode == 0
    assert site.run("drill", "run", "two", "--raw", "--check", f"{whole}{34 * MIB}").returncode == 0
    assert "would prove nothing" in site.farshore("drill", "run", "blank", "--raw", exit_code=2)


@pytest.mark.slow
def test_c46_each_volume_of_a_group_has_its_own_partition(site: Site) -> None:
    both = "grep -q guest $FARSHORE_MOUNT_ROOT/etc/fstab && grep -q guest $FARSHORE_MOUNT_DATA/etc/fstab"
    before = ("--at", "before", "--check", both)
    for choice in ((), ("--partition", "1"), ("--partition", "root=1")):
        assert site.run("drill", "run", "vm", *before, *choice).returncode == 0, choice
    assert site.run("drill", "run", "vm", *before, "--partition", "root=2").returncode == 1
    assert "no partition 2" in str(site.json("drill", "show", "vm")["steps"])
    refused = site.farshore("drill", "run", "vm", *before, "--partition", "toor=1", exit_code=10)
    assert "vm has" in refused
    words = ("bisect", "vm", "--good", "before", "--bad", "latest", "--partition", "1")
    check = 'test ! -f "$FARSHORE_MOUNT_DATA/later"'
    assert "the check calls --bad" in site.farshore(*words, "--check", check, exit_code=24)
    assert site.run("drill", "run", "two", "--partition", "root=2", "--check", FSTAB).returncode == 0
