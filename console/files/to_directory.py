"""Files out of a volume into a directory, at the paths that they have in the volume.

What comes may be hostile, and another user may change the directory meanwhile. So every name is opened below
a directory that is held open (`dir_fd`) and never through a link, a file is made only where nothing was,
links are made and never followed, and what was written is read back and compared before it counts. Owners,
modes and times are set last, a directory's after its content's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field

import xxhash

from console.files.descent import DIRECTORY, open_below
from console.files.digests import ContentDigest
from console.files.source import Failed, FileSource, Path
from console.files.walk import Item, Missed, bad_name
from protocol.errors import NoSpace, UsageError
from protocol.file_stream import Data, Entry, Extents

_READ_BACK_BYTES = 1 << 20
_RIGHTS = 0o7777
_SET_ID = stat.S_ISUID | stat.S_ISGID
# Attributes that only root may set are part of what is restored only where root restores.
_OPEN_ATTRIBUTES = b"user."


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came. `data_bytes` counts data written, not holes; `digests` are of each
    file's content, by path, where files replace others."""

    files: int = 0
    directories: int = 0
    links: int = 0
    data_bytes: int = 0
    missed: list[Missed] = field(default_factory=list)
    digests: dict[Path, bytes] = field(default_factory=dict)


class DirectoryTarget:
    """`owner`: give everything its owner, which root may. `special`: make devices and pipes too. `replace`:
    what is there, unless it is a directory, makes room."""

    def __init__(
        self, root: str, source: FileSource, *, owner: bool, special: bool, replace: bool = False
    ) -> None:
        """Makes the directory if it is not there. Raises UsageError."""
        try:
            os.makedirs(root, exist_ok=True)
            self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"{root}: {error.strerror}", subject=root) from error
        self.outcome = Outcome()
        self._source = source
        self._owner = owner
        self._special = special
        self._replace = replace
        # The directory that is held open, and its path.
        self._here: tuple[Path, int] = ((), os.dup(self._root))
        self._directories: list[tuple[Path, Entry]] = []
        self._made: set[Path] = {()}
        self._linked: dict[int, Path] = {}

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
        match entry.what:
            case "d":
                self._make_directory(parent, path, entry)
            case "f":
                self._make_file(parent, path, entry)
            case "l":
                os.symlink(entry.target, path[-1], dir_fd=parent)
                self.outcome.links += 1
                self._dress_link(parent, path, entry)
            case "b" | "c" | "p" if self._special:
                self._make_special(parent, path, entry)
            case "b" | "c" | "p":
                self._miss(path, "a device or a pipe: add --special")
            case _:
                self._miss(path, "a socket, or nothing that is known")

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
        first = self._linked.get(entry.number) if entry.links > 1 else None
        if first is not None:
            self._link(first, path)
            return
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
        if entry.links > 1:
            self._linked[entry.number] = path

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
        self._dress_link(parent, path, entry)
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
        set-id bits, so the mode comes after it; a caller who cannot give the owner gives no such bits."""
        mode = entry.mode
        if self._owner:
            os.fchown(file, entry.uid, entry.gid)
        else:
            mode &= ~_SET_ID
        for name, value in entry.attributes:
            if not (self._owner or name.startswith(_OPEN_ATTRIBUTES)):
                continue
            try:
                os.setxattr(file, name, value)
            except OSError as error:
                self._miss(path, f"attribute {name.decode('utf-8', 'backslashreplace')}: {error.strerror}")
        os.fchmod(file, mode & _RIGHTS)
        os.utime(file, ns=(entry.atime_ns, entry.mtime_ns))

    def _dress_link(self, parent: int, path: Path, entry: Entry) -> None:
        if self._owner:
            os.chown(path[-1], entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(path[-1], ns=(entry.atime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _miss(self, path: Path, why: str) -> None:
        self.outcome.missed.append(Missed(path=path, why=why))


def _write(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(file, view, offset)
        view, offset = view[count:], offset + count


def may_give_owners() -> bool:
    """Whether files can get any owner here."""
    return os.geteuid() == 0
