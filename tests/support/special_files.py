"""Files of kinds that ordinary tools do not make: encrypted ones, reparse points, access lists, capabilities.

Sources: linux/fscrypt.h, fs.h, capability.h, posix_acl_xattr.h; Microsoft, "[MS-FSCC]", 2.1.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from struct import Struct, pack

_SET_FLAGS, _GET_FLAGS = 0x40086602, 0x80086601
_GET_FSXATTR, _SET_FSXATTR = 0x801C581F, 0x401C5820
_FSXATTR = Struct("=IIIII8x")
_ADD_KEY = (3 << 30) | (80 << 16) | (ord("f") << 8) | 23
_SET_POLICY = (2 << 30) | (12 << 16) | (ord("f") << 8) | 19
_BY_IDENTIFIER = 2
WOF, JUNCTION, SYMLINK = 0x80000017, 0xA0000003, 0xA000000C
_STANDARD_INFORMATION, _DATA, _END = 0x10, 0x80, 0xFFFFFFFF
_RECORD_BYTES = 1024
_EPOCH_UNITS = 116_444_736_000_000_000


def acl(*entries: tuple[int, int, int]) -> bytes:
    """An access list as system calls have it: tag, permissions, number (-1 for none)."""
    return pack("<I", 2) + b"".join(pack("<HHI", tag, bits, who & 0xFFFFFFFF) for tag, bits, who in entries)


# u::rwx, u:1234:r-x, g::r--, m::rwx, o::---
ACL = acl((1, 7, -1), (2, 5, 1234), (4, 4, -1), (16, 7, -1), (32, 0, -1))
# cap_net_raw, permitted and effective.
CAPABILITY = pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)


def set_flags(path: Path, flags: int) -> None:
    """What chattr does."""
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(file, _SET_FLAGS, pack("@l", flags))
    finally:
        os.close(file)


def project(path: Path) -> int:
    """0 where there is none."""
    file = os.open(path, os.O_RDONLY)
    try:
        return int(_FSXATTR.unpack(fcntl.ioctl(file, _GET_FSXATTR, bytes(_FSXATTR.size)))[3])
    finally:
        os.close(file)


def set_project(path: Path, number: int) -> None:
    """What `chattr -p` does."""
    file = os.open(path, os.O_RDONLY)
    try:
        held = list(_FSXATTR.unpack(fcntl.ioctl(file, _GET_FSXATTR, bytes(_FSXATTR.size))))
        held[3] = number
        fcntl.ioctl(file, _SET_FSXATTR, _FSXATTR.pack(*held))
    finally:
        os.close(file)


def encrypt_directory(mount: Path, directory: Path) -> None:
    """An empty directory of ext4 (mke2fs -O encrypt) whose content fscrypt encrypts from now on."""
    root = os.open(mount, os.O_RDONLY)
    try:
        raw = bytes(range(64))
        argument = bytearray(pack("<II32xII32x", _BY_IDENTIFIER, 0, len(raw), 0) + raw)
        fcntl.ioctl(root, _ADD_KEY, argument, True)
    finally:
        os.close(root)
    # Version 2, AES-256-XTS, AES-256-CTS, names padded to 32 bytes.
    policy = pack("<BBBBB3x16s", 2, 1, 4, 3, 0, bytes(argument[8:24]))
    file = os.open(directory, os.O_RDONLY)
    try:
        fcntl.ioctl(file, _SET_POLICY, policy)
    finally:
        os.close(file)


def set_reparse_point(path: Path, tag: int, data: bytes) -> None:
    """On a mount of ntfs-3g."""
    os.setxattr(path, "system.ntfs_reparse_data", pack("<IHH", tag, len(data), 0) + data)


def wof_data() -> bytes:
    """A file that WOF compressed with XPRESS4K."""
    return pack("<IIII", 1, 2, 1, 0)


def link_data(tag: int, target: str) -> bytes:
    """Of a symbolic link, relative, or of a junction."""
    name = target.encode("utf-16-le")
    if tag == SYMLINK:
        return pack("<HHHHI", 0, len(name), len(name), len(name), 1) + name + name
    return pack("<HHHH", 0, len(name), len(name) + 2, 0) + name + bytes(4)


def set_dos_attributes(path: Path, attributes: int) -> None:
    """On a mount of ntfs-3g."""
    os.setxattr(path, "system.ntfs_attrib_be", attributes.to_bytes(4, "big"))


def mark_encrypted(image: Path, mtime_ns: int) -> None:
    """Give the file of an unmounted NTFS that has this time the attribute that EFS gives."""
    data = bytearray(image.read_bytes())
    data[_times_at(data, mtime_ns) + 25] |= 0x40
    image.write_bytes(data)


def mark_compressed(image: Path, mtime_ns: int) -> None:
    """Say of a compressed file's content that it is compressed in a way that nobody knows."""
    data = bytearray(image.read_bytes())
    at = _times_at(data, mtime_ns) & -_RECORD_BYTES
    end, at = at + _RECORD_BYTES, at + int.from_bytes(data[at + 20 : at + 22], "little")
    while at < end and (kind := int.from_bytes(data[at : at + 4], "little")) != _DATA:
        assert kind != _END, "the file has no content"
        at += int.from_bytes(data[at + 4 : at + 8], "little")
    assert data[at + 12] == 1, "the file is not compressed"
    data[at + 12] = 2
    image.write_bytes(data)


def _times_at(data: bytes | bytearray, mtime_ns: int) -> int:
    """Where the one file that was changed at this time says so. Fails if it is not one."""
    needle = pack("<Q", mtime_ns // 100 + _EPOCH_UNITS)
    found, at = list[int](), data.find(needle)
    while at >= 0:
        # The attribute's header of 24 bytes, then the time of creation.
        if int.from_bytes(data[at - 32 : at - 28], "little") == _STANDARD_INFORMATION:
            found.append(at)
        at = data.find(needle, at + 1)
    # The table's first records have a copy, which this file's is not among.
    assert len(found) == 1, f"{len(found)} files have the time {mtime_ns}"
    return found[0]
