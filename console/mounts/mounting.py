"""A volume as a file system of this machine, and all of it undone again.

    /run/farshore/mounts/NAME/     one for each mount; NAME is made of the mount point
      point      where the file system is, or is to be
      export     G/V, G/V@CUT, or a clone's volume, as it was asked for
      site       whose daemon serves it
      clone      the temporary clone that was made for it
      kind       `device` if it is only that (`devices.py`)
      attached/  see `attach.py`
      mnt/       the mount point, where nobody named one

Each fact is written before what it stands for is done. So `undo` needs no memory but this directory, and
brings down what is there: file system, loop device, nbdfuse, clone, in this order. Every step looks first
whether there is anything to do; after a crash, or a kill -9 of nbdfuse or of the daemon, `undo` is the same.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from console.mounts.attach import attach, is_mounted, release
from console.mounts.filesystems import (
    FileSystem,
    file_system,
    mount,
    mount_options,
    partition,
    sole_partition,
)
from console.mounts.loops import drop_loops, loops_of, make_loop
from console.mounts.programs import call
from protocol.errors import Busy, NotAllowed, NotFound, TimedOut

NAME_CHARS = 16
PROBE_BYTES = 4096
PROBE_TIMEOUT_S = 5.0
UMOUNT_TIMEOUT_S = 300.0
DEVICE = "device"  # the kind of a volume that is attached and no more
# Removes a clone at a site: (site, clone).
DeleteClone = Callable[[str, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A mount that this machine has, or has the rests of."""

    directory: Path

    @property
    def point(self) -> Path:
        """Where the file system is."""
        return Path(self._fact("point") or self.directory / "mnt")

    @property
    def named(self) -> bool:
        """Whether somebody chose the point."""
        return bool(self._fact("point"))

    @property
    def export(self) -> str:
        """What is mounted."""
        return self._fact("export")

    @property
    def site(self) -> str:
        """Whose daemon serves it, as `--site` takes it."""
        return self._fact("site")

    @property
    def kind(self) -> str:
        """`device` for one that no file system was asked of."""
        return self._fact("kind")

    @property
    def clone(self) -> str:
        """The temporary clone behind it, or empty."""
        return self._fact("clone")

    @property
    def file(self) -> Path:
        """The volume as a file."""
        return self.directory / "attached" / "files" / "volume"

    @property
    def device(self) -> str:
        """Its loop device, or empty."""
        return next(iter(loops_of(self.file)), "")

    @property
    def mounted(self) -> bool:
        """Whether something is mounted at its point."""
        return is_mounted(self.point)

    @property
    def reads(self) -> bool:
        """Whether its device can still be read: nbdfuse does not connect anew to a daemon that went away, and
        fails every request from then on."""
        words = ("dd", f"if={self.file}", "of=/dev/null", f"bs={PROBE_BYTES}", "count=1", "iflag=direct")
        try:
            return call(*words, timeout_s=PROBE_TIMEOUT_S)[0] == 0
        except TimedOut:
            return False

    def note(self, name: str, text: str) -> None:
        """Write a fact down, before it becomes one."""
        (self.directory / name).write_text(text, encoding="utf-8")

    def _fact(self, name: str) -> str:
        try:
            return (self.directory / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def attach(self, uri: str, *, read_only: bool) -> str:
        """Make the export a file; gives what the kernel did not allow, or nothing."""
        return attach(uri, read_only=read_only, directory=self.directory / "attached", lasting=True).warning

    def make_device(self, *, read_only: bool, number: int | None = None) -> str:
        """A loop device on the attached file, or on one partition of it: without a number on the only one
        that has a file system, if it is so."""
        part = sole_partition(self.file) if number is None else partition(self.file, number)
        if part is None:
            return self.make_whole_device(read_only=read_only)
        return make_loop(self.file, read_only=read_only, offset=part.offset, size_bytes=part.size_bytes)

    def make_whole_device(self, *, read_only: bool) -> str:
        """A loop device on the attached file, whatever lies on it."""
        return make_loop(self.file, read_only=read_only)

    def make_point(self) -> None:
        """Make the mount point that nobody named."""
        self.point.mkdir(exist_ok=True)

    def mount(self, found: FileSystem, *, writable: bool, replay: bool) -> None:
        """Mount the device's file system at the point."""
        options = mount_options(found.kind, writable=writable, replay=replay)
        mount(self.device, self.point, found.kind, options)

    def detach(self) -> None:
        """Give the device and the file back. Raises Busy."""
        drop_loops(self.file)
        release(self.directory / "attached")

    def undo(self, delete_clone: DeleteClone) -> None:
        """Bring it down; twice is fine. Raises Busy for what is in use, and then leaves what it stands on."""
        self.unmount()
        self.detach()
        if self.clone:
            delete_clone(self.site, self.clone)
        shutil.rmtree(self.directory, ignore_errors=True)

    def unmount(self) -> None:
        """Unmount the file system if it is mounted; what is held back is written. Raises Busy."""
        if not self.mounted:
            return
        code, said = call("umount", self.point, timeout_s=UMOUNT_TIMEOUT_S)
        if code != 0 and self.mounted:
            raise Busy(
                f"{self.point} cannot be unmounted: {said}",
                subject=str(self.point),
                next_step=f"end what works there: fuser -vm {self.point}",
            )


def runtime_directory() -> Path:
    """Where mounts are noted: root's are the machine's. Raises NotAllowed for a user without a place of
    his own."""
    if os.geteuid() == 0:
        return Path("/run/farshore/mounts")
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if not os.path.isabs(base):
        raise NotAllowed("without root this needs XDG_RUNTIME_DIR", next_step="log in, or use sudo")
    return Path(base) / "farshore" / "mounts"


def require_root() -> None:
    """Raises NotAllowed: loop devices and mounts are root's."""
    if os.geteuid() != 0:
        raise NotAllowed(
            "mounting needs root",
            next_step="sudo farshore …, or without root: `farshore ls`, `cat`, `restore files --to`",
        )


def record(point: Path | None, *, export: str, site: str, name: str = "") -> Mount:
    """A new, empty mount; with `point` none, its own directory `mnt`. Raises Busy if there is one."""
    parent = runtime_directory()
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = name or _name(point or Path(site, export))
    made = Mount(directory=parent / name)
    try:
        made.directory.mkdir(mode=0o700)
    except FileExistsError:
        raise _taken(made) from None
    if point is not None:
        made.note("point", str(point))
    made.note("export", export)
    made.note("site", site)
    return made


def _taken(made: Mount) -> Busy:
    if made.kind:
        return Busy(
            f"{made.export} is attached already, as {made.device or 'nothing yet'}",
            subject=made.export,
            next_step=f"farshore volume detach {made.export}",
        )
    there = made.point
    return Busy(
        f"{there} has a mount of {made.export or 'a volume'} already",
        subject=str(there),
        next_step=f"farshore umount {quote(str(there))}",
    )


def at(point: Path) -> Mount:
    """The mount at a point. Raises NotFound."""
    where = real(point)
    for each in mounts():
        if each.point == where:
            return each
    raise NotFound(
        f"nothing of ours is mounted at {where}", subject=str(where), next_step="farshore mount --list"
    )


def real(point: Path) -> Path:
    """An absolute name without links. The last part is not looked at: a dead nbdfuse would hold us up."""
    whole = Path(os.path.abspath(point))
    return Path(os.path.realpath(whole.parent)) / whole.name


def mounts() -> list[Mount]:
    """Every mount of this machine, whoever made it."""
    try:
        return [Mount(directory=entry) for entry in sorted(runtime_directory().iterdir())]
    except FileNotFoundError:
        return []


def look(mount_: Mount, number: int | None) -> FileSystem:
    """What would be mounted of an attached volume, without a device."""
    device = mount_.make_device(read_only=True, number=number)
    try:
        return file_system(Path(device))
    finally:
        drop_loops(mount_.file)


def _name(point: Path) -> str:
    return hashlib.sha256(os.fsencode(point)).hexdigest()[:NAME_CHARS]
