"""What ext2, ext3 and ext4 keep in an inode beyond what pytsk3 gives: times before 1970 and after 2038,
extended attributes, device numbers, flags; and the log's state.

Little-endian, offsets in bytes:

    superblock (byte 1024 of the file system)         inode
        4  4  blocks, low half                           0  2  mode
       20  4  first data block                           8  4  access time, 16 4 modification time
       24  4  log2(block size) - 10                     32  4  flags
       32  4  blocks per group                          40  4  i_block[0]: old device number
       40  4  inodes per group                          44  4  i_block[1]: new device number
       88  2  inode size                               104  4  block of attributes, low half
       96  4  incompatible features                    118  2  block of attributes, high half
      254  2  size of a group descriptor               128  2  size of the extra fields
      260  4  first group of groups (meta_bg)          136  4  modification time, 140 4 access time: the rest
      336  4  blocks, high half                        156  4  project

    group descriptor: 8 4 inode table's block, low half; 40 4 high half
    the rest of a time: bits 0-1 are bits 32-33 of its seconds, which are signed below; bits 2-31 nanoseconds
    attribute entry: 0 1 name's length; 1 1 prefix; 2 2 value's offset; 4 4 value's inode; 8 4 value's size;
    16 name

Every number here comes from the volume: nothing is looked up outside the slice that was read.
Source: "ext4 Data Structures and Algorithms" of the kernel's documentation; linux/fs/ext4/ext4.h, acl.h.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from struct import Struct, error, pack, unpack_from
from typing import Any

from console.file_systems.facts import Attribute, Facts
from protocol.file_stream import flags_text, shown
from protocol.limits import FILE_XATTR_BYTES_MAX, FILE_XATTRS_BYTES_MAX, FILE_XATTRS_MAX

SUPERBLOCK_OFFSET = 1024
_MAGIC = 0xEF53
_RECOVER = 0x4
_64BIT = 0x80
_META_BG = 0x10
# filetype, recover, extents, 64bit, mmp, flex_bg, ea_inode, csum_seed, largedir, inline_data, encrypt,
# casefold; and meta_bg where it changes nothing.
_FEATURES_KNOWN = 0x3E7C6
_INLINE_DATA = 0x10000000
_ENCRYPTED = 0x800
_COMPRESSED = 0x4
_DEVICES = (0o020000, 0o060000)
_ATTRIBUTE_MAGIC = 0xEA020000
_ENTRY = Struct("<BBHIII")
_PREFIXES = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
    7: b"system.",
}
_ACL_INDEXES = (2, 3)
# Inline data: the file's content, not an attribute of it.
_CONTENT = b"system.data"
_ACL_WITH_ID = (0x02, 0x08)
_NO_ID = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtLayout:
    """Sizes in bytes; `unfinished`: the log holds what was not played back."""

    block_bytes: int
    inodes_per_group: int
    inode_bytes: int
    descriptor_bytes: int
    unfinished: bool
    unknown_features: int


def ext_layout(superblock: bytes) -> ExtLayout | None:
    """The layout that the 1,024 bytes of a superblock describe; None if they are none or make no sense."""
    if len(superblock) < 1024 or unpack_from("<H", superblock, 56)[0] != _MAGIC:
        return None
    shift, per_group, features = (unpack_from("<I", superblock, at)[0] for at in (24, 40, 96))
    inode_bytes, descriptor_bytes = (unpack_from("<H", superblock, at)[0] for at in (88, 254))
    if shift > 6 or not per_group or not 128 <= inode_bytes <= 65536:
        return None
    layout = ExtLayout(
        block_bytes=1024 << shift,
        inodes_per_group=per_group,
        inode_bytes=inode_bytes,
        descriptor_bytes=max(64, descriptor_bytes) if features & _64BIT else 32,
        unfinished=bool(features & _RECOVER),
        unknown_features=features & ~_FEATURES_KNOWN,
    )
    if features & _META_BG and _descriptors_follow(layout, superblock, bool(features & _64BIT)):
        layout = replace(layout, unknown_features=layout.unknown_features & ~_META_BG)
    return layout


def _descriptors_follow(layout: ExtLayout, superblock: bytes, wide: bool) -> bool:
    """With meta_bg: whether all groups' descriptors stand behind the superblock all the same."""
    blocks, first, per_group = (unpack_from("<I", superblock, at)[0] for at in (4, 20, 32))
    if wide:
        blocks |= unpack_from("<I", superblock, 336)[0] << 32
    in_block = layout.block_bytes // layout.descriptor_bytes
    together = max(1, unpack_from("<I", superblock, 260)[0]) * in_block
    return bool(per_group) and blocks - first <= together * per_group


