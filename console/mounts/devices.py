"""A volume as a block device of this machine, for as long as somebody wants it: noted like a mount
(`mounting.py`), and taken down by the same steps.
"""

from __future__ import annotations

from shlex import quote

from console.mounts.mounting import DEVICE, Mount, mounts
from console.mounts.programs import call, find_program, run
from protocol.errors import Busy, NotFound

MKFS_TIMEOUT_S = 3600.0
_LABEL_OPTION = {"vfat": "-n"}
# Without a question: whether something is overwritten was asked before.
_FORCE = {"ext4": ("-F",), "xfs": ("-f",), "btrfs": ("-f",), "vfat": ()}


def attached_devices() -> list[Mount]:
    """Those of this machine."""
    return [each for each in mounts() if each.kind == DEVICE]


def attached_as(name: str, site: str) -> Mount:
    """The one of an export (`G/V`, `G/V@CUT`), that of `site` if several sites' are attached, or of a
    device's path. NotFound."""
    found = [each for each in attached_devices() if name in (each.export, each.device)]
    found.sort(key=lambda each: each.site != site)
    if found:
        return found[0]
    raise NotFound(f"{name} is not attached here", subject=name, next_step="farshore volume attach --list")


def require_unmounted(made: Mount) -> None:
    """Busy while a file system of the device is mounted: its kernel would write to nothing."""
    device = made.device
    if not device:
        return
    code, points = call("findmnt", "--noheadings", "--output", "TARGET", "--source", device)
    if code == 0 and points:
        point = points.splitlines()[0]
        raise Busy(f"{device} is mounted at {point}", subject=device, next_step=f"umount {quote(str(point))}")


def require_mkfs(kind: str) -> None:
    """NotFound, with the package to install, unless its mkfs is here."""
    find_program(f"mkfs.{kind}")


def make_file_system(device: str, kind: str, label: str) -> None:
    """Run mkfs. FarshoreError with what it said."""
    name = [_LABEL_OPTION.get(kind, "-L"), label] if label else []
    run(f"mkfs.{kind}", *_FORCE[kind], *name, device, timeout_s=MKFS_TIMEOUT_S)
