"""A mounted file system as a source of files: for those that are not read in user space.

The kernel of this machine (or libguestfs' own, in a small virtual machine) has parsed what a stranger may
have written. That is more to trust than a confined process, and it is done only where it was asked for or
where libguestfs keeps it away. Names are looked up below the mount's root, which is held open, and never
through a link.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from errno import ENOTSUP, ENXIO
from pathlib import Path as FilePath
from struct import Struct

from console.files.descent import open_below
from console.files.source import Failed, Path
from protocol.file_stream import Data, Entry, Extents, Opened, flags_text, shown
from protocol.limits import (
    FILE_DATA_BYTES,
    FILE_EXTENTS_MAX,
    FILE_LACKS_MAX,
    FILE_NAME_BYTES_MAX,
    FILE_XATTR_BYTES_MAX,
    FILE_XATTRS_MAX,
)

_WITHOUT_OWNERS = frozenset({"fat", "exfat", "ntfs"})
# FS_IOC_GETFLAGS of linux/fs.h, which writes an int where its number says a long.
_GET_FLAGS = 0x80086601
_LONG = Struct("@l")
# FS_IOC_FSGETXATTR: flags, extent size, extents, project, extent size of copies.
_GET_FSXATTR = 0x801C581F
_FSXATTR = Struct("=IIIII8x")
_ENCRYPTED = 0x800
_STAT_BLOCK_BYTES = 512
# The root directory's number where FUSE made it up, and in btrfs, whose subvolumes and snapshots number their
# files alike: names of one file cannot be told then.
_SAYS_NOTHING = frozenset({1, 256})
# What is looked through for zeroes where nobody says where holes are.
_LOOK_BYTES = 64 << 10
_ZEROES = bytes(_LOOK_BYTES)
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFBLK: "b",
    stat.S_IFCHR: "c",
    stat.S_IFIFO: "p",
    stat.S_IFSOCK: "s",
}


class MountedTree:
    """What is mounted at `point`; `kind` is the file system's word. `is_guest`: by libguestfs, which shows
    several file systems as one, may number every name by itself, and does not say where holes are."""

    def __init__(self, point: FilePath, kind: str, *, is_guest: bool = False) -> None:
        self._is_guest = is_guest
        self._root = os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # Inodes are numbered by device; btrfs has a device for each subvolume.
        self._numbers: dict[tuple[int, ...], int] = {}
        status = os.fstat(self._root)
        self._tells_names = not is_guest or status.st_ino not in _SAYS_NOTHING
        self._opened = Opened(
            partitions=(),
            partition=0,
            first_byte=0,
            size_bytes=0,
            file_system=kind,
            holds=kind,
            root=self._number(status),
            unfinished=False,
            case_folds=False,
            has_owners=kind not in _WITHOUT_OWNERS,
            unfenced="",
        )

    @property
    def opened(self) -> Opened:
        """What is mounted."""
        return self._opened

    def root(self) -> Entry:
        """The root directory."""
        return self._entry(b"", os.fstat(self._root), b"", *_facts(self._root))

    def close(self) -> None:
        """Twice is fine."""
        if self._root >= 0:
            os.close(self._root)
        self._root = -1

    def names(self, path: Path, entry: Entry) -> tuple[list[Entry], list[tuple[bytes, str]]]:
        """A directory's entries. Raises Failed."""
        entries: list[Entry] = []
        troubles: list[tuple[bytes, str]] = []
        try:
            here = open_below(self._root, path)
        except OSError as error:
            raise Failed(str(error.strerror)) from error
        try:
            if _flags(here) & _ENCRYPTED:
                raise Failed("it is encrypted by the file system (fscrypt): its names may be no names")
            with os.scandir(here) as found:
                names = [os.fsencode(each.name) for each in found]
            for name in names:
                try:
                    entries.append(self._look(here, name))
                except OSError as error:
                    troubles.append((name[:FILE_NAME_BYTES_MAX], str(error.strerror)))
        except OSError as error:
            troubles.append((b"", str(error.strerror)))
        finally:
            os.close(here)
        return entries, troubles

    def content(self, path: Path, entry: Entry) -> Iterator[Extents | Data]:
        """A file's extents, then its data. Raises Failed."""
        try:
            here = open_below(self._root, path[:-1])
            try:
                file = os.open(path[-1], _FILE, dir_fd=here)
            finally:
                os.close(here)
            try:
                size = os.fstat(file).st_size
                blocks_bytes = os.fstat(file).st_blocks * _STAT_BLOCK_BYTES
                sparse = self._is_guest and blocks_bytes < size
                extents = _filled(file, size) if sparse else _extents(file, size)
                yield Extents(size_bytes=size, extents=tuple(extents), more=False)
                for start, length in extents:
                    for offset in range(start, start + length, FILE_DATA_BYTES):
                        count = min(FILE_DATA_BYTES, start + length - offset)
                        yield Data(offset=offset, data=_exactly(file, offset, count))
            finally:
                os.close(file)
        except OSError as error:
            raise Failed(str(error.strerror)) from error

    def _look(self, here: int, name: bytes) -> Entry:
        status = os.stat(name, dir_fd=here, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        target = os.readlink(name, dir_fd=here) if kind == stat.S_IFLNK else b""
        if kind in (stat.S_IFREG, stat.S_IFDIR):
            file = os.open(name, _FILE, dir_fd=here)
            try:
                attributes, lacks = _facts(file)
            finally:
                os.close(file)
        else:
            # Without opening it: the directory is named by its descriptor.
            attributes, lacks = _attributes(b"/proc/self/fd/%d/%s" % (here, name))
        if not self._tells_names and kind != stat.S_IFDIR and status.st_nlink > 1:
            lacks.append(f"being one file with {status.st_nlink} names")
        return self._entry(name, status, target, attributes, lacks)

    def _entry(
        self,
        name: bytes,
        status: os.stat_result,
        target: bytes,
        attributes: list[tuple[bytes, bytes]],
        lacks: list[str],
    ) -> Entry:
        owned = self._opened.has_owners
        return Entry(
            name=name,
            number=self._number(status),
            what=_KINDS.get(stat.S_IFMT(status.st_mode), "?"),
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid if owned else 0,
            gid=status.st_gid if owned else 0,
            size_bytes=status.st_size,
            mtime_ns=status.st_mtime_ns,
            atime_ns=status.st_atime_ns,
            links=status.st_nlink,
            target=target,
            major=os.major(status.st_rdev),
            minor=os.minor(status.st_rdev),
            attributes=tuple(attributes[:FILE_XATTRS_MAX]),
            lacks=tuple(lacks[:FILE_LACKS_MAX]),
        )

    def _number(self, status: os.stat_result) -> int:
        key: tuple[int, ...] = (status.st_dev, status.st_ino)
        if self._is_guest:
            # Two file systems below one mount have the same inode numbers, but not in files of the same
            # size and mode that were changed in the same nanosecond.
            key += (status.st_ctime_ns, status.st_size, status.st_mode, status.st_nlink)
        return self._numbers.setdefault(key, len(self._numbers))


def _facts(file: int) -> tuple[list[tuple[bytes, bytes]], list[str]]:
    """Attributes of an open file or directory, and what of it does not come."""
    attributes, lacks = _attributes(file)
    if said := flags_text(_flags(file)):
        lacks.append(said)
    if project := _project(file):
        lacks.append(f"its project ({project})")
    return attributes, lacks


def _attributes(file: int | bytes) -> tuple[list[tuple[bytes, bytes]], list[str]]:
    """Attributes, and which did not come. What a file system does not have is none."""
    found: list[tuple[bytes, bytes]] = []
    lacks: list[str] = []
    try:
        names = [os.fsencode(name) for name in os.listxattr(file, follow_symlinks=isinstance(file, int))]
    except OSError as error:
        return found, [] if error.errno == ENOTSUP else [f"its extended attributes: {error.strerror}"]
    for name in names:
        try:
            value = os.getxattr(file, name, follow_symlinks=isinstance(file, int))
        except OSError as error:
            lacks.append(f"attribute {shown(name)}: {error.strerror}")
            continue
        if len(value) > FILE_XATTR_BYTES_MAX or len(found) == FILE_XATTRS_MAX:
            lacks.append(f"attribute {shown(name)}: more than is read")
        else:
            found.append((name, value))
    return found, lacks


def _flags(file: int) -> int:
    """0 where the file system has none."""
    try:
        (flags,) = _LONG.unpack(fcntl.ioctl(file, _GET_FLAGS, bytes(_LONG.size)))
        return int(flags) & 0xFFFFFFFF
    except OSError:
        return 0


def _project(file: int) -> int:
    """0 for none, and where the file system has none."""
    try:
        _, _, _, project, _ = _FSXATTR.unpack(fcntl.ioctl(file, _GET_FSXATTR, bytes(_FSXATTR.size)))
        return int(project)
    except OSError:
        return 0


def _extents(file: int, size: int) -> list[tuple[int, int]]:
    """Where there is data; all of it for a file in more pieces than may be."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == ENXIO:
                break
            raise
        at = min(size, os.lseek(file, start, os.SEEK_HOLE))
        if at > start:
            found.append((start, at - start))
        if len(found) > FILE_EXTENTS_MAX:
            return [(0, size)]
    return found


def _filled(file: int, size: int) -> list[tuple[int, int]]:
    """Where a file that has holes is not zero."""
    found: list[tuple[int, int]] = []
    for at in range(0, size, _LOOK_BYTES):
        count = min(_LOOK_BYTES, size - at)
        if _exactly(file, at, count) == _ZEROES[:count]:
            continue
        start = found.pop()[0] if found and sum(found[-1]) == at else at
        found.append((start, at + count - start))
        if len(found) > FILE_EXTENTS_MAX:
            return [(0, size)]
    return found


def _exactly(file: int, offset: int, count: int) -> bytes:
    data = os.pread(file, count, offset)
    while len(data) < count:
        more = os.pread(file, count - len(data), offset + len(data))
        if not more:
            raise OSError(ENXIO, f"it ends at {offset + len(data)}")
        data += more
    return data
