"""File systems that are not read in user space: mounted by libguestfs in its own small virtual machine, or,
where that was asked for, by the kernel of this machine.

Both play back a log that was left unfinished where nothing is lost by it: libguestfs on an overlay of its
own, the kernel on a temporary clone.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from console.commands.mount import Mounting
from console.files.mounted_tree import MountedTree
from console.host_configs import Export, uri
from console.local_time import monotonic, pause
from console.luks.secret import LuksKey
from console.mounts.attach import attach
from console.mounts.clones import take_down
from console.mounts.mounting import at, real, require_root
from console.mounts.programs import call, program_path
from console.session import Session
from protocol.commands.cut import CutInfo
from protocol.errors import FarshoreError

GUESTMOUNT = "guestmount"
# A virtual machine is started for it, which takes minutes where the processor does not help.
GUEST_TIMEOUT_S = 600.0
# Without that help it also takes its time to end, and holds the volume as long.
END_TIMEOUT_S = 600.0
POLL_S = 0.05
GUEST_KNOWS = frozenset({"xfs", "btrfs", "lvm", "md"})


def guest_can(holds: str) -> bool:
    """Whether libguestfs is here and may know it."""
    return holds in GUEST_KNOWS and program_path(GUESTMOUNT) is not None


@contextmanager
def kernel_mounted(
    session: Session, name: str, cut: CutInfo | None, partition: int, key: LuksKey
) -> Iterator[Path]:
    """`G/V`, mounted by this machine's kernel: at a cut read-only, without one the live volume, writable.
    `key`: of what is encrypted."""
    require_root()
    point = Path(tempfile.mkdtemp(prefix="farshore-mount-"))
    export = f"{name}@{cut.text}" if cut else name
    try:
        mounting = Mounting(
            session, export, point, writable=cut is None, number=partition or None, no_replay=False, key=key
        )
        mounting.run()
        try:
            yield point
        finally:
            take_down(session, at(real(point)))
    finally:
        os.rmdir(point)


@contextmanager
def kernel_tree(
    session: Session, name: str, cut: CutInfo, partition: int, kind: str, key: LuksKey
) -> Iterator[MountedTree]:
    """The files of a cut as this machine's kernel shows them."""
    session.output.note(f"warning: {name}: the kernel of this machine parses what is in the volume, as root")
    with (
        kernel_mounted(session, name, cut, partition, key) as point,
        closing(MountedTree(point, kind or "mounted")) as tree,
    ):
        yield tree


def _await_end(pid: Path) -> None:
    """Unmounting answers before the virtual machine is gone, and with it its hold on the export."""
    deadline = monotonic() + END_TIMEOUT_S
    process = Path("/proc", pid.read_text(encoding="ascii").strip())
    while process.exists() and monotonic() < deadline:
        pause(POLL_S)


@contextmanager
def guest_tree(export: Export, partition: int, kind: str, device: str) -> Iterator[MountedTree]:
    """The files of an export as libguestfs shows them. `device` names a logical volume, where one has to be
    chosen. Raises FarshoreError."""
    directory = Path(tempfile.mkdtemp(prefix="farshore-guest-"))
    point, pid = directory / "files", directory / "pid"
    point.mkdir()
    which = device or f"/dev/sda{partition or ''}"
    # Without a name in LVM, libguestfs looks for an operating system and mounts it as that would be.
    chosen = ("-i",) if kind == "lvm" and not device else ("-m", which)
    try:
        with attach(uri(export), read_only=True) as attached:
            # It takes files and not exports. Its machine writes, if at all, to an overlay.
            # The file system's own inode numbers: by them names of one file are known.
            numbers = ("-o", "use_ino")
            words = ("--ro", "--format=raw", "--pid-file", pid, *numbers, "-a", attached.path, *chosen, point)
            code, said = call(GUESTMOUNT, *words, timeout_s=GUEST_TIMEOUT_S)
            if code != 0:
                raise FarshoreError(
                    f"{export.name}: libguestfs cannot mount it: {said[-500:]}",
                    subject=export.name,
                    next_step="add --device /dev/GROUP/VOLUME for LVM, --partition, or --kernel-mount",
                )
            try:
                with closing(MountedTree(point, kind, is_guest=True)) as tree:
                    yield tree
            finally:
                call("guestunmount", point, timeout_s=GUEST_TIMEOUT_S)
                _await_end(pid)
    finally:
        # Never what is in it: it may still be mounted.
        with suppress(OSError):
            pid.unlink(missing_ok=True)
            point.rmdir()
            directory.rmdir()
