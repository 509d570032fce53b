"""What NTFS keeps of a file beyond what pytsk3 gives: times of every year, whether it may be written, and all
that makes its content something else than its unnamed stream's bytes.

Little-endian, offsets in bytes:

    $STANDARD_INFORMATION (16)                  $REPARSE_POINT (192)
        8  8  modified     24  8  accessed         0  4  tag
       32  4  attributes                           8  …  data, by tag

Times are units of 100 ns since 1601. A tag's bit 29 says that the file stands for another one.

A file with a reparse point has its content elsewhere, or stored in another form (WOF: compressed in a stream
beside it, and zeroes in the unnamed one). A directory with one that does not stand for another is a directory
all the same. What ntfs-3g makes of links, devices and pipes is, to everybody else, a file with the attribute
"system" that begins with "Intx", or an empty one.

Source: Microsoft, "[MS-FSCC]: File System Control Codes", 2.1 and 2.6; "[MS-EFSR]"; ntfs-3g(8),
"special_files".
"""

from __future__ import annotations

import errno
from struct import error, unpack_from
from typing import Any

import pytsk3

from console.file_systems.facts import Facts, named
from protocol.file_stream import TIME_NS_MAX, TIME_NS_MIN

_STANDARD, _DATA = int(pytsk3.TSK_FS_ATTR_TYPE_NTFS_SI), int(pytsk3.TSK_FS_ATTR_TYPE_NTFS_DATA)
_REPARSE, _EXTENDED = int(pytsk3.TSK_FS_ATTR_TYPE_NTFS_REPARSE), int(pytsk3.TSK_FS_ATTR_TYPE_NTFS_EA)
_DIRECTORY = int(pytsk3.TSK_FS_META_TYPE_DIR)
_NON_RESIDENT, _ENCRYPTED_STREAM, _COMPRESSED_STREAM = 0x02, 0x10, 0x20
_READ_ONLY, _SYSTEM, _HAS_REPARSE, _OFFLINE, _ENCRYPTED = 0x1, 0x4, 0x400, 0x1000, 0x4000
_COMPRESSED = 0x800
_STANDS_FOR_ANOTHER = 0x20000000
_TAGS = {
    0x80000013: "its content is deduplicated",
    0x80000017: "it is compressed by WOF",
    0x80000023: "it is a socket of Linux on Windows",
    0x80000024: "it is a pipe of Linux on Windows",
    0x80000025: "it is a device of Linux on Windows",
    0x80000026: "it is a device of Linux on Windows",
    0x8000001B: "it stands for an application",
    0xA0000003: "it is a junction of Windows",
    0xA000000C: "it is a link of Windows",
    0xA000001D: "it is a link of Linux on Windows",
}
# The tags of files that are, or were, kept by a service elsewhere: 0x9000?01A.
_CLOUD, _CLOUD_MASK = 0x9000001A, 0xFFFF0FFF
_EPOCH_UNITS = 116_444_736_000_000_000
_INTERIX = b"Intx"
_SMALL = 1
_REPARSE_BYTES_MAX = 16 << 10


class NtfsFacts:
    """Of the files of one NTFS."""

    def facts(self, number: int, file: Any) -> Facts:
        """Raises OSError if what every file has is not there."""
        found = Facts()
        attributes = list(file)
        is_directory = int(file.info.meta.type) == _DIRECTORY
        try:
            flags = _standard(file, attributes, found, is_directory)
        except error as wrong:
            raise OSError(errno.EIO, f"the times of file {number} make no sense") from wrong
        streams = [each for each in attributes if int(each.info.type) == _DATA]
        names = [bytes(each.info.name) for each in streams if is_named(each)]
        if names:
            found.lacks.append(named("its other streams:", names))
        if any(int(each.info.type) == _EXTENDED for each in attributes):
            found.lacks.append("its extended attributes ($EA)")
        if (flags & _ENCRYPTED and not is_directory) or _any_encrypted(streams):
            found.sealed = "it is encrypted by the file system (EFS), and its key is not here"
        elif flags & _COMPRESSED and not is_directory and _not_unpacked(streams):
            found.sealed = "it is compressed by the file system in a way that is not read here"
        if flags & _HAS_REPARSE or any(int(each.info.type) == _REPARSE for each in attributes):
            _judge_reparse(_tag(file, attributes), found, is_directory=is_directory)
        elif flags & _OFFLINE and not is_directory:
            found.sealed = "its content is not in the volume (offline)"
        if not is_directory and flags & _SYSTEM and not found.sealed and _is_special(file):
            found.lacks.append("being a link, a device, a pipe or a socket to ntfs-3g: it comes as a file")
        return found


