"""A VMDK whose content is in other files: a descriptor that names them, beside it.

The names are a stranger's. So nothing is read that is not in the descriptor's own directory, and QEMU never
sees the descriptor: it is given one that is written here, in which each file is one that was opened here.

    RW 4192256 SPARSE "disk-s001.vmdk"          access, sectors of 512 bytes, kind, name
    RW 8388608 FLAT "disk-flat.vmdk" 0          and from which sector of the file on

Source: VMware's Virtual Disk Format 5.0, "Extent Description"; QEMU's block/vmdk.c.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from console.images.raw_file import open_image
from console.images.vmdk_header import (
    DESCRIPTOR_BYTES_MAX,
    HEADER_BYTES,
    SECTOR_BYTES,
    VmdkNames,
    descriptors_at,
    names_in,
)
from protocol.errors import FarshoreError, NotFound, Refused

# 2 GiB each, as most are: disks of 512 GiB.
EXTENTS_MAX = 256
TEXT_BYTES_MAX = 64 << 10
SECTORS_MAX = 1 << 50
FILE_BYTES_MAX = (1 << 63) - 1 - DESCRIPTOR_BYTES_MAX
FLAT_KINDS = frozenset({"FLAT", "VMFS"})
SPARSE_KINDS = frozenset({"SPARSE", "VMFSSPARSE"})
_LINE = re.compile(rb'(\w+)[ \t]+(\d{1,18})[ \t]+(\w+)(?:[ \t]+"([^"\n\r]*)"(?:[ \t]+(\d{1,18}))?)?[ \t]*')
_ACCESS = (b"RW", b"RDONLY", b"NOACCESS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """A part of a disk: so many sectors, in a file from its `first` sector on."""

    sectors: int
    kind: str
    name: str
    first: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtentFile:
    """A file that was opened for an extent."""

    path: Path
    descriptor: int


def names_of(path: Path, descriptor: int) -> VmdkNames:
    """Which other files the VMDK at `path`, open as `descriptor`, names. FarshoreError if unreadable."""
    try:
        header = os.pread(descriptor, HEADER_BYTES, 0)
        places = {min(at, FILE_BYTES_MAX) for at in descriptors_at(header)}
        texts = [os.pread(descriptor, DESCRIPTOR_BYTES_MAX, at) for at in sorted(places)]
        return names_in(header, b"\n".join(texts))
    except OSError as error:
        why = f"cannot read {path}: {error.strerror}"
        raise FarshoreError(why, subject=str(path)) from error


def extents_in(descriptor: bytes, path: Path) -> tuple[Extent, ...]:
    """What a descriptor says that its disk is made of, in order. Refused for anything else than QEMU reads
    to the last sector: it passes over parts that it does not know."""
    found = []
    for line in descriptor.partition(b"\0")[0].splitlines():
        words = line.strip()
        if not words.startswith(_ACCESS):
            continue
        parts = _LINE.fullmatch(words)
        if parts is None:
            raise _refused(path, f"says what is not known here: {words[:80].decode('utf-8', 'replace')}")
        access, sectors, kind = parts[1], int(parts[2]), parts[3].decode("ascii", "replace")
        if access != b"RW" or kind not in FLAT_KINDS | SPARSE_KINDS or parts[4] is None:
            raise _refused(path, f"has a part that is not read here: {words[:80].decode('utf-8', 'replace')}")
        first = int(parts[5] or 0)
        if not 0 < sectors <= SECTORS_MAX or first > SECTORS_MAX or (first and kind != "FLAT"):
            raise _refused(path, "makes no sense")
        found.append(Extent(sectors=sectors, kind=kind, name=os.fsdecode(parts[4]), first=first))
    if not 0 < len(found) <= EXTENTS_MAX:
        raise _refused(path, f"names {len(found)} files; from 1 to {EXTENTS_MAX} are read")
    return tuple(found)


def open_extents(path: Path, extents: Sequence[Extent], files: ExitStack, least: int) -> list[ExtentFile]:
    """The files beside the descriptor at `path`, open until `files` are closed, at descriptors from `least`
    on. Refused for one that leads elsewhere, NotFound for one that is missing, FarshoreError."""
    home = Path(os.path.realpath(path.parent))
    opened = []
    for extent in extents:
        place = path.parent / extent.name
        if not extent.name or "/" in extent.name or Path(os.path.realpath(place)).parent != home:
            raise _refused(path, f"names {extent.name or 'no file'}, which is not beside it")
        try:
            low = open_image(place)
        except NotFound as error:
            raise NotFound(
                f"{path} has a part of its content in {extent.name}, which is not beside it",
                subject=str(place),
                next_step=f"copy {extent.name} into the directory of {path.name}",
            ) from error
        try:
            descriptor = _at_least(low, least)
        finally:
            os.close(low)
        files.callback(os.close, descriptor)
        _require_extent(path, place, extent, descriptor)
        opened.append(ExtentFile(path=place, descriptor=descriptor))
    return opened


def described(extents: Sequence[Extent], opened: Sequence[ExtentFile], files: ExitStack, least: int) -> int:
    """A descriptor of the same disk, of the files that were opened."""
    lines = [
        "# Disk DescriptorFile",
        "version=1",
        "CID=fffffffe",
        "parentCID=ffffffff",
        'createType="twoGbMaxExtentSparse"',
    ]
    for extent, file in zip(extents, opened, strict=True):
        first = f" {extent.first}" if extent.kind == "FLAT" else ""
        lines.append(f'RW {extent.sectors} {extent.kind} "/proc/self/fd/{file.descriptor}"{first}')
    with tempfile.TemporaryFile() as made:
        made.write("".join(f"{line}\n" for line in lines).encode())
        made.flush()
        descriptor = _at_least(made.fileno(), least)
    files.callback(os.close, descriptor)
    return descriptor


def _require_extent(path: Path, place: Path, extent: Extent, descriptor: int) -> None:
    """That it holds as much as is said of it, and names no further files."""
    if extent.kind in FLAT_KINDS:
        end = (extent.first + extent.sectors) * SECTOR_BYTES
        if os.lseek(descriptor, 0, os.SEEK_END) < end:
            raise FarshoreError(
                f"{place} is shorter than the {end} bytes that {path.name} says",
                subject=str(place),
                next_step="copy it once more from where it came from",
            )
        return
    names = names_of(place, descriptor)
    if names.elsewhere or names.parent:
        raise _refused(place, "has its content in other files again, or builds on one")


def _at_least(descriptor: int, least: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, least)


def _refused(path: Path, what: str) -> Refused:
    return Refused(
        f"{path} {what}",
        subject=str(path),
        next_step="if you trust the image: make one file of it (`qemu-img convert`), and import that",
    )
