"""Files out of a volume into a directory, at the paths that they have in the volume.

What comes may be hostile, and another user may change the directory meanwhile. So every name is opened below
a directory that is held open (`dir_fd`) and never through a link, a file is made only where nothing was,
links are made and never followed, and what was written is read back and compared before it counts. Owners,
modes and times are set last, a directory's after its content's. What a file system keeps and this one does
not, or the reader did not give, is listed with the file.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import xxhash

from console.files.descent import DIRECTORY, open_below
from console.files.digests import ContentDigest
from console.files.directories import (
    TARGET_MODE,
    TIME_OFF_NS_MAX,
    drop_access_lists,
    for_new_target,
    keeps_of_its_own,
    root_without,
    says_nothing,
)
from console.files.rights import Dropped, Granted, Rights, count_owner, grant
from console.files.source import Failed, FileSource, Path
from console.files.walk import Item, Missed, bad_name
from console.write_at import write_at
from protocol.errors import NoSpace, UsageError
from protocol.file_stream import Data, Entry, Extents, shown

_READ_BACK_BYTES = 1 << 20
_NO_OWNER = (1 << 32) - 1


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came. `data_bytes` counts data written, not holes; `digests` are of each
    file's content, by path, where files replace others; `root_without` says what of the volume's root does
    not come by rule."""

    files: int = 0
    directories: int = 0
    links: int = 0
    data_bytes: int = 0
    missed: list[Missed] = field(default_factory=list)
    dropped: Dropped = field(default_factory=Dropped)
    digests: dict[Path, bytes] = field(default_factory=dict)
    root_without: str = ""