def is_named(attribute: Any) -> bool:
    """Whether a stream stands beside the content."""
    return bytes(attribute.info.name or b"") not in (b"", b"DATA", b"$Data", b"N/A")


def _standard(file: Any, attributes: list[Any], found: Facts, is_directory: bool) -> int:
    """Times and mode; returns the attributes. Raises OSError, struct.error."""
    raw = _content(file, attributes, _STANDARD, 48)
    modified, accessed = unpack_from("<Q", raw, 8)[0], unpack_from("<Q", raw, 24)[0]
    flags = int(unpack_from("<I", raw, 32)[0])
    found.mtime_ns, found.atime_ns = _time_ns(modified), _time_ns(accessed)
    found.mode = dos_mode(read_only=bool(flags & _READ_ONLY) and not is_directory, is_directory=is_directory)
    return flags


def dos_mode(*, read_only: bool, is_directory: bool) -> int:
    """For a file system without modes: one that lets its owner do what the attributes let."""
    mode = 0o755 if is_directory else 0o644
    return mode & 0o555 if read_only else mode


def _time_ns(units: int) -> int:
    """Before 1677 and after 2554 it is the nearest that can be said; no file system here has such times."""
    return max(TIME_NS_MIN, min(TIME_NS_MAX, (units - _EPOCH_UNITS) * 100))


def _any_encrypted(streams: list[Any]) -> bool:
    return any(int(each.info.flags) & _ENCRYPTED_STREAM for each in streams)


def _not_unpacked(streams: list[Any]) -> bool:
    """Whether the content is not one that pytsk3 takes for compressed by LZNT1, the only way it knows."""
    content = [each for each in streams if not is_named(each)]
    return any(
        int(each.info.flags) & _NON_RESIDENT and not int(each.info.flags) & _COMPRESSED_STREAM
        for each in content
    )


def _tag(file: Any, attributes: list[Any]) -> int:
    """0 for one that cannot be read."""
    try:
        return int(unpack_from("<I", _content(file, attributes, _REPARSE, _REPARSE_BYTES_MAX))[0])
    except (OSError, error):
        return 0


def _judge_reparse(tag: int, found: Facts, *, is_directory: bool) -> None:
    said = _TAGS.get(tag)
    if said is None and tag & _CLOUD_MASK == _CLOUD:
        said = "a service elsewhere keeps it"
    said = f"{said or 'it has a reparse point that is not known here'} (tag {tag:#010x})"
    if tag & _STANDS_FOR_ANOTHER:
        found.nothing = said
    elif is_directory:
        found.lacks.append(f"its reparse point: {said}")
    else:
        found.sealed = f"{said}, which is not read here"


def _is_special(file: Any) -> bool:
    size = int(file.info.meta.size)
    if size <= _SMALL:
        return True
    try:
        return bytes(file.read_random(0, len(_INTERIX))) == _INTERIX
    except OSError:
        return False


def _content(file: Any, attributes: list[Any], kind: int, most: int) -> bytes:
    """The first attribute of a kind. Raises OSError."""
    for each in attributes:
        if int(each.info.type) == kind and int(each.info.size) > 0:
            size = min(most, int(each.info.size))
            return bytes(file.read_random(0, size, each.info.type, each.info.id))
    raise OSError(errno.EIO, f"it has no attribute {kind}")
