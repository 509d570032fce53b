"""C50: what libguestfs reads comes with its hard links and holes, in the clear and in LUKS. A restored tree
is compared with its original, as a directory and as an archive.

Only where `guestmount` is installed. Without help of the processor its machine takes a minute to start
(LIBGUESTFS_BACKEND_SETTINGS=force_tcg).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protocol.errors import ExitCode
from tests.support.clients import MIB, call, succeed
from tests.support.encrypted import FAST_PBKDF2, key_file, luks2
from tests.support.file_systems import import_image
from tests.support.mounting import loop_device, mounted, require_mounting
from tests.support.sites import Site, farshore_command, running_sites

Tool = Callable[[str], str]
# Of a virtual machine without help of the processor.
GUEST_TIMEOUT_S = 900.0
LOGICAL_VOLUME = "/dev/VG/LV"

pytestmark = [
    pytest.mark.skipif(shutil.which("guestmount") is None, reason="libguestfs is not installed"),
    pytest.mark.timeout(3600),
]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """One site for the whole file."""
    with running_sites("a") as (one,):
        yield one
        assert one.stop() == 0
        one.check_log()


def fill(root: Path) -> None:
    """Names of one file in two directories and in one, of a link and of a pipe; files with holes."""
    (root / "sub").mkdir()
    (root / "a").write_text("one file\n")
    os.link(root / "a", root / "b")
    os.link(root / "a", root / "sub" / "c")
    (root / "same").write_text("one file\n")
    (root / "link").symlink_to("a")
    os.link(root / "link", root / "link-too", follow_symlinks=False)
    with (root / "sparse").open("wb") as file:
        file.truncate(96 * MIB)
        file.seek(48 * MIB)
        file.write(b"middle" * 1000)
    with (root / "holes-only").open("wb") as file:
        file.truncate(8 * MIB)


def facts(root: Path) -> dict[str, tuple[object, ...]]:
    """Of each name: which names are the same file, its size, and whether it has holes."""
    found: dict[str, tuple[object, ...]] = {}
    paths = [each for each in sorted(root.rglob("*")) if each.name != "lost+found"]
    for path in paths:
        status = path.lstat()
        same = tuple(
            str(each.relative_to(root))
            for each in paths
            if not path.is_dir() and each.lstat().st_ino == status.st_ino
        )
        size = 0 if path.is_dir() else status.st_size
        holes = status.st_blocks * 512 < size - MIB
        found[str(path.relative_to(root))] = (same, size, holes)
    return found


def filled(image: Path, size: int, tool: Tool, scratch: Path, mkfs: str) -> Path:
    """An image of a new file system, filled by this machine's kernel: of names of one link mke2fs makes links
    of their own."""
    with image.open("wb") as file:
        file.truncate(size)
    succeed(tool(mkfs), "-q", image)
    with loop_device(tool("losetup"), image) as device, mounted(device, scratch) as root:
        fill(root)
    return image


def made(kind: str, scratch: Path, key: Path, tool: Tool) -> tuple[Path, list[str]]:
    """A volume's image with the files, and the options that read it."""
    image = scratch / "image"
    if "LVM" in kind:
        inside = filled(scratch / "inside", 128 * MIB, tool, scratch, "mkfs.ext4")
        with image.open("wb") as file:
            file.truncate(160 * MIB)
        script = (
            "run\npart-disk /dev/sda mbr\npvcreate /dev/sda1\nvgcreate VG /dev/sda1\n"
            f"lvcreate-free LV VG 100\nupload {inside} {LOGICAL_VOLUME}\n"
        )
        if "LUKS" in kind:
            script = script.replace("part-disk /dev/sda mbr\n", "").replace("/dev/sda1", "/dev/sda")
        succeed(tool("guestfish"), "--format=raw", "-a", image, stdin=script, timeout_s=GUEST_TIMEOUT_S)
        options = ["--device", LOGICAL_VOLUME]
    else:
        filled(image, 320 * MIB, tool, scratch, "mkfs.btrfs" if kind == "btrfs" else "mkfs.xfs")
        options = []
    if "LUKS" in kind:
        image = luks2(tool("cryptsetup"), image, key, *FAST_PBKDF2)
        options += ["--key-file", str(key)]
    return image, options


@pytest.mark.parametrize("kind", ["XFS", "ext4 in LVM", "XFS in LUKS", "ext4 in LVM in LUKS"])
def test_c50_links_and_holes_through_libguestfs(site: Site, scratch: Path, tool: Tool, kind: str) -> None:
    require_mounting()
    tree = scratch / "tree"
    tree.mkdir()
    fill(tree)
    key = key_file(scratch)
    image, options = made(kind, scratch, key, tool)
    volume = f"{kind.lower().replace(' ', '')}/v"
    import_image(site, volume, image, "b", tool("nbdcopy"))
    expected = facts(tree)
    assert expected["a"][0] == ("a", "b", "sub/c")

    out = scratch / "out"
    words = ["restore", "files", volume, "--at", "b", "/", *options]
    site.farshore(*words, "--to", str(out), timeout_s=GUEST_TIMEOUT_S)
    assert facts(out) == expected
    assert (out / "sparse").read_bytes() == (tree / "sparse").read_bytes()

    archive = scratch / "out.tar"
    with archive.open("wb") as file:
        subprocess.run(
            [*farshore_command(), *words, "--to", "-", "--site", str(site.directory)],
            stdout=file,
            env=site.environment(),
            check=True,
            timeout=GUEST_TIMEOUT_S,
        )
    assert archive.stat().st_size < 4 * MIB
    unpacked = scratch / "unpacked"
    unpacked.mkdir()
    succeed("tar", "-C", unpacked, "--acls", "--xattrs", "-xpf", archive)
    assert facts(unpacked) == expected
    assert not list(Path("/tmp").glob("farshore-guest-*/files/a"))
    if "LUKS" in kind:
        wrong = key_file(scratch, b"wrong", "wrong")
        words = ["ls", f"{volume}@b:/", "--key-file", str(wrong)]
        site.farshore(*words, exit_code=ExitCode.NOT_ALLOWED)
    assert call("pgrep", "-f", f"guestmount.*{scratch}").returncode != 0


def test_c50_links_of_btrfs_are_listed(site: Site, scratch: Path, tool: Tool) -> None:
    """Its snapshots number their files as the originals do: what are names of one file cannot be told."""
    require_mounting()
    image, _ = made("btrfs", scratch, scratch, tool)
    import_image(site, "btrfs/v", image, "b", tool("nbdcopy"))
    out = scratch / "out"
    words = ["restore", "files", "btrfs/v", "--at", "b", "/", "--to", str(out)]
    site.farshore(*words, exit_code=ExitCode.PARTIAL, timeout_s=GUEST_TIMEOUT_S)
    said = site.farshore("ls", "btrfs/v@b:/", "--json", timeout_s=GUEST_TIMEOUT_S)
    lacks = {each["path"]: each["lacks"] for each in json.loads(said)["data"]["entries"]}
    assert lacks["/a"] == lacks["/b"] == ["being one file with 3 names"]
    assert lacks["/same"] == []
    expected = {name: (size, holes) for name, (_, size, holes) in facts(out).items()}
    assert expected["sparse"] == (96 * MIB, True)
    assert (out / "sub" / "c").read_text() == "one file\n"
