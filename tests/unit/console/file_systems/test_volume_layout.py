"""What is made of partition tables that make no sense: a table is a stranger's."""

from __future__ import annotations

import struct
import zlib

import pytest

from console.file_systems.volume_layout import ExportImage, partitions
from protocol.file_stream import Partition

MIB = 1 << 20
SECTOR = 512
LINUX = bytes.fromhex("af3dc60f838472478e793d69d8477de4")


class Bytes:
    """An export of these bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size_bytes = len(data)

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


def gpt(first: int, last: int) -> bytearray:
    """A disk of 16 MiB with one partition, from one sector to another."""
    disk = bytearray(16 * MIB)
    disk[446:462] = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, 0xFFFFFFFF)
    disk[510:512] = b"\x55\xaa"
    rows = bytearray(128 * 128)
    rows[:128] = LINUX + b"u" * 16 + struct.pack("<QQQ", first, last, 0) + bytes(72)
    end = len(disk) // SECTOR - 1
    head = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, 1, end, 34, end - 33, b"d" * 16,
                       2, 128, 128, zlib.crc32(rows))  # fmt: skip
    head = head[:16] + struct.pack("<I", zlib.crc32(head)) + head[20:]
    disk[SECTOR : SECTOR + len(head)] = head
    disk[2 * SECTOR : 2 * SECTOR + len(rows)] = rows
    return disk


def found(disk: bytearray) -> list[Partition]:
    return partitions(ExportImage(Bytes(bytes(disk))))  # type: ignore[arg-type]


def test_a_partition_is_found() -> None:
    (part,) = found(gpt(2048, 4095))
    assert (part.number, part.first_byte, part.size_bytes) == (1, MIB, MIB)


def test_one_that_is_said_to_go_on_past_the_volume_ends_with_it() -> None:
    (part,) = found(gpt(2048, 1 << 40))
    assert (part.first_byte, part.size_bytes) == (MIB, 15 * MIB)


@pytest.mark.parametrize("last", [3, 2047, 1 << 63, (1 << 64) - 2])
def test_one_of_a_length_that_makes_no_sense_is_none(last: int) -> None:
    """It ends before it begins, or past any disk: the reader could not say its length, and died."""
    assert found(gpt(2049, last)) == []