class DirectoryTarget:
    """`replace`: what is there makes room, and a directory that is there becomes the restored one. Otherwise
    it stays as it is, and what it has of its own is listed if it was asked for."""

    def __init__(self, root: str, source: FileSource, rights: Rights, *, replace: bool = False) -> None:
        """Makes the directory if it is not there, for its owner only. Raises UsageError."""
        try:
            self._is_new = _make_target(root)
            self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"{root}: {error.strerror}", subject=root) from error
        self.outcome = Outcome()
        self._source = source
        self._rights = rights
        self._owner = rights.owner and source.opened.has_owners
        self._replace = replace
        # The directory that is held open, and its path.
        self._here: tuple[Path, int] = ((), os.dup(self._root))
        # To be finished when all have their content, and whether they were there before.
        self._directories: list[tuple[Path, Entry, bool]] = []
        self._met: set[Path] = set()
        # Were there before, and are not asked for so far.
        self._on_the_way: set[Path] = set()
        # The first name of what has several, which need not be a file: links, devices and pipes may too.
        self._linked: dict[tuple[str, int], Path] = {}

    def close(self) -> None:
        """Drop what is held open."""
        os.close(self._here[1])
        os.close(self._root)

    def take(self, items: Iterable[Item | Missed]) -> None:
        """Everything; what cannot be made is noted in the outcome. Raises NoSpace, and FarshoreError if the
        source is gone."""
        for item in items:
            if isinstance(item, Missed):
                self.outcome.missed.append(item)
                continue
            try:
                self._make(item)
            except OSError as error:
                if error.errno in (28, 122):  # ENOSPC, EDQUOT
                    raise NoSpace("the target is full", next_step="restore elsewhere") from error
                self._miss(item.path, error.strerror or str(error))
            except Failed as error:
                self._miss(item.path, error.message)

    def finish(self) -> None:
        """Give directories their modes and times, the deepest first."""
        for path, entry, was_there in sorted(self._directories, key=_depth, reverse=True):
            try:
                here = os.dup(self._enter(path))
                try:
                    if was_there:
                        self._finish_old(here, path, entry)
                    elif path:
                        self._dress(here, path, entry)
                    else:
                        self._put(here, path, entry, grant(entry, self._rights, self.outcome.dropped))
                finally:
                    os.close(here)
            except OSError as error:
                self._miss(path, error.strerror or str(error))

    def _make(self, item: Item) -> None:
        path, entry = item.path, item.entry
        if not path:
            self._make_root(entry)
            return
        if why := bad_name(path[-1]):
            self._miss(path, why)
            return
        parent = self._enter(path[:-1])
        if self._replace and entry.what != "d":
            self._make_room(parent, path[-1])
        first = self._linked.get((entry.what, entry.number))
        if first is not None:
            self._link(first, path)
            return  # what it came without was said with its first name
        match entry.what:
            case "d":
                self._make_directory(parent, path, entry, asked=item.asked)
            case "f":
                self._make_file(parent, path, entry)
            case "l":
                os.symlink(entry.target, path[-1], dir_fd=parent)
                self.outcome.links += 1
                self._dress_name(parent, path, entry)
            case "b" | "c" | "p" if self._rights.special:
                self._make_special(parent, path, entry)
            case _:
                self._miss(path, why_not(entry))
                return
        if entry.links > 1 and entry.what != "d":
            self._linked[entry.what, entry.number] = path
        for lack in entry.lacks:
            self._miss(path, f"came without {lack}")

    def _make_room(self, parent: int, name: bytes) -> None:
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass

    def _enter(self, path: Path) -> int:
        """A descriptor of a directory below the target, valid until the next call. Raises OSError."""
        if self._here[0] == path:
            return self._here[1]
        at = open_below(self._root, path)
        os.close(self._here[1])
        self._here = (path, at)
        return at

    def _make_root(self, entry: Entry) -> None:
        """The target directory stands for it."""
        if () in self._met or says_nothing(entry, self._source.opened):
            return
        self._met.add(())
        if self._replace:
            self._directories.append(((), entry, True))
        else:
            self.outcome.root_without = root_without(self._source.opened, is_new=self._is_new)
            if self._is_new:
                self._directories.append(((), for_new_target(entry), False))
        for lack in entry.lacks:
            self._miss((), f"came without {lack}")

    def _make_directory(self, parent: int, path: Path, entry: Entry, *, asked: bool) -> None:
        if path not in self._met:
            try:
                # Until it has its content, it is nobody else's business.
                os.mkdir(path[-1], 0o700, dir_fd=parent)
            except FileExistsError:
                # Anything else but a directory is refused here.
                os.close(os.open(path[-1], DIRECTORY, dir_fd=parent))
                self._on_the_way.add(path)
            else:
                self._directories.append((path, entry, False))
                self.outcome.directories += 1
            self._met.add(path)
        if asked and path in self._on_the_way:
            self._on_the_way.discard(path)
            self._directories.append((path, entry, True))

    def _finish_old(self, here: int, path: Path, entry: Entry) -> None:
        """A directory that was asked for, and was there before."""
        opened = self._source.opened
        if not self._replace:
            granted = grant(entry, self._rights, self.outcome.dropped)
            if kept := keeps_of_its_own(here, entry, granted, opened, owner=self._owner):
                self._miss(path, f"it was there before, and keeps its own {kept}")
        elif opened.has_owners:
            drop_access_lists(here)
            self._dress(here, path, entry)
        else:
            # A mode that was made up for it is no reason to change the one that it has.
            os.utime(here, ns=(entry.atime_ns, entry.mtime_ns))

    def _make_file(self, parent: int, path: Path, entry: Entry) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(path[-1], flags, 0o600, dir_fd=parent)
        try:
            try:
                self._fill(file, path, entry)
            except BaseException:
                # Half a file must not be taken for the file.
                os.unlink(path[-1], dir_fd=parent)
                raise
            self._dress(file, path, entry)
        finally:
            os.close(file)
        self.outcome.files += 1

    def _make_special(self, parent: int, path: Path, entry: Entry) -> None:
        """With its mode from the beginning: opening a device may do something, and changing a name's mode
        follows links."""
        kind = {"b": stat.S_IFBLK, "c": stat.S_IFCHR, "p": stat.S_IFIFO}[entry.what]
        before = os.umask(0)
        try:
            device = os.makedev(entry.major, entry.minor)
            os.mknod(path[-1], kind | entry.mode & 0o777, device, dir_fd=parent)
        finally:
            os.umask(before)
        self._dress_name(parent, path, entry)
        self.outcome.files += 1

    def _link(self, first: Path, path: Path) -> None:
        parent = os.dup(self._enter(path[:-1]))
        try:
            other = self._enter(first[:-1])
            os.link(first[-1], path[-1], src_dir_fd=other, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(parent)
        self.outcome.links += 1

    def _fill(self, file: int, path: Path, entry: Entry) -> None:
        """The content, holes left as holes; then the same digest of what can be read back."""
        digest = xxhash.xxh3_128()
        whole = ContentDigest() if self._replace else None
        extents: tuple[tuple[int, int], ...] = ()
        for piece in self._source.content(path, entry):
            if whole is not None:
                whole.take(piece)
            if isinstance(piece, Extents):
                os.ftruncate(file, piece.size_bytes)
                extents = piece.extents
            elif isinstance(piece, Data):
                digest.update(piece.data)
                write_at(file, piece.data, piece.offset)
                self.outcome.data_bytes += len(piece.data)
        back = xxhash.xxh3_128()
        for start, length in extents:
            for offset in range(start, start + length, _READ_BACK_BYTES):
                back.update(os.pread(file, min(_READ_BACK_BYTES, start + length - offset), offset))
        if back.digest() != digest.digest():
            raise Failed("what was written reads back differently")
        if whole is not None:
            self.outcome.digests[path] = whole.digest()

    def _dress(self, file: int, path: Path, entry: Entry) -> None:
        """Owner, attributes, mode and times of an open file or directory. Changing the owner drops the
        set-id bits and capabilities, so they come after it."""
        self._put(file, path, entry, self._grant(file, path, entry))

    def _put(self, file: int, path: Path, entry: Entry, granted: Granted) -> None:
        for name, value in granted.attributes:
            try:
                os.setxattr(file, name, value)
            except OSError as error:
                self._miss(path, f"came without attribute {shown(name)}: {error.strerror}")
        os.fchmod(file, granted.mode)
        os.utime(file, ns=(entry.atime_ns, entry.mtime_ns))
        self._check_time(path, entry, os.fstat(file))

    def _dress_name(self, parent: int, path: Path, entry: Entry) -> None:
        """The same of what cannot be opened: a link, a device, a pipe."""
        name = path[-1]
        granted = self._grant(parent, path, entry, name)
        # The directory is named by its descriptor, so that only the last name is looked up.
        here = b"/proc/self/fd/%d/%s" % (parent, name)
        for attribute, value in granted.attributes:
            try:
                os.setxattr(here, attribute, value, follow_symlinks=False)
            except OSError as error:
                self._miss(path, f"came without attribute {shown(attribute)}: {error.strerror}")
        os.utime(name, ns=(entry.atime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)
        self._check_time(path, entry, os.stat(name, dir_fd=parent, follow_symlinks=False))

    def _grant(self, at: int, path: Path, entry: Entry, name: bytes | None = None) -> Granted:
        """What it gets, after it got its owner: the open file `at`, or `name` in that directory."""
        if self._owner:
            try:
                _give(at, name, entry)
            except OSError as error:
                self._miss(path, f"came without its owner: {error.strerror}")
                # What is the caller's must not have the rights of somebody else's.
                return grant(entry, replace(self._rights, owner=False), self.outcome.dropped)
        elif self._source.opened.has_owners:
            count_owner(entry, self.outcome.dropped)
        return grant(entry, self._rights, self.outcome.dropped)

    def _check_time(self, path: Path, entry: Entry, status: os.stat_result) -> None:
        """A kernel cuts a time to what the file system can hold, and says nothing."""
        if abs(status.st_mtime_ns - entry.mtime_ns) > TIME_OFF_NS_MAX:
            self._miss(path, "came without its time, which the target's file system cannot hold")

    def _miss(self, path: Path, why: str) -> None:
        self.outcome.missed.append(Missed(path=path, why=why))


def _depth(each: tuple[Path, Entry, bool]) -> int:
    return len(each[0])


def _make_target(root: str) -> bool:
    """Whether it had to be made, for its owner only. Raises OSError."""
    stem = root.rstrip("/")
    while stem.endswith("/."):
        # It is made under its own name, or it would be made as a parent is: open to others.
        stem = stem[:-2].rstrip("/")
    if parent := os.path.dirname(stem):
        os.makedirs(parent, exist_ok=True)
    try:
        os.mkdir(stem or root, TARGET_MODE)
    except FileExistsError:
        return False
    return True


def _give(at: int, name: bytes | None, entry: Entry) -> None:
    """The owner, to the open file `at` or to `name` in that directory. Raises OSError."""
    if _NO_OWNER in (entry.uid, entry.gid):
        # chown(2) takes it for "leave it as it is", and succeeds.
        raise OSError(errno.EINVAL, "no file can get that one")
    if name is None:
        os.fchown(at, entry.uid, entry.gid)
    else:
        os.chown(name, entry.uid, entry.gid, dir_fd=at, follow_symlinks=False)


def why_not(entry: Entry) -> str:
    """Why an entry is not restored: a person's words."""
    if entry.what in "bcp":
        return "a device or a pipe: add --special"
    return entry.lacks[0] if entry.lacks else "a socket, or nothing that is known"


def may_give_owners() -> bool:
    """Whether files can get any owner here."""
    return os.geteuid() == 0
