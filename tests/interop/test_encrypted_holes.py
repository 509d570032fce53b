"""C50: a hole in an encrypted volume: its bytes stay where it is trimmed, so none is said to be punched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from console.mounts.mounting import mounts
from tests.support.clients import MIB, call, succeed
from tests.support.encrypted import FAST_PBKDF2, key_file, luks2
from tests.support.file_systems import import_image, make_ext
from tests.support.mounting import require_mounting
from tests.support.sites import running_sites


def test_c50_no_hole_is_said_to_be_punched(scratch: Path, tool: Callable[[str], str]) -> None:
    """nbdfuse would make a TRIM of it, and the kernel take what is there for zeroes."""
    require_mounting()
    point, tree, key = scratch / "mnt", scratch / "tree", key_file(scratch)
    point.mkdir()
    tree.mkdir()
    made = luks2(tool("cryptsetup"), make_ext(scratch / "image", tree, "24M"), key, *FAST_PBKDF2)
    place = ("--offset", str(4 * MIB), "--length", str(MIB))
    with running_sites("a") as (site,):
        import_image(site, "e/v", made, "b", tool("nbdcopy"))
        site.farshore("mount", "e/v@b", str(point), "--writable", "--key-file", str(key))
        try:
            (device,) = (each.device for each in mounts() if each.point == point)
            succeed("umount", point)
            with Path(device).open("r+b") as file:
                file.seek(4 * MIB)
                file.write(b"x" * MIB)
            succeed("sync", device)
            assert call("fallocate", "--punch-hole", *place, device).returncode
            succeed("blkdiscard", "--zeroout", *place, device)
            with Path(device).open("rb") as file:
                file.seek(4 * MIB)
                assert file.read(MIB) == bytes(MIB)
        finally:
            site.farshore("umount", str(point))
