"""What lies on a block device: partitions, a file system, its log, and how it is mounted and checked.

A cut taken while a file system was mounted holds changes that are in its log alone: read without the log,
what was written last is missing without a word. The kernel replays the log when it mounts a device that it
may write to, even when the mount itself is read-only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from console.mounts.programs import call, program_path, run
from protocol.errors import FarshoreError, NotFound
from protocol.limits import VOLUME_BYTES_MAX

CHECK_TIMEOUT_S = 3600.0
SECTOR_BYTES = 512
EXT = frozenset({"ext2", "ext3", "ext4"})
# ext4's layout: the superblock is at byte 1024, s_feature_incompat at 0x60 in it; its bit 2 says that the
# journal must be replayed (Linux, Documentation/filesystems/ext4/super.rst).
_EXT_INCOMPAT_AT = 1024 + 0x60
_EXT_RECOVER = 0x4
_U32 = Struct("<I")
# Their log cannot be seen to be empty from outside.
ALWAYS_REPLAY = frozenset({"xfs", "btrfs", "f2fs"})
# What a volume says that it holds decides which of the kernel's file systems parses it: one of those that are
# in use and looked after, never any that the kernel happens to have.
MOUNTABLE = EXT | {"xfs", "btrfs", "f2fs", "vfat", "exfat", "ntfs", "iso9660", "udf", "erofs", "squashfs"}
SECTORS_MAX = VOLUME_BYTES_MAX // SECTOR_BYTES
LUKS = "crypto_LUKS"  # as blkid calls it
# How each is mounted without its log.
WITHOUT_LOG = {"ext3": "noload", "ext4": "noload", "xfs": "norecovery", "btrfs": "rescue=nologreplay"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A part of a volume, in bytes."""

    number: int
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSystem:
    """`kind` as the kernel calls it; `replay`: its log holds, or may hold, what is nowhere else yet."""

    kind: str
    replay: bool


def partitions(file: Path) -> list[Partition]:
    """The partitions of a volume; none without a table. `file` is a file or a device."""
    code, said = call("partx", "--raw", "--noheadings", "--output", "NR,START,SECTORS", file)
    if code != 0:
        return []
    found = []
    for line in said.splitlines():
        number, start, sectors = (int(word) for word in line.split())
        if start + sectors > SECTORS_MAX:
            continue  # an end before the start, as a table may say
        found.append(Partition(number=number, offset=start * SECTOR_BYTES, size_bytes=sectors * SECTOR_BYTES))
    return found


def partition(file: Path, number: int) -> Partition:
    """One partition. Raises NotFound that names those that are there."""
    found = partitions(file)
    for each in found:
        if each.number == number:
            return each
    there = ", ".join(str(each.number) for each in found) or "none"
    raise NotFound(f"no partition {number}: the volume has {there}", subject=str(number))


def sole_partition(file: Path) -> Partition | None:
    """The only partition with a file system that can be mounted; None if there are more, or none, or if
    something lies on the whole volume."""
    with_one = mountable_partitions(file)
    return with_one[0] if len(with_one) == 1 else None


def mountable_partitions(file: Path) -> list[Partition]:
    """Those with a file system that can be mounted; none if something lies on the whole volume."""
    if "TYPE" in _probed(file):
        return []
    return [
        each
        for each in partitions(file)
        if _probed(file, "--offset", str(each.offset), "--size", str(each.size_bytes)).get("TYPE")
        in MOUNTABLE
    ]


def is_encrypted(device: Path) -> bool:
    """Whether all of a device is encrypted (LUKS)."""
    return _probed(device).get("TYPE") == LUKS


def _probed(file: Path, *words: str) -> dict[str, str]:
    _, said = call("blkid", "--probe", "--output", "export", *words, file)
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def luks_at(file: Path, number: int | None) -> Partition | None:
    """The encrypted stretch of a volume that is meant: all of it (number 0 then), that partition, or without
    a number the only one where nothing can be mounted as it is. None if there is none."""
    if _probed(file).get("TYPE") == LUKS:
        return Partition(number=0, offset=0, size_bytes=file.stat().st_size)
    candidates = [each for each in partitions(file) if number in (None, each.number)]
    kinds = [
        _probed(file, "--offset", str(each.offset), "--size", str(each.size_bytes)).get("TYPE")
        for each in candidates
    ]
    if any(kind in MOUNTABLE for kind in kinds) or kinds.count(LUKS) != 1:
        return None
    return candidates[kinds.index(LUKS)]


