"""Trees with everything that a kind of file system can hold, and what was seen of each thing where it was
made: the originals that restores are compared with."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support import special_files as special
from tests.support.clients import succeed

MIB = 1 << 20
TEXT = b"what a file holds, again and again; " * 3000
# Seconds from 1970 of a moment in 1960, 2090 and 2200.
IN_1960, IN_2090, IN_2200 = -315_521_755, 3_797_744_584, 7_258_215_845
NS = 1_000_000_000
EFS_NS = 1_234_567_890 * NS + 123_456_700
ODD_NS = 1_234_567_890 * NS + 765_432_100

Look = Callable[[Path], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A row of the table. `expected` is what `look` gave at the original; `said`: a word of what is said to
    be kept by no restore; `content`: it is there whole, or not at all."""

    row: str
    path: str
    look: Look
    expected: object
    said: str = ""
    content: bool = False


class Cases:
    """Gathers the rows of one file system while it is filled at `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cases: list[Case] = []

    def add(self, row: str, path: str, look: Look, *, said: str = "", content: bool = False) -> None:
        """What is there now is what is expected."""
        expected = look(self.root / path)
        case = Case(row=row, path=path, look=look, expected=expected, said=said, content=content)
        self.cases.append(case)

    def expect(self, row: str, path: str, look: Look, expected: object, *, said: str = "") -> None:
        """What cannot be looked at in the original."""
        self.cases.append(Case(row=row, path=path, look=look, expected=expected, said=said))

    def file(self, name: str, data: bytes = b"x") -> Path:
        """A file to do something with."""
        (self.root / name).write_bytes(data)
        return self.root / name


def content(path: Path) -> object:
    return path.read_bytes()


def seconds(path: Path) -> object:
    return os.lstat(path).st_mtime_ns // NS


def units(path: Path) -> object:
    """As fine as NTFS counts."""
    return os.lstat(path).st_mtime_ns // 100


def owner(path: Path) -> object:
    return os.lstat(path).st_uid, os.lstat(path).st_gid


def mode(path: Path) -> object:
    return stat.S_IMODE(os.lstat(path).st_mode)


def writable(path: Path) -> object:
    """By its owner."""
    return bool(os.lstat(path).st_mode & stat.S_IWUSR)


def device(path: Path) -> object:
    status = os.lstat(path)
    return stat.S_IFMT(status.st_mode), status.st_rdev


def holes(path: Path) -> object:
    status = os.lstat(path)
    return status.st_size, status.st_blocks * 512 < status.st_size // 2, path.read_bytes().strip(b"\0")


def names(path: Path) -> object:
    return sorted(os.listdir(path))


def same_file(other: str) -> Look:
    return lambda path: os.lstat(path).st_ino == os.lstat(path.with_name(other)).st_ino


def attribute(name: str) -> Look:
    """None for one that is not there."""

    def look(path: Path) -> object:
        with suppress(OSError):
            return os.getxattr(path, name, follow_symlinks=False)
        return None

    return look


def flags(path: Path) -> object:
    return succeed("lsattr", "-d", path).split()[0].replace("e", "").replace("-", "")


def plain(cases: Cases) -> None:
    """What every file system holds."""
    cases.file("content", TEXT)
    cases.add("content", "content", content, content=True)
    cases.file("empty", b"")
    cases.add("empty file", "empty", content, content=True)
    cases.file("Ünïcødé name with spaces.text")
    cases.add("long name, not ASCII", "Ünïcødé name with spaces.text", content, content=True)
    # What is made up for FAT by its reader begins like this.
    cases.file("$dollar")
    cases.add("names that begin with $", "$dollar", content, content=True)
    (cases.root / "dir" / "deeper").mkdir(parents=True)
    cases.file("dir/deeper/file", b"deep")
    cases.add("directories", "dir/deeper/file", content, content=True)
    os.utime(cases.file("t2090"), ns=(NS, IN_2090 * NS))
    cases.add("time in 2090", "t2090", seconds)


def posix(cases: Cases) -> None:
    """ext2, ext3, ext4 and XFS, mounted by the kernel."""
    plain(cases)
    root = cases.root
    for row, name, when in (("time in 1960", "t1960", IN_1960), ("time in 2200", "t2200", IN_2200)):
        os.utime(cases.file(name), ns=(NS, when * NS))
        cases.add(row, name, seconds)
    os.utime(cases.file("fine"), ns=(NS, NS + 123_456_789))
    cases.add("fraction of a second", "fine", units)
    os.chown(cases.file("owned"), 1234, 5678)
    cases.add("owner", "owned", owner)
    cases.file("mode").chmod(0o640)
    cases.add("mode", "mode", mode)
    cases.file("setuid").chmod(0o6755)
    cases.add("set-id bits", "setuid", mode)
    os.link(cases.file("one"), root / "other")
    cases.add("hard links", "one", same_file("other"))
    (root / "link").symlink_to("/where/ever")
    cases.add("links", "link", os.readlink)
    with cases.file("holes", b"").open("wb") as file:
        file.truncate(4 * MIB)
        file.seek(2 * MIB)
        file.write(b"middle")
    cases.add("holes", "holes", holes)
    for row, name in (("user.* attributes", "user.colour"), ("security.* attributes", "security.mine")):
        os.setxattr(cases.file(name), name, b"blue")
        cases.add(row, name, attribute(name))
    os.setxattr(root / "link", "trusted.colour", b"red", follow_symlinks=False)
    cases.add("attributes of links", "link", attribute("trusted.colour"))
    os.setxattr(cases.file("acl"), "system.posix_acl_access", special.ACL)
    cases.add("access lists", "acl", attribute("system.posix_acl_access"))
    (root / "defaults").mkdir()
    os.setxattr(root / "defaults", "system.posix_acl_default", special.ACL)
    cases.add("default access lists", "defaults", attribute("system.posix_acl_default"))
    os.setxattr(cases.file("capable"), "security.capability", special.CAPABILITY)
    cases.add("file capabilities", "capable", attribute("security.capability"))
    os.mknod(root / "device", 0o600 | stat.S_IFCHR, os.makedev(300, 70000))
    cases.add("devices", "device", device)
    os.mkfifo(root / "pipe")
    cases.add("pipes", "pipe", device)
    for row, name in (("hard links of links", "link"), ("hard links of devices and pipes", "pipe")):
        os.link(root / name, root / f"{name}-too", follow_symlinks=False)
        cases.add(row, name, same_file(f"{name}-too"))
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(root / "socket"))
    cases.add("sockets", "socket", device)
    special.set_flags(cases.file("flags"), 0xC0)
    cases.add("chattr's flags", "flags", flags)


def root_directory(cases: Cases, kind: str) -> None:
    """What the root directory itself has. The last thing that is done: whatever is made in it changes it."""
    root = cases.root
    if kind in ("FAT", "exFAT"):
        return  # it has no entry there
    os.utime(root, ns=(NS, 1_111_111_111 * NS + 123_456_700))
    if kind == "NTFS":
        os.setxattr(root, "user.stream", b"beside")
        cases.add("streams of /", "", attribute("user.stream"))
    else:
        os.setxattr(root, "user.colour", b"blue")
        os.setxattr(root, "system.posix_acl_default", special.ACL)
        os.setxattr(root, "system.posix_acl_access", special.ACL)
        os.chown(root, 1234, 5678)
        cases.add("attributes of /", "", attribute("user.colour"))
        cases.add("default access lists of /", "", attribute("system.posix_acl_default"))
        cases.add("access lists of /", "", attribute("system.posix_acl_access"), said="access list of /")
        cases.add("owner of /", "", owner, said="owner")
        cases.add("mode of /", "", mode, said="mode")
    cases.add("times of /", "", units)


def xfs(cases: Cases) -> None:
    """With projects."""
    posix(cases)
    special.set_project(cases.file("project"), 4711)
    cases.add("projects", "project", special.project)


def ext4(cases: Cases) -> None:
    """With inline data and encryption; projects take quotas, which not every kernel has."""
    posix(cases)
    root = cases.root
    cases.file("inline", b"small")
    cases.add("inline data", "inline", content, content=True)
    os.setxattr(cases.file("large"), "user.large", b"v" * 20000)
    cases.add("large attributes", "large", attribute("user.large"))
    (root / "sealed").mkdir()
    special.encrypt_directory(root, root / "sealed")
    cases.file("sealed/secret")
    cases.add("encrypted (fscrypt)", "sealed", names)


def ntfs(cases: Cases) -> None:
    """By ntfs-3g. `mark_encrypted` makes an EFS file of `efs` afterwards, `mark_compressed` what it says of
    `packed/odd`."""
    plain(cases)
    root = cases.root
    for row, name, when in (("time in 1960", "t1960", IN_1960), ("time in 2200", "t2200", IN_2200)):
        os.utime(cases.file(name), ns=(NS, when * NS))
        cases.add(row, name, seconds)
    os.utime(cases.file("fine"), ns=(NS, NS + 123_456_700))
    cases.add("fraction of a second", "fine", units)
    os.link(cases.file("one"), root / "other")
    cases.add("hard links", "one", same_file("other"))
    with cases.file("holes", b"").open("wb") as file:
        file.truncate(4 * MIB)
        file.seek(2 * MIB)
        file.write(b"middle")
    cases.add("holes", "holes", holes)
    (root / "packed").mkdir()
    special.set_dos_attributes(root / "packed", 0x810)
    cases.file("packed/file", TEXT)
    cases.add("compressed (LZNT1)", "packed/file", content, content=True)
    os.utime(cases.file("packed/odd", TEXT), ns=(NS, ODD_NS))
    cases.add("compressed otherwise", "packed/odd", content, content=True)
    os.setxattr(cases.file("streams"), "user.stream", b"beside")
    cases.add("alternate streams", "streams", attribute("user.stream"))
    os.setxattr(root / "dir", "user.stream", b"beside")
    cases.add("streams of directories", "dir", attribute("user.stream"))
    cases.expect("owner", "content", owner, "Windows'", said="owners")
    cases.expect("access lists", "content", attribute("system.ntfs_acl"), "Windows'", said="access lists")
    special.set_dos_attributes(cases.file("hidden"), 0x22)
    cases.add("hidden, system, archive", "hidden", attribute("system.ntfs_attrib_be"), said="DOS attributes")
    special.set_dos_attributes(cases.file("fixed"), 0x21)
    cases.expect("read-only", "fixed", writable, False)
    os.utime(cases.file("efs", TEXT), ns=(NS, EFS_NS))
    cases.add("encrypted (EFS)", "efs", content, content=True)
    (root / "link").symlink_to("content")
    cases.add("links", "link", os.readlink)
    os.mkfifo(root / "pipe")
    cases.add("pipes", "pipe", device)
    # What has a reparse point cannot be looked at through ntfs-3g any more.
    cases.file("wof", TEXT)
    cases.add("compressed (WOF)", "wof", content, content=True)
    special.set_reparse_point(root / "wof", special.WOF, special.wof_data())
    cases.file("symlink", b"")
    cases.expect("links of Windows", "symlink", os.readlink, "content")
    special.set_reparse_point(
        root / "symlink", special.SYMLINK, special.link_data(special.SYMLINK, "content")
    )
    (root / "junction").mkdir()
    cases.expect("junctions", "junction", os.readlink, "C:\\dir")
    target = special.link_data(special.JUNCTION, "\\??\\C:\\dir")
    special.set_reparse_point(root / "junction", special.JUNCTION, target)


def fat(cases: Cases) -> None:
    """FAT, at a directory that is copied into it; `fixed` and `hidden` get their attributes there."""
    exfat(cases)
    cases.file("fixed")
    cases.expect("read-only", "fixed", writable, False)
    cases.file("hidden")
    cases.expect("hidden, system, archive", "hidden", lambda _: None, "hidden", said="DOS attributes")


def exfat(cases: Cases) -> None:
    """exFAT; its FUSE sets no attributes."""
    plain(cases)
    cases.expect("owner", "content", owner, "none", said="no owners")
