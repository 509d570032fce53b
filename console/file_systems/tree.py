"""One file system's directories and files as messages, through pytsk3.

What was deleted and what pytsk3 makes up (`$OrphanFiles`, `$FAT1`) is not there. A directory or an inode that
cannot be read costs itself and not its neighbours. Nothing is followed: whether an entry leads in a circle is
for the caller to see.
"""

from __future__ import annotations

from collections.abc import Iterator
from errno import EACCES, ENOTDIR
from typing import Any

import pytsk3

from console.file_systems.ext_directories import names_in_block
from console.file_systems.ext_inodes import SUPERBLOCK_OFFSET, ExtInodes, ExtLayout, ext_layout
from console.file_systems.facts import FactFinder, Facts
from console.file_systems.fat_facts import BOOT_BYTES, FatFacts
from console.file_systems.ntfs_facts import NtfsFacts, dos_mode, is_named
from console.file_systems.volume_layout import CASE_FOLDS, ExportImage
from protocol.file_stream import Answer, Data, Done, Entry, Extents, Trouble, shown
from protocol.limits import (
    FILE_DATA_BYTES,
    FILE_EXTENTS_IN_MESSAGE_MAX,
    FILE_EXTENTS_MAX,
    FILE_LACKS_MAX,
    FILE_NAME_BYTES_MAX,
    FILE_TEXT_CHARS_MAX,
)

_KINDS = {
    int(pytsk3.TSK_FS_META_TYPE_REG): "f",
    int(pytsk3.TSK_FS_META_TYPE_DIR): "d",
    int(pytsk3.TSK_FS_META_TYPE_LNK): "l",
    int(pytsk3.TSK_FS_META_TYPE_BLK): "b",
    int(pytsk3.TSK_FS_META_TYPE_CHR): "c",
    int(pytsk3.TSK_FS_META_TYPE_FIFO): "p",
    int(pytsk3.TSK_FS_META_TYPE_SOCK): "s",
}
_MADE_UP = {int(pytsk3.TSK_FS_META_TYPE_VIRT), int(pytsk3.TSK_FS_META_TYPE_VIRT_DIR)}
_CONTENT = {
    int(pytsk3.TSK_FS_ATTR_TYPE_DEFAULT),
    int(pytsk3.TSK_FS_ATTR_TYPE_NTFS_DATA),
}
_NOT_STORED = int(pytsk3.TSK_FS_ATTR_RUN_FLAG_SPARSE) | int(pytsk3.TSK_FS_ATTR_RUN_FLAG_FILLER)
# TSK_FS_ATTR_FLAG_ENUM, which pytsk3 gives no names.
_NON_RESIDENT, _ENCRYPTED, _COMPRESSED = 0x02, 0x10, 0x20
# NTFS keeps its own files in the first entries of its table.
_NTFS_OWN = 24
_NTFS_ROOT = 5
_VOLUME_LABEL = b" (Volume Label Entry)"
_SIZE_MAX = (1 << 63) - 1
_U32 = 0xFFFFFFFF
_LINK_BYTES_MAX = 4096


