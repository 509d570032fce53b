"""A real file system on a volume: ext4 over nbdfuse and a loop device, filled with a real tree.

cp -a ── ext4 ── /dev/loopN ── nbdfuse (a file in user space) ── the daemon
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.support.clients import call, fsck, succeed
from tests.support.sites import Site

TREE = Path("/usr/lib/python3")
APPEAR_TIMEOUT_S = 20.0
HANG_TIMEOUT_S = 240


@contextmanager
def nbdfuse(program: str, uri: str, directory: Path) -> Iterator[Path]:
    """The export as a file; taken away again even when something still holds it."""
    mount = directory / "fuse"
    mount.mkdir()
    # `timeout` outlives this test's own process: a FUSE server that hangs must not hang the machine.
    process = subprocess.Popen(
        ["timeout", "--kill-after=5", str(HANG_TIMEOUT_S), program, str(mount / "disk.img"), uri],
        stdin=subprocess.DEVNULL,
    )
    file = mount / "disk.img"
    try:
        deadline = time.monotonic() + APPEAR_TIMEOUT_S
        while not file.exists():
            assert process.poll() is None, "nbdfuse ended at once"
            assert time.monotonic() < deadline, "nbdfuse did not mount"
            time.sleep(0.05)
        yield file
    finally:
        if call("umount", mount).returncode != 0:
            call("umount", "--lazy", mount)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait(20)
        mount.rmdir()


@contextmanager
def loop_device(program: str, file: Path) -> Iterator[str]:
    """A block device on the file."""
    device = succeed(program, "--find", "--show", "--direct-io=on", file).strip()
    try:
        yield device
    finally:
        call(program, "--detach", device)


@contextmanager
def mounted(device: str, directory: Path) -> Iterator[Path]:
    """The file system on the device."""
    point = directory / "mnt"
    point.mkdir(exist_ok=True)
    succeed("timeout", "60", "mount", device, point)
    try:
        yield point
    finally:
        if call("timeout", "60", "umount", point).returncode != 0:
            call("umount", "--lazy", point)


@pytest.fixture
def device(site: Site, scratch: Path, tool: Callable[[str], str]) -> Iterator[str]:
    """A loop device on a new volume of 512 MiB."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists() or not Path("/dev/loop-control").exists():
        missing("mounting needs root, /dev/fuse and loop devices")
    program, losetup = tool("nbdfuse"), tool("losetup")
    uri = site.create_volume("g/v", "512M")
    with ExitStack() as stack:
        file = stack.enter_context(nbdfuse(program, uri, scratch))
        yield stack.enter_context(loop_device(losetup, file))


@pytest.mark.slow
def test_a_tree_survives_umount_and_mount(
    site: Site, scratch: Path, device: str, tool: Callable[[str], str]
) -> None:
    succeed(tool("mkfs.ext4"), "-q", "-F", device)
    with mounted(device, scratch) as point:
        succeed("cp", "-a", TREE, point / "tree", timeout_s=200)
        succeed("sync", "--file-system", point)
    with mounted(device, scratch) as point:
        succeed("diff", "-r", "--no-dereference", TREE, point / "tree", timeout_s=200)
    fsck(Path(device), program=tool("e2fsck"))
    # Not through the loop device's cache: what the daemon itself serves.
    back = scratch / "back.img"
    succeed(tool("nbdcopy"), site.uri("g/v"), back)
    fsck(back, program=tool("e2fsck"))


@pytest.mark.slow
def test_xfs_mounts_again(scratch: Path, device: str, tool: Callable[[str], str]) -> None:
    succeed(tool("mkfs.xfs"), "-q", "-f", device)
    with mounted(device, scratch) as point:
        succeed("cp", "-a", TREE, point / "tree", timeout_s=200)
    with mounted(device, scratch) as point:
        succeed("diff", "-r", "--no-dereference", TREE, point / "tree", timeout_s=200)
    succeed(tool("xfs_repair"), "-n", device)
