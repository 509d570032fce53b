"""Finding paths in a file source and walking down from them. Pure, but for what it asks of the source.

Nothing that the volume says decides where anything lands: names with `/` or NUL, `.` and `..`, names and
paths that are too long, directories that are met a second time and those too deep are reported and left out.
Links are never followed, not even in the volume.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from console.files.source import Failed, FileSource, Path
from protocol.commands.base import Reply
from protocol.errors import NotFound, UsageError
from protocol.file_stream import Entry, shown
from protocol.limits import FILE_DEPTH_MAX, FILE_PATH_BYTES_MAX

NAME_BYTES_MAX = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Something that is there. `asked`: it lies at or below what was asked for; not: on the way to it."""

    path: Path
    entry: Entry
    asked: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """Something that did not come, and why."""

    path: Path
    why: str

    @property
    def info(self) -> MissedInfo:
        """For scripts."""
        return MissedInfo(path=path_text(self.path), why=self.why)


class MissedInfo(Reply, frozen=True, kw_only=True):
    """Something that did not come, and why."""

    path: str
    why: str


def path_text(path: Path) -> str:
    """For people: printable whatever the names hold."""
    return "/" + "/".join(shown(name) for name in path)


def parse_path(text: bytes) -> Path:
    """A path as a user writes it, from the root down. Raises UsageError."""
    names = tuple(name for name in text.split(b"/") if name not in (b"", b"."))
    if b".." in names or b"\0" in text:
        raise UsageError(
            f"{shown(text)}: a path in the volume has no ..", subject=shown(text), next_step="write it from /"
        )
    return names


def bad_name(name: bytes) -> str:
    """Why a name of the volume is none; empty if it is one."""
    if name in (b"", b".", b".."):
        return f"a name that is {name.decode('ascii')!r}"
    if b"/" in name or b"\0" in name:
        return "a name with a slash or a NUL in it"
    if len(name) > NAME_BYTES_MAX:
        return f"a name of {len(name)} bytes"
    return ""


class Finder:
    """Looks paths up from the root; a directory that was listed last is not listed again."""

    def __init__(self, source: FileSource) -> None:
        self._source = source
        self._listed: tuple[int, list[Entry]] | None = None

    def ancestors(self, path: Path) -> list[Item]:
        """The items from below the root to `path` itself, which is the last. Raises NotFound, Failed."""
        entry = self._source.root()
        found: list[Item] = []
        for depth, name in enumerate(path):
            if entry.what != "d":
                raise _not_a_directory(path[:depth], entry)
            entry = self._named(path[:depth], entry, name)
            found.append(Item(path=(*path[:depth], entry.name), entry=entry, asked=depth == len(path) - 1))
        return found

    def find(self, path: Path) -> Item:
        """One path. Raises NotFound, Failed."""
        found = self.ancestors(path)
        return found[-1] if found else Item(path=(), entry=self._source.root())

    def _named(self, path: Path, directory: Entry, name: bytes) -> Entry:
        if self._listed is None or self._listed[0] != directory.number:
            entries, troubles = self._source.names(path, directory)
            for missed, why in troubles:
                if missed == name or not entries:
                    raise Failed(f"{path_text((*path, name))}: {why}", subject=path_text((*path, name)))
            self._listed = (directory.number, entries)
        entries = self._listed[1]
        for entry in entries:
            if entry.name == name:
                return entry
        if self._source.opened.case_folds:
            folded = name.decode("utf-8", "surrogateescape").casefold()
            for entry in entries:
                if entry.name.decode("utf-8", "surrogateescape").casefold() == folded:
                    return entry
        raise NotFound(
            f"there is no {path_text((*path, name))} at this cut",
            subject=path_text((*path, name)),
            next_step=f"list {path_text(path)}, or look at other cuts: `farshore files versions G/V:/PATH`",
        )


def walk(source: FileSource, start: Item, *, recursive: bool = True) -> Iterator[Item | Missed]:
    """`start` and, if it is a directory, what is in it; a directory before its content, depth first."""
    seen: set[int] = set()
    yield start
    stack = [start] if start.entry.what == "d" else []
    first = True
    while stack:
        here = stack.pop()
        if not first:
            yield here
        below: list[Item] = []
        for found in _content(source, here, seen):
            if isinstance(found, Item) and found.entry.what == "d" and recursive:
                below.append(found)
            else:
                yield found
        stack += reversed(below)
        first = False


def _content(source: FileSource, here: Item, seen: set[int]) -> Iterator[Item | Missed]:
    """One directory's names. Directories have one name each: one that is met again leads in a circle."""
    if here.entry.number in seen:
        yield Missed(path=here.path, why="this directory was met before: it leads in a circle")
        return
    seen.add(here.entry.number)
    if len(here.path) > FILE_DEPTH_MAX or sum(map(len, here.path)) > FILE_PATH_BYTES_MAX:
        yield Missed(path=here.path, why="it lies too deep")
        return
    try:
        entries, troubles = source.names(here.path, here.entry)
    except Failed as error:
        yield Missed(path=here.path, why=error.message)
        return
    for name, why in troubles:
        yield Missed(path=(*here.path, name) if name else here.path, why=why)
    names: set[bytes] = set()
    for entry in sorted(entries, key=lambda each: each.name):
        why = bad_name(entry.name) or ("a name that is there twice" if entry.name in names else "")
        names.add(entry.name)
        path = (*here.path, entry.name)
        yield Missed(path=path, why=why) if why else Item(path=path, entry=entry)


def all_items(source: FileSource, found: list[list[Item]]) -> Iterator[Item | Missed]:
    """The way to each path, then what is there and below."""
    for way in found:
        yield from way[:-1]
        yield from walk(source, way[-1])


def _not_a_directory(path: Path, entry: Entry) -> NotFound:
    if entry.what == "l":
        return NotFound(
            f"{path_text(path)} is a link to {shown(entry.target)}; links are not followed",
            subject=path_text(path),
            next_step="name the path that it leads to",
        )
    return NotFound(f"{path_text(path)} is no directory", subject=path_text(path))
