"""The names in a block of an ext2, ext3 or ext4 directory.

pytsk3 looks for names also between entries, to find deleted ones, and takes pieces of a hashed directory's
index for names that exist. What exists is what the kernel sees: one entry after another.

    0  4  inode, 0 for none        6  1  bytes of the name
    4  2  bytes of the entry       8  n  the name

The index of a hashed directory and a block's checksum lie in entries without an inode.
Source: "ext4 Data Structures and Algorithms" of the kernel's documentation, "Directory Entries".
"""

from __future__ import annotations

from errno import EIO
from struct import Struct

_HEAD = Struct("<IHB")
_HEAD_BYTES = 8
# The length of an entry that fills a block of 64 KiB does not fit its field.
_WHOLE = (0, 65535)


def names_in_block(block: bytes) -> tuple[list[tuple[bytes, int]], OSError | None]:
    """Names and inodes; with an error, those before what makes no sense."""
    found: list[tuple[bytes, int]] = []
    at = 0
    while at < len(block):
        if at + _HEAD_BYTES > len(block):
            return found, OSError(EIO, "a directory's last entry is cut off")
        inode, length, name_bytes = _HEAD.unpack_from(block, at)
        if length in _WHOLE and len(block) > max(_WHOLE):
            length = len(block) - at
        end = at + length
        if length < _HEAD_BYTES or length % 4 or end > len(block) or _HEAD_BYTES + name_bytes > length:
            return found, OSError(EIO, f"a directory's block makes no sense at byte {at}")
        if inode:
            found.append((block[at + _HEAD_BYTES : at + _HEAD_BYTES + name_bytes], inode))
        at = end
    return found, None