class ExtInodes:
    """Looks into the inodes of one file system; `read(offset, length)` gives bytes of it, or OSError."""

    def __init__(self, layout: ExtLayout, read: Callable[[int, int], bytes]) -> None:
        self._layout = layout
        self._read = read

    def is_inline(self, number: int) -> bool:
        """Whether its content lies in the inode itself. Raises OSError."""
        return bool(unpack_from("<I", self._inode(number), 32)[0] & _INLINE_DATA)

    def facts(self, number: int, file: Any) -> Facts:
        """Raises OSError if the inode cannot be read. Attributes that make no sense cost only themselves."""
        raw = self._inode(number)
        mode, flags = unpack_from("<H", raw, 0)[0], unpack_from("<I", raw, 32)[0]
        found = Facts(mtime_ns=_time_ns(raw, 16, 136), atime_ns=_time_ns(raw, 8, 140))
        if mode & 0o170000 in _DEVICES:
            found.device = _device(raw)
        if flags & _ENCRYPTED:
            found.sealed = "it is encrypted by the file system (fscrypt), and its key is not here"
        elif flags & _COMPRESSED:
            found.sealed = "it is compressed by the file system in a way that is not read here"
        if kept := flags_text(flags):
            found.lacks.append(kept)
        if len(raw) >= 160 and unpack_from("<H", raw, 128)[0] >= 32 and unpack_from("<I", raw, 156)[0]:
            found.lacks.append(f"its project ({unpack_from('<I', raw, 156)[0]})")
        try:
            self._add_attributes(number, raw, found)
        except (OSError, error) as wrong:
            said = wrong.strerror if isinstance(wrong, OSError) else "they make no sense"
            found.attributes.clear()
            found.lacks.append(f"its extended attributes: {said}")
        return found

    def _add_attributes(self, number: int, raw: bytes, found: Facts) -> None:
        """As `listxattr` and `getxattr` would give them. Raises OSError, struct.error."""
        every: list[Attribute | str] = []
        if len(raw) > 132:
            start = 128 + unpack_from("<H", raw, 128)[0]
            if start + 4 <= len(raw) and unpack_from("<I", raw, start)[0] == _ATTRIBUTE_MAGIC:
                every += _attributes(raw[start + 4 :], 0)
        block = unpack_from("<I", raw, 104)[0] | unpack_from("<H", raw, 118)[0] << 32
        if block:
            size = self._layout.block_bytes
            data = self._read(block * size, size)
            if unpack_from("<I", data)[0] != _ATTRIBUTE_MAGIC:
                raise OSError(errno.EIO, f"block {block} holds none")
            every += _attributes(data, 32)
        found.attributes += [each for each in every if not isinstance(each, str)]
        found.lacks += [each for each in every if isinstance(each, str)][:8]
        size = sum(len(value) for _, value in found.attributes)
        if len(found.attributes) > FILE_XATTRS_MAX or size > FILE_XATTRS_BYTES_MAX:
            raise OSError(errno.E2BIG, f"inode {number} has too many")

    def _inode(self, number: int) -> bytes:
        layout = self._layout
        group, index = divmod(number - 1, layout.inodes_per_group)
        if number < 1:
            raise OSError(errno.EINVAL, f"no inode {number}")
        # The descriptors follow the superblock's block.
        first = layout.block_bytes * (SUPERBLOCK_OFFSET // layout.block_bytes + 1)
        raw = self._read(first + group * layout.descriptor_bytes, layout.descriptor_bytes)
        table = unpack_from("<I", raw, 8)[0]
        if layout.descriptor_bytes >= 64:
            table |= unpack_from("<I", raw, 40)[0] << 32
        return self._read(table * layout.block_bytes + index * layout.inode_bytes, layout.inode_bytes)


def _time_ns(raw: bytes, at: int, rest_at: int) -> int:
    """Seconds are signed; two more bits of them came later, where the inode has room for them."""
    seconds, rest = int(unpack_from("<i", raw, at)[0]), 0
    extra = int(unpack_from("<H", raw, 128)[0]) if len(raw) > 130 else 0
    if rest_at + 4 <= min(128 + extra, len(raw)):
        rest = int(unpack_from("<I", raw, rest_at)[0])
    return (seconds + ((rest & 3) << 32)) * 1_000_000_000 + min(rest >> 2, 999_999_999)


def _device(raw: bytes) -> tuple[int, int]:
    """Major and minor number."""
    old, new = unpack_from("<II", raw, 40)
    if old:
        return old >> 8 & 0xFF, old & 0xFF
    return (new & 0xFFF00) >> 8, new & 0xFF | new >> 12 & 0xFFF00


def _attributes(data: bytes, first: int) -> Iterator[Attribute | str]:
    """Entries from `first` on, or what of them does not come; their values lie at offsets into `data`."""
    at = first
    while at + 4 <= len(data) and unpack_from("<I", data, at)[0]:
        name_bytes, prefix, offset, inode, size, _ = _ENTRY.unpack_from(data, at)
        name = data[at + _ENTRY.size : at + _ENTRY.size + name_bytes]
        at += (_ENTRY.size + name_bytes + 3) & ~3
        if inode:
            full = _PREFIXES.get(prefix, b"") + name
            yield f"attribute {shown(full)}: its value lies in an inode of its own"
            continue
        if size > FILE_XATTR_BYTES_MAX or offset + size > len(data) or len(name) < name_bytes:
            raise OSError(errno.EIO, "an attribute lies outside its block")
        full = _PREFIXES.get(prefix, b"") + name
        if full == _CONTENT or not full or b"\0" in full or len(full) > 255:
            continue
        value = data[offset : offset + size]
        yield full, _acl_of_calls(value) if prefix in _ACL_INDEXES else value


def _acl_of_calls(stored: bytes) -> bytes:
    """An access control list as system calls have it, from the shorter form on disk."""
    if len(stored) < 4 or unpack_from("<I", stored)[0] != 1:
        raise OSError(errno.EIO, "an access control list makes no sense")
    out = [pack("<I", 2)]
    at = 4
    while at < len(stored):
        tag, permissions = unpack_from("<HH", stored, at)
        at += 4
        identity = _NO_ID
        if tag in _ACL_WITH_ID:
            identity = unpack_from("<I", stored, at)[0]
            at += 4
        out.append(pack("<HHI", tag, permissions, identity))
    return b"".join(out)