def text_of(error: Exception) -> str:
    """An error's text as one bounded line."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return shown(said.encode("utf-8", "replace"))[:FILE_TEXT_CHARS_MAX]


class Tree:
    """`kind` is the file system's word."""

    def __init__(self, image: ExportImage, handle: Any, kind: str, first_byte: int) -> None:
        self.kind = kind
        self.root = int(handle.info.root_inum)
        self._image = image
        self._handle = handle
        self._layout = self._ext_layout(first_byte)
        self._inodes: ExtInodes | None = None

        def read(offset: int, length: int) -> bytes:
            return image.reader.read(first_byte + offset, length)

        self._finder: FactFinder
        if self._layout is not None:
            self._finder = self._inodes = ExtInodes(self._layout, read)
        elif kind == "ntfs":
            self._finder = NtfsFacts()
        else:
            self._finder = FatFacts(kind, read(0, BOOT_BYTES), read)

    @property
    def unfinished(self) -> bool:
        """Whether the log holds what was not played back, as far as can be told."""
        return self._layout is not None and self._layout.unfinished

    @property
    def strange(self) -> bool:
        """Whether it has features with which it would be read wrongly."""
        return self.kind.startswith("ext") and (self._layout is None or bool(self._layout.unknown_features))

    @property
    def has_owners(self) -> bool:
        """Whether files have an owner and a mode."""
        return self._layout is not None

    @property
    def case_folds(self) -> bool:
        """Whether one name can be written in several ways."""
        return self.kind in CASE_FOLDS

    def names(self, number: int) -> Iterator[Answer]:
        """A directory's entries."""
        self._image.failure = None
        try:
            if sealed := self._sealed(number):
                raise OSError(EACCES, sealed)
            own = self._inodes is not None and not self._inodes.is_inline(number)
            yield from self._ext_names(number) if own else self._names(number)
        except OSError as error:
            yield self._trouble(b"", error)
        yield Done()

    def _names(self, number: int) -> Iterator[Answer]:
        entries = iter(self._handle.open_dir(inode=number))
        while True:
            try:
                found = next(entries)
            except StopIteration:
                break
            except OSError as error:
                # pytsk3 goes on with the next one, or stops.
                yield self._trouble(b"", error)
                continue
            named = found.info.name
            if int(named.flags) & int(pytsk3.TSK_FS_NAME_FLAG_ALLOC):
                answer = self._entry(bytes(named.name or b""), int(named.meta_addr), found)
                if answer is not None:
                    yield answer

    def _ext_names(self, number: int) -> Iterator[Answer]:
        """Block by block: one that cannot be read costs the names in it."""
        directory = self._handle.open_meta(inode=number)
        if int(directory.info.meta.type) != int(pytsk3.TSK_FS_META_TYPE_DIR):
            raise OSError(ENOTDIR, f"inode {number} is no directory")
        block = int(self._handle.info.block_size)
        extents = self._extents(directory, int(directory.info.meta.size))
        for offset in (at for start, length in extents for at in range(start, start + length, block)):
            try:
                names, error = names_in_block(bytes(directory.read_random(offset, block)))
            except OSError as unreadable:
                names, error = [], unreadable
            for name, inode in names:
                answer = self._ext_entry(name, inode)
                if answer is not None:
                    yield answer
            if error is not None:
                yield self._trouble(b"", error)

    def _ext_entry(self, name: bytes, inode: int) -> Answer | None:
        if name in (b".", b".."):
            return None
        try:
            file = self._handle.open_meta(inode=inode)
        except OSError as error:
            return self._trouble(name[:FILE_NAME_BYTES_MAX], error)
        return self._entry(name, inode, file)

    def look(self, number: int) -> Iterator[Answer]:
        """What a directory is itself."""
        self._image.failure = None
        try:
            file = self._handle.open_meta(inode=number)
            if self._has_entry(number):
                facts = self._finder.facts(number, file)
            else:
                facts = Facts(mode=dos_mode(read_only=False, is_directory=True), mtime_ns=0, atime_ns=0)
            yield self._described(b"", number, file.info.meta, facts)
        except OSError as error:
            yield self._trouble(b"", error)
        yield Done()

    def read(self, number: int) -> Iterator[Answer]:
        """A file's extents and data."""
        self._image.failure = None
        try:
            file = self._handle.open_meta(inode=number)
            if sealed := self._finder.facts(number, file).sealed:
                raise OSError(EACCES, sealed)
            size = int(file.info.meta.size)
            extents = self._extents(file, size)
        except OSError as error:
            yield self._trouble(b"", error)
            yield Done()
            return
        for first in range(0, max(1, len(extents)), FILE_EXTENTS_IN_MESSAGE_MAX):
            last = first + FILE_EXTENTS_IN_MESSAGE_MAX
            yield Extents(size_bytes=size, extents=tuple(extents[first:last]), more=last < len(extents))
        for start, length in extents:
            for offset in range(start, start + length, FILE_DATA_BYTES):
                count = min(FILE_DATA_BYTES, start + length - offset)
                try:
                    data = bytes(file.read_random(offset, count))
                except OSError as error:
                    yield self._trouble(b"", error)
                    yield Done()
                    return
                if len(data) != count:
                    yield Trouble(name=b"", text=f"{count} bytes at {offset} could not be read")
                    yield Done()
                    return
                yield Data(offset=offset, data=data)
        yield Done()

    def _extents(self, file: Any, size: int) -> list[tuple[int, int]]:
        """Offsets and lengths of what is stored; all of it where the file system's map says too little."""
        whole = [(0, size)] if size else []
        stored = next((each for each in file if int(each.info.type) in _CONTENT and not is_named(each)), None)
        if stored is None or size == 0:
            return whole
        flags = int(stored.info.flags)
        if not flags & _NON_RESIDENT or flags & (_COMPRESSED | _ENCRYPTED):
            return whole
        block = int(self._handle.info.block_size)
        found: list[tuple[int, int]] = []
        for run in stored:
            if int(run.flags) & _NOT_STORED:
                continue
            start, end = int(run.offset) * block, min(size, (int(run.offset) + int(run.len)) * block)
            if end <= start:
                continue
            if found and start < sum(found[-1]):
                return whole
            if found and start == sum(found[-1]):
                start = found.pop()[0]
            found.append((start, end - start))
            if len(found) > FILE_EXTENTS_MAX:
                return whole
        return found

    def _entry(self, name: bytes, number: int, found: Any) -> Answer | None:
        """None for what is not a user's."""
        meta = found.info.meta
        try:
            if name in (b"", b".", b"..") or self._is_own(name, number, meta):
                return None
        except OSError as error:
            return self._trouble(name[:FILE_NAME_BYTES_MAX], error)
        if len(name) > FILE_NAME_BYTES_MAX:
            return Trouble(name=name[:FILE_NAME_BYTES_MAX], text="its name is too long")
        if meta is None:
            return Trouble(name=name, text=f"its inode {number} cannot be read")
        kind = _KINDS.get(int(meta.type), "?")
        target = b""
        try:
            facts = self._finder.facts(number, found)
            if facts.sealed and kind == "l":
                return Trouble(name=name, text=facts.sealed[:FILE_TEXT_CHARS_MAX])
            if kind == "l":
                target = self._target(found, meta)
        except OSError as error:
            return self._trouble(name, error)
        if facts.nothing:
            kind, facts.lacks = "?", [facts.nothing]
        return self._described(name, number, meta, facts, kind=kind, target=target)

    def _described(
        self, name: bytes, number: int, meta: Any, facts: Facts, *, kind: str = "d", target: bytes = b""
    ) -> Entry:
        mtime_ns = int(meta.mtime) * 1_000_000_000 + int(meta.mtime_nano)
        atime_ns = int(meta.atime) * 1_000_000_000 + int(meta.atime_nano)
        owned = self.has_owners
        return Entry(
            name=name,
            number=number,
            what=kind,
            mode=int(meta.mode) & 0o7777 if facts.mode is None else facts.mode,
            uid=int(meta.uid) & _U32 if owned else 0,
            gid=int(meta.gid) & _U32 if owned else 0,
            size_bytes=min(max(0, int(meta.size)), _SIZE_MAX),
            mtime_ns=mtime_ns if facts.mtime_ns is None else facts.mtime_ns,
            atime_ns=atime_ns if facts.atime_ns is None else facts.atime_ns,
            links=max(0, int(meta.nlink)) & _U32,
            target=target,
            major=facts.device[0],
            minor=facts.device[1],
            attributes=tuple(facts.attributes),
            lacks=tuple(each[:FILE_TEXT_CHARS_MAX] for each in facts.lacks[:FILE_LACKS_MAX]),
        )

    def _sealed(self, number: int) -> str:
        """Why a directory's names cannot be read. Raises OSError."""
        if not self._has_entry(number):
            return ""
        return self._finder.facts(number, self._handle.open_meta(inode=number)).sealed

    def _has_entry(self, number: int) -> bool:
        """Whether something says what it is: nothing does of FAT's root directory."""
        return number != self.root or not isinstance(self._finder, FatFacts)

    def _is_own(self, name: bytes, number: int, meta: Any) -> bool:
        """Whether it is the file system's or pytsk3's own, not a user's."""
        if meta is not None and int(meta.type) in _MADE_UP:
            return True
        if self.kind == "ntfs":
            return number < _NTFS_OWN and number != _NTFS_ROOT
        # A user's file may have such a name too: its entry tells.
        own = name.endswith(_VOLUME_LABEL) or name.startswith(b"$")
        return own and isinstance(self._finder, FatFacts) and self._finder.is_own(number)

    def _target(self, found: Any, meta: Any) -> bytes:
        """Where a link leads. Raises OSError."""
        if meta.link is not None:
            return bytes(meta.link)[:_LINK_BYTES_MAX]
        # Extents hold long ones, which pytsk3 leaves to be read as content.
        length = int(meta.size)
        if not 0 < length < _LINK_BYTES_MAX:
            raise OSError(0, f"a link of {length} bytes")
        return bytes(found.read_random(0, length)).split(b"\0", 1)[0]

    def _ext_layout(self, first_byte: int) -> ExtLayout | None:
        if not self.kind.startswith("ext"):
            return None
        return ext_layout(self._image.reader.read(first_byte + SUPERBLOCK_OFFSET, 1024))

    def _trouble(self, name: bytes, error: OSError) -> Trouble:
        """What the export answered says more than what pytsk3 made of it. Raises ConnectionError if it is
        gone: nothing else would come either."""
        if isinstance(self._image.failure, ConnectionError):
            raise self._image.failure
        return Trouble(name=name, text=text_of(self._image.failure or error))
