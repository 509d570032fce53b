"""Access control lists as tar archives hold them: text in SCHILY.acl.* records, as star and GNU tar write it.

The attribute is little-endian: 4 bytes version (2), then entries of 8: 2 tag, 2 permissions, 4 number of a
user or group.

Source: linux/posix_acl_xattr.h; acl(5), "short text form"; star(5).
"""

from __future__ import annotations

from struct import error, iter_unpack, unpack_from

RECORDS = {
    b"system.posix_acl_access": "SCHILY.acl.access",
    b"system.posix_acl_default": "SCHILY.acl.default",
}
_VERSION = 2
_HEAD_BYTES = 4
# The tag's word, and whether a number follows.
_TAGS = {
    0x01: ("user", False),
    0x02: ("user", True),
    0x04: ("group", False),
    0x08: ("group", True),
    0x10: ("mask", False),
    0x20: ("other", False),
}


def acl_text(value: bytes) -> str | None:
    """`user::rw-,user:1000:r--,…`; None for what is no list."""
    try:
        if unpack_from("<I", value)[0] != _VERSION:
            return None
        words = [_entry(*each) for each in iter_unpack("<HHI", value[_HEAD_BYTES:])]
    except (error, KeyError):
        return None
    return ",".join(words)


def _entry(tag: int, permissions: int, number: int) -> str:
    word, numbered = _TAGS[tag]
    letters = "".join(letter if permissions & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))
    return f"{word}:{number if numbered else ''}:{letters}"
