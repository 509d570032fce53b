"""A real file system on a volume: ext4 over nbdfuse and a loop device, filled with a real tree.

cp -a ── ext4 ── /dev/loopN ── nbdfuse (a file in user space) ── the daemon
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.clients import fsck, succeed
from tests.support.mounting import loop_device, mounted, nbdfuse, require_mounting
from tests.support.sites import Site

TREE = Path("/usr/lib/python3")


@pytest.fixture
def device(site: Site, scratch: Path, tool: Callable[[str], str]) -> Iterator[str]:
    """A loop device on a new volume of 512 MiB."""
    require_mounting()
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