def file_system(device: Path) -> FileSystem:
    """What is on a device, for `mount --types`: nothing is left for the kernel to try. Raises NotFound when
    there is nothing that could be mounted."""
    fields = _probed(device)
    kind, table = fields.get("TYPE", ""), fields.get("PTTYPE", "")
    if table and not kind:
        numbers = ", ".join(str(each.number) for each in partitions(device))
        raise NotFound(
            f"no file system, but a partition table ({table}) with "
            f"{f'partitions {numbers}' if numbers else 'no partition that this machine finds'}",
            subject=str(device),
            next_step="add --partition N" if numbers else "`farshore ls` may find one, and reads its files",
        )
    if kind == LUKS:
        raise NotFound(
            "no file system that can be mounted: it is encrypted (LUKS)",
            subject=str(device),
            next_step="add --key-file FILE, or run it at a terminal, which asks for the passphrase",
        )
    if not kind or fields.get("USAGE", "filesystem") != "filesystem":
        raise NotFound(f"no file system that can be mounted: {kind or 'nothing known'}", subject=str(device))
    if kind not in MOUNTABLE:
        raise NotFound(f"a file system that is not mounted here: {kind}", subject=str(device))
    return FileSystem(kind=kind, replay=_needs_replay(kind, device))


def _needs_replay(kind: str, device: Path) -> bool:
    if kind in EXT:
        with device.open("rb") as file:
            file.seek(_EXT_INCOMPAT_AT)
            (features,) = _U32.unpack(file.read(_U32.size))
        return bool(features & _EXT_RECOVER)
    return kind in ALWAYS_REPLAY


def mount_options(kind: str, *, writable: bool, replay: bool) -> str:
    """For mount -o. What is in a volume is not trusted with devices and other users' rights."""
    words = ["rw" if writable else "ro", "nodev", "nosuid"]
    if kind == "xfs":
        # A clone has its original's UUID, which may be mounted as well.
        words.append("nouuid")
    if not replay and not writable and kind in WITHOUT_LOG:
        words.append(WITHOUT_LOG[kind])
    return ",".join(words)


def mount(device: str, point: Path, kind: str, options: str) -> None:
    """Mount it. Raises FarshoreError with what mount said."""
    run("mount", "-t", kind, "-o", options, device, point)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A file system check's verdict; `ok` is None when there was nothing to check it with."""

    ok: bool | None
    said: str


def check(device: str, kind: str, point: Path) -> Checked:
    """Replay the log of an unmounted file system that may be written to, then check it whole. `point` is a
    directory to mount it on where only the kernel can replay its log."""
    if kind in EXT:
        # -p mends what every unclean end leaves (log, orphans, counts) and fails on anything else.
        code, said = call("e2fsck", "-f", "-p", device, timeout_s=CHECK_TIMEOUT_S)
        return _checked(code < 4, said)
    words = {
        "xfs": ("xfs_repair", "-n", device),
        "btrfs": ("btrfs", "check", "--readonly", device),
        "vfat": ("fsck.vfat", "-n", device),
    }.get(kind)
    if words is None or program_path(words[0]) is None:
        return Checked(ok=None, said=f"no program here checks {kind}")
    if kind in ALWAYS_REPLAY:
        try:
            mount(device, point, kind, mount_options(kind, writable=True, replay=True))
        except FarshoreError as error:
            return Checked(ok=False, said=error.message)
        run("umount", point)
    code, said = call(*words, timeout_s=CHECK_TIMEOUT_S)
    return _checked(code == 0, said)


def _checked(ok: bool, said: str) -> Checked:
    """A good one's last line says enough; of a bad one, all is wanted."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return Checked(ok=ok, said=" / ".join(lines[-1:] if ok else lines))
