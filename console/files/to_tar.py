"""Files out of a volume as a tar archive (POSIX.1-2001, "pax"), holes kept.

A file with holes is written as GNU tar's sparse format 1.0: its header names the real name and size in
GNU.sparse.* records, and its data begins with the map, decimal numbers a line, filled up to 512 bytes.
Attributes are SCHILY.xattr.* records, access lists SCHILY.acl.* ones too (tar --xattrs --acls). Names and
values that are not UTF-8 are marked by hdrcharset=BINARY, which Python's tarfile adds.

A file that breaks off while it is written keeps its size and is zeroes from there; it is reported. So is one
whose header was not written yet, and it is not in the archive.

Source: pax(1) of POSIX; "Storing Sparse Files" in GNU tar's manual.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from console.files.directories import says_nothing
from console.files.rights import Dropped, Granted, Rights, grant
from console.files.source import Failed, FileSource, Path
from console.files.tar_acl import RECORDS, acl_text
from console.files.to_directory import Outcome, why_not
from console.files.walk import Item, Missed
from protocol.errors import FarshoreError
from protocol.file_stream import Data, Entry, Extents, shown

_TYPES = {
    "d": tarfile.DIRTYPE,
    "f": tarfile.REGTYPE,
    "l": tarfile.SYMTYPE,
    "b": tarfile.BLKTYPE,
    "c": tarfile.CHRTYPE,
    "p": tarfile.FIFOTYPE,
}
_SPECIAL = "bcp"
_BLOCK = tarfile.BLOCKSIZE
_ZEROES = bytes(1 << 20)


class TarTarget:
    """Writes to `out`, which is not closed. Owners are always in an archive: who unpacks it decides."""

    def __init__(self, out: BinaryIO, source: FileSource, *, special: bool, privileged: bool) -> None:
        self.outcome = Outcome()
        self._out = out
        self._source = source
        self._rights = Rights(owner=True, special=special, privileged=privileged)
        self._linked: dict[tuple[str, int], Path] = {}
        self._made: set[Path] = set()

    def take(self, items: Iterable[Item | Missed]) -> None:
        """Everything; what does not come is noted in the outcome. Raises FarshoreError if the source is gone,
        BrokenPipeError if nobody reads."""
        for item in items:
            if isinstance(item, Missed):
                self.outcome.missed.append(item)
            elif not self._is_done(item):
                self._add(item.path, item.entry)

    def _is_done(self, item: Item) -> bool:
        """A directory has one entry in the archive, FAT's root none."""
        if not item.path and says_nothing(item.entry, self._source.opened):
            return True
        return item.entry.what == "d" and item.path in self._made

    def finish(self) -> None:
        """The end of the archive."""
        self._out.write(bytes(2 * _BLOCK))
        self._out.flush()

    def _add(self, path: Path, entry: Entry) -> None:
        first = self._linked.get((entry.what, entry.number))
        dropped = self.outcome.dropped if first is None else Dropped()
        header = _header(path, entry, grant(entry, self._rights, dropped))
        if header is None or (entry.what in _SPECIAL and not self._rights.special):
            self._miss(path, why_not(entry))
            return
        if first is not None:
            header.type, header.linkname = tarfile.LNKTYPE, _name(first)
            header.pax_headers = {}
            self._write_header(header)
            self.outcome.links += 1
        elif entry.what == "f":
            self._add_file(path, entry, header)
        else:
            self._write_header(header)
            self._made.add(path)
            if entry.what == "d":
                self.outcome.directories += 1
            elif entry.what == "l":
                self.outcome.links += 1
                self._note_name(path, entry)
            else:
                self.outcome.files += 1
                self._note_name(path, entry)
        if first is None:
            lost = [f"attribute {shown(name)}" for name, _ in entry.attributes if b"=" in name]
            for lack in (*entry.lacks, *lost):
                self._miss(path, f"came without {lack}")

    def _miss(self, path: Path, why: str) -> None:
        self.outcome.missed.append(Missed(path=path, why=why))

    def _add_file(self, path: Path, entry: Entry, header: tarfile.TarInfo) -> None:
        pieces = self._source.content(path, entry)
        try:
            extents = next(pieces)
        except Failed as error:
            self._miss(path, error.message)
            return
        if not isinstance(extents, Extents):
            raise FarshoreError("a file's content without its extents")
        stored = sum(length for _, length in extents.extents)
        table = b""
        header.size = extents.size_bytes
        if stored < extents.size_bytes:
            table = _sparse_map(extents)
            header.pax_headers = dict(header.pax_headers) | {
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.name": header.name,
                "GNU.sparse.realsize": str(extents.size_bytes),
            }
            header.size = len(table) + stored
        self._write_header(header)
        self._out.write(table)
        written = self._write_data(path, pieces)
        self._write_zeroes(stored - written + -(len(table) + stored) % _BLOCK)
        self.outcome.files += 1
        self._note_name(path, entry)

    def _note_name(self, path: Path, entry: Entry) -> None:
        """What has several names is in the archive once; the others are links to it, whatever it is."""
        if entry.links > 1:
            self._linked[entry.what, entry.number] = path

    def _write_data(self, path: Path, pieces: Iterator[Extents | Data]) -> int:
        written = 0
        try:
            for piece in pieces:
                if isinstance(piece, Data):
                    self._out.write(piece.data)
                    written += len(piece.data)
        except Failed as error:
            self._miss(path, f"{error.message}; zeroes after {written} bytes of it")
        self.outcome.data_bytes += written
        return written

    def _write_zeroes(self, count: int) -> None:
        while count:
            part = min(count, len(_ZEROES))
            self._out.write(_ZEROES[:part])
            count -= part

    def _write_header(self, header: tarfile.TarInfo) -> None:
        self._out.write(header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))


def _header(path: Path, entry: Entry, granted: Granted) -> tarfile.TarInfo | None:
    """None for what tar does not know."""
    kind = _TYPES.get(entry.what)
    if kind is None:
        return None
    header = tarfile.TarInfo(_name(path))
    header.type = kind
    header.mode, header.uid, header.gid = granted.mode, entry.uid, entry.gid
    header.mtime = entry.mtime_ns // 1_000_000_000
    header.linkname = entry.target.decode("utf-8", "surrogateescape")
    header.devmajor, header.devminor = entry.major, entry.minor
    header.pax_headers = {"mtime": _seconds(entry.mtime_ns), "atime": _seconds(entry.atime_ns)}
    for name, value in granted.attributes:
        if name in RECORDS and (text := acl_text(value)) is not None:
            header.pax_headers[RECORDS[name]] = text
        # A record is NAME=VALUE: an attribute with = in its name would be another one.
        if b"=" not in name:
            header.pax_headers[f"SCHILY.xattr.{_decoded(name)}"] = _decoded(value)
    return header


def _sparse_map(extents: Extents) -> bytes:
    """The map ends with an empty extent at the file's end, as GNU tar writes it."""
    pairs = [*extents.extents, (extents.size_bytes, 0)]
    text = "".join(f"{number}\n" for number in [len(pairs), *(each for pair in pairs for each in pair)])
    raw = text.encode("ascii")
    return raw + bytes(-len(raw) % _BLOCK)


def _name(path: Path) -> str:
    """The root is `.`, as tar calls the directory that it begins at."""
    return _decoded(b"/".join(path)) or "."


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _seconds(time_ns: int) -> str:
    sign = "-" if time_ns < 0 else ""
    seconds, nanoseconds = divmod(abs(time_ns), 1_000_000_000)
    return f"{sign}{seconds}.{nanoseconds:09d}"
