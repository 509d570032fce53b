"""What is in a volume: its partitions, and which file system each of them holds.

A file system on the whole volume wins over a partition table: a boot sector of FAT or NTFS ends like one.
"""

from __future__ import annotations

from typing import Any

import pytsk3

from console.file_systems.export_reader import ExportReader
from protocol.file_stream import Partition, shown
from protocol.limits import FILE_PARTITIONS_MAX, FILE_TEXT_CHARS_MAX, SECTOR_BYTES

# What pytsk3 does not read, or should not: first bytes at an offset, and the word for it.
_SIGNATURES = (
    (0, b"XFSB", "xfs"),
    (0x10040, b"_BHRfS_M", "btrfs"),
    (512, b"LABELONE", "lvm"),
    (0, b"LABELONE", "lvm"),
    (0, b"LUKS\xba\xbe", "luks"),
    (4096 - 10, b"SWAPSPACE2", "swap"),
    (0x1000, b"\xfc\x4e\x2b\xa9", "md"),
)
READABLE = {
    int(pytsk3.TSK_FS_TYPE_EXT2): "ext2",
    int(pytsk3.TSK_FS_TYPE_EXT3): "ext3",
    int(pytsk3.TSK_FS_TYPE_EXT4): "ext4",
    int(pytsk3.TSK_FS_TYPE_NTFS): "ntfs",
    int(pytsk3.TSK_FS_TYPE_FAT12): "fat",
    int(pytsk3.TSK_FS_TYPE_FAT16): "fat",
    int(pytsk3.TSK_FS_TYPE_FAT32): "fat",
    int(pytsk3.TSK_FS_TYPE_EXFAT): "exfat",
}
_NONSENSE_BYTES = 1 << 62
CASE_FOLDS = frozenset({"ntfs", "fat", "exfat"})


class ExportImage(pytsk3.Img_Info):  # type: ignore[misc]
    """The export as pytsk3 reads an image. `failure` is the last read's error: pytsk3 does not pass it on."""

    def __init__(self, reader: ExportReader) -> None:
        self.reader = reader
        self.failure: OSError | None = None
        super().__init__(url="", type=pytsk3.TSK_IMG_TYPE_EXTERNAL)

    def read(self, offset: int, length: int) -> bytes:
        """Called by pytsk3."""
        try:
            return self.reader.read(offset, length)
        except OSError as error:
            self.failure = error
            raise

    def get_size(self) -> int:
        """Called by pytsk3."""
        return self.reader.size_bytes

    def close(self) -> None:
        """Called by pytsk3; the connection is the caller's."""


def signature(reader: ExportReader, first_byte: int) -> str:
    """The word for what a stretch begins with, of those that are not read here; empty if unknown. Raises
    OSError."""
    for offset, magic, word in _SIGNATURES:
        if reader.read(first_byte + offset, len(magic)) == magic:
            return word
    return ""


def file_system(image: ExportImage, first_byte: int) -> tuple[Any, str] | None:
    """pytsk3's file system there and the word for it; None if there is none that it reads. Raises OSError if
    the export could not be read."""
    image.failure = None
    if signature(image.reader, first_byte):
        return None
    try:
        found = pytsk3.FS_Info(image, offset=first_byte)
    except OSError:
        if image.failure is not None:
            raise image.failure from None
        return None
    word = READABLE.get(int(found.info.ftype))
    return (found, word) if word else None


def partitions(image: ExportImage) -> list[Partition]:
    """The partition table's rows that may hold a file system, numbered as Linux does; empty if there is no
    table. Raises OSError if the export could not be read."""
    image.failure = None
    try:
        table = pytsk3.Volume_Info(image)
        rows = [part for part in table if int(part.flags) & int(pytsk3.TSK_VS_PART_FLAG_ALLOC)]
    except OSError:
        if image.failure is not None:
            raise image.failure from None
        return []
    sector_bytes = int(table.info.block_size) or SECTOR_BYTES
    found = []
    for part in rows[:FILE_PARTITIONS_MAX]:
        # Logical partitions lie in tables of their own, one each, and count from 5.
        number = int(part.slot_num) + 1 if int(part.table_num) < 1 else 4 + int(part.table_num)
        first, size = int(part.start) * sector_bytes, int(part.len) * sector_bytes
        # A table may say anything: an end before the start, or far past the volume.
        size = min(size, image.reader.size_bytes - first) if size < _NONSENSE_BYTES else 0
        if size <= 0 or number < 1:
            continue
        holds = signature(image.reader, first)
        if not holds:
            inside = file_system(image, first)
            holds = inside[1] if inside else ""
        text = shown(bytes(part.desc or b""))[:FILE_TEXT_CHARS_MAX]
        found.append(Partition(number=number, first_byte=first, size_bytes=size, text=text, holds=holds))
    return found
