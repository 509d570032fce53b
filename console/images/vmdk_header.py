"""Which other files a VMDK names. Pure.

QEMU opens what a VMDK names: files with parts of its content (extents) and the one that it builds on. So this
finds out first, by what QEMU goes by. Little-endian (VMware's Virtual Disk Format 5.0; QEMU's block/vmdk.c):

    0    4  K D M V: a file that holds its content itself. C O W D: an older form of that
   12    8  capacity in sectors of 512 bytes; 0: what follows is the descriptor of other files
   28    8  where its descriptor is, in sectors

Anything else is a descriptor: lines of text `NAME=VALUE`, and `RW SECTORS FLAT "FILE" OFFSET` for extents.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass

HEADER_BYTES = 80
SECTOR_BYTES = 512
# As much as QEMU reads of one.
DESCRIPTOR_BYTES_MAX = 20 * SECTOR_BYTES

_SPARSE, _COW = b"KDMV", b"COWD"
_EXTENT = re.compile(rb'^[ \t]*(?:RW|RDONLY|NOACCESS)[ \t]+\d+[ \t]+(\w+)[ \t]+"([^"\n]*)"', re.MULTILINE)
_HINT = re.compile(rb'parentFileNameHint\s*=\s*"?([^"\n]*)')
_PARENT = re.compile(rb"parentCID\s*=\s*([0-9a-fA-F]+)")
_NO_PARENT = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class VmdkNames:
    """`extents` are (kind, file name), if its content is elsewhere; `parent` is what it builds on: its name,
    or `?` if it does not say."""

    elsewhere: bool
    extents: tuple[tuple[str, str], ...]
    parent: str


def descriptors_at(header: bytes) -> tuple[int, ...]:
    """Where the descriptor may be, by the first `HEADER_BYTES` of a file: QEMU looks for what the file builds
    on at the second sector, whatever the header says."""
    if header[:4] != _SPARSE or len(header) < HEADER_BYTES:
        return (0,)
    (sector,) = struct.unpack_from("<Q", header, 28)
    return SECTOR_BYTES, int(sector) * SECTOR_BYTES


def names_in(header: bytes, descriptor: bytes) -> VmdkNames:
    """By the begin of the file, and `DESCRIPTOR_BYTES_MAX` from each of `descriptors_at` on, or fewer."""
    whole = header[:4] in {_SPARSE, _COW}
    if header[:4] == _SPARSE and len(header) >= HEADER_BYTES:
        whole = struct.unpack_from("<Q", header, 12) != (0,)
    found = dict.fromkeys(_EXTENT.findall(descriptor))
    extents = tuple((_text(kind), _text(name)) for kind, name in found)
    hint, parent = _HINT.search(descriptor), _PARENT.search(descriptor)
    name = _text(hint[1]) if hint else ""
    if not name and (hint or (parent and int(parent[1], 16) != _NO_PARENT)):
        name = "?"
    return VmdkNames(elsewhere=not whole, extents=() if whole else extents, parent=name)


def _text(name: bytes) -> str:
    return os.fsdecode(name.partition(b"\0")[0])
