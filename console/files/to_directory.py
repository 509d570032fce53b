"""Files out of a volume into a directory, at the paths that they have in the volume.

What comes may be hostile, and another user may change the directory meanwhile. So every name is opened below
a directory that is held open (`dir_fd`) and never through a link, a file is made only where nothing was,
links are made and never followed, and what was written is read back and compared before it counts. Owners,
modes and times are set last, a directory's after its content's. What a file system keeps and this one does
not, or the reader did not give, is listed with the file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import xxhash

from console.files.descent import DIRECTORY, open_below
from console.files.digests import ContentDigest
from console.files.rights import Dropped, Granted, Rights, count_owner, grant
from console.files.source import Failed, FileSource, Path
from console.files.walk import Item, Missed, bad_name
from protocol.errors import NoSpace, UsageError
from protocol.file_stream import Data, Entry, Extents, shown

_READ_BACK_BYTES = 1 << 20
_TARGET_MODE = 0o700
# FAT counts in units of two seconds; what is further off was cut to what the target can hold.
_TIME_OFF_NS_MAX = 2_000_000_000


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came. `data_bytes` counts data written, not holes; `digests` are of each
    file's content, by path, where files replace others."""

    files: int = 0
    directories: int = 0
    links: int = 0
    data_bytes: int = 0
    missed: list[Missed] = field(default_factory=list)
    dropped: Dropped = field(default_factory=Dropped)
    digests: dict[Path, bytes] = field(default_factory=dict)


class DirectoryTarget:
    """`replace`: what is there, unless it is a directory, makes room."""

    def __init__(self, root: str, source: FileSource, rights: Rights, *, replace: bool = False) -> None:
        """Makes the directory if it is not there, for its owner only. Raises UsageError."""
        try:
            os.makedirs(root, mode=_TARGET_MODE, exist_ok=True)
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
        self._directories: list[tuple[Path, Entry]] = []
        self._made: set[Path] = {()}
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
        """Give the directories that were made their modes and times, the deepest first."""
        for path, entry in reversed(self._directories):
            try:
                here = os.dup(self._enter(path))
                try:
                    self._dress(here, path, entry)
                finally:
                    os.close(here)
            except OSError as error:
                self._miss(path, error.strerror or str(error))

    def _make(self, item: Item) -> None:
        path, entry = item.path, item.entry
        if not path:
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
                self._make_directory(parent, path, entry)
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

    def _make_directory(self, parent: int, path: Path, entry: Entry) -> None:
        if path in self._made:
            return
        try:
            # Until it has its content, it is nobody else's business.
            os.mkdir(path[-1], 0o700, dir_fd=parent)
        except FileExistsError:
            # One that was there before stays as it is; anything else but a directory is refused here.
            os.close(os.open(path[-1], DIRECTORY, dir_fd=parent))
        else:
            self._directories.append((path, entry))
            self.outcome.directories += 1
        self._made.add(path)

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
                _write(file, piece.data, piece.offset)
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
        granted = self._grant(file, path, entry)
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
                if name is None:
                    os.fchown(at, entry.uid, entry.gid)
                else:
                    os.chown(name, entry.uid, entry.gid, dir_fd=at, follow_symlinks=False)
            except OSError as error:
                self._miss(path, f"came without its owner: {error.strerror}")
                # What is the caller's must not have the rights of somebody else's.
                return grant(entry, replace(self._rights, owner=False), self.outcome.dropped)
        elif self._source.opened.has_owners:
            count_owner(entry, self.outcome.dropped)
        return grant(entry, self._rights, self.outcome.dropped)

    def _check_time(self, path: Path, entry: Entry, status: os.stat_result) -> None:
        """A kernel cuts a time to what the file system can hold, and says nothing."""
        if abs(status.st_mtime_ns - entry.mtime_ns) > _TIME_OFF_NS_MAX:
            self._miss(path, "came without its time, which the target's file system cannot hold")

    def _miss(self, path: Path, why: str) -> None:
        self.outcome.missed.append(Missed(path=path, why=why))


def _write(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(file, view, offset)
        view, offset = view[count:], offset + count


def why_not(entry: Entry) -> str:
    """Why an entry is not restored: a person's words."""
    if entry.what in "bcp":
        return "a device or a pipe: add --special"
    return entry.lacks[0] if entry.lacks else "a socket, or nothing that is known"


def may_give_owners() -> bool:
    """Whether files can get any owner here."""
    return os.geteuid() == 0
