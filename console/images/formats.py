"""The formats of image files. One is never guessed from content: what a guest wrote at the start of its disk
must not decide how its image is read. It is given, or follows from the file's name.

A name that says another format, and a file without a telling name that begins like a container, are refused:
the bytes of a container are nobody's disk. `--format raw` takes them as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from protocol.errors import Refused, UsageError

RAW, QCOW2, VMDK, VDI, VHDX, VHD = "raw", "qcow2", "vmdk", "vdi", "vhdx", "vhd"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFormat:
    """What QEMU calls it, the suffixes of its files, and how one is made that grows."""

    driver: str
    suffixes: tuple[str, ...]
    options: str


FORMATS = {
    RAW: ImageFormat(driver="raw", suffixes=(".img", ".raw"), options=""),
    QCOW2: ImageFormat(driver="qcow2", suffixes=(".qcow2",), options="cluster_size=65536,compat=1.1"),
    VMDK: ImageFormat(driver="vmdk", suffixes=(".vmdk",), options="subformat=monolithicSparse"),
    VDI: ImageFormat(driver="vdi", suffixes=(".vdi",), options="static=off"),
    VHDX: ImageFormat(driver="vhdx", suffixes=(".vhdx",), options="subformat=dynamic"),
    VHD: ImageFormat(driver="vpc", suffixes=(".vhd", ".vpc"), options="subformat=dynamic,force_size=on"),
}
# What an image of a chain may be.
CHAIN_FORMATS = (RAW, QCOW2)
NAMES = "|".join(FORMATS)

# Begin of file: (offset, bytes, format).
_MAGICS = (
    (0, b"QFI\xfb", QCOW2),
    (0, b"KDMV", VMDK),
    (0, b"COWD", VMDK),
    (0, b"# Disk DescriptorFile", VMDK),
    (64, b"\x7f\x10\xda\xbe", VDI),
    (0, b"vhdxfile", VHDX),
    (0, b"conectix", VHD),
)
HEAD_BYTES = 512

_PACKED = {".gz": "gzip", ".xz": "xz", ".zst": "zstd", ".bz2": "bzip2", ".lz4": "lz4"}
_ARCHIVES = {".ova": "tar xf", ".tar": "tar xf", ".zip": "unzip", ".7z": "7z x"}
_OTHERS = (".qcow", ".qed", ".dmg", ".hdd", ".hds", ".parallels", ".cow", ".avhdx", ".avhd", ".ovf")


def format_of(path: Path, given: str | None) -> str:
    """The format of a file: the one given, or by its suffix, or raw where that says nothing. UsageError;
    Refused for a suffix of something else."""
    if given is not None:
        if given not in FORMATS:
            raise UsageError(
                f"no format {given!r}", subject=given, next_step=f"use one of {', '.join(FORMATS)}"
            )
        return given
    suffix = path.suffix.lower()
    for name, each in FORMATS.items():
        if suffix in each.suffixes:
            return name
    what, next_step = "", ""
    packed, unpacked = quote(str(path)), quote(str(path.with_suffix(".qcow2")))
    if suffix in _PACKED:
        what, next_step = "is packed", f"`{_PACKED[suffix]} -dc {packed} | farshore volume import - G/V`"
    elif suffix in _ARCHIVES:
        what, next_step = (
            "is an archive",
            f"`{_ARCHIVES[suffix]} {packed}`, then import the disk that was in it",
        )
    elif suffix in _OTHERS:
        what = f"is of a format that is not known here ({suffix})"
        next_step = f"if you trust it: `qemu-img convert -O qcow2 {packed} {unpacked}`"
    if what:
        raise Refused(
            f"{path} {what}: its bytes are no disk",
            subject=str(path),
            next_step=f"{next_step}; or --format raw",
        )
    return RAW


def require_disk(head: bytes, name: str) -> None:
    """Refused if the begin of a file, whose name says nothing, is that of a container."""
    for offset, magic, kind in _MAGICS:
        if head[offset : offset + len(magic)] == magic:
            raise Refused(
                f"{name} begins like a {kind}, and its name does not say what it is",
                subject=name,
                next_step=f"--format {kind}; or --format {RAW}, if a guest has these bytes on its disk",
            )
