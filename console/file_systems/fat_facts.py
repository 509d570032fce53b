"""What FAT and exFAT keep in a directory entry, where pytsk3 loses years after 2037 and takes times for those
of the machine that reads.

Little-endian, offsets in bytes; pytsk3 numbers entries of 32 bytes from the first cluster on, from 3:

    FAT: boot sector                FAT: entry                  exFAT: boot sector, entry of type 0x85
       11  2  bytes of a sector       11  1  attributes            88  4  first sector of the clusters
       14  2  reserved sectors        18  2  date of access       108  1  log2(bytes of a sector)
       16  1  tables                  22  2  time, changed          4  2  attributes
       22  2  sectors of a table      24  2  date, changed         12  4  changed, 16 4 accessed
       36  4  the same, FAT32                                      21  1  changed: units of 10 ms more
                                                                   23  1  zone of changed, 25 1 of accessed

    a date: bits 0-4 day, 5-8 month, 9-15 year from 1980; a time: bits 0-4 units of 2 s, 5-10 minute, 11-15
    hour. exFAT has the date in the upper half of one word. A zone: bit 7 valid, 0-6 signed units of 15 min.

FAT has local time and does not say where: it is taken as UTC, as Linux does.

Source: Microsoft, "FAT32 File System Specification" 1.03; "exFAT file system specification" 7.4.
"""

from __future__ import annotations

import errno
from calendar import timegm
from collections.abc import Callable
from datetime import date
from struct import unpack_from
from typing import Any

import pytsk3

from console.file_systems.facts import Facts
from console.file_systems.ntfs_facts import dos_mode

BOOT_BYTES = 512
_ENTRY_BYTES = 32
_FIRST_NUMBER = 3
_EXFAT_FILE = 0x85
_READ_ONLY, _LABEL = 0x1, 0x8
_ZONE_VALID, _ZONE_S = 0x80, 15 * 60
_DIRECTORY = int(pytsk3.TSK_FS_META_TYPE_DIR)


class FatFacts:
    """`read(offset, length)` gives bytes of the file system, or OSError. Raises OSError for a boot sector
    that makes no sense."""

    def __init__(self, kind: str, boot: bytes, read: Callable[[int, int], bytes]) -> None:
        self._is_exfat = kind == "exfat"
        self._read = read
        if self._is_exfat:
            (first,), shift = unpack_from("<I", boot, 88), boot[108]
            sector = 1 << shift if 9 <= shift <= 12 else 0
        else:
            sector, reserved = unpack_from("<H", boot, 11)[0], unpack_from("<H", boot, 14)[0]
            first = reserved + boot[16] * (unpack_from("<H", boot, 22)[0] or unpack_from("<I", boot, 36)[0])
        if not sector:
            raise OSError(errno.EIO, "its boot sector makes no sense")
        self._clusters_at = first * sector

    def is_own(self, number: int) -> bool:
        """Whether an entry is the file system's (a label, a bitmap), not a user's. Raises OSError."""
        raw = self._entry(number)
        return raw[0] != _EXFAT_FILE if self._is_exfat else bool(raw[11] & _LABEL)

    def facts(self, number: int, file: Any) -> Facts:
        """Raises OSError."""
        raw = self._entry(number)
        found = Facts()
        is_directory = int(file.info.meta.type) == _DIRECTORY
        if self._is_exfat:
            if raw[0] != _EXFAT_FILE:
                raise OSError(errno.EIO, f"entry {number} is no file's")
            flags = unpack_from("<H", raw, 4)[0]
            changed, accessed = unpack_from("<II", raw, 12)
            found.mtime_ns = _exfat_ns(changed, raw[23]) + min(raw[21], 199) * 10_000_000
            found.atime_ns = _exfat_ns(accessed, raw[25])
        else:
            flags = raw[11]
            time, day = unpack_from("<HH", raw, 22)
            found.mtime_ns = _time_ns(day, time)
            found.atime_ns = _time_ns(unpack_from("<H", raw, 18)[0], 0)
        read_only = bool(flags & _READ_ONLY) and not is_directory
        found.mode = dos_mode(read_only=read_only, is_directory=is_directory)
        return found

    def _entry(self, number: int) -> bytes:
        if number < _FIRST_NUMBER:
            raise OSError(errno.EINVAL, f"no entry {number}")
        return self._read(self._clusters_at + (number - _FIRST_NUMBER) * _ENTRY_BYTES, _ENTRY_BYTES)


def _exfat_ns(stamp: int, zone: int) -> int:
    offset = 0
    if zone & _ZONE_VALID:
        offset = zone & 0x7F
        offset = (offset - 0x80 if offset & 0x40 else offset) * _ZONE_S
    return _time_ns(stamp >> 16, stamp & 0xFFFF) - offset * 1_000_000_000


def _time_ns(day: int, time: int) -> int:
    """A day that no calendar has, such as 0 for none, is 1980-01-01."""
    year, month, of_month = 1980 + (day >> 9), day >> 5 & 15, day & 31
    try:
        date(year, month, of_month)
    except ValueError:
        year, month, of_month = 1980, 1, 1
    hour, minute, second = min(23, time >> 11), min(59, time >> 5 & 63), min(59, 2 * (time & 31))
    return timegm((year, month, of_month, hour, minute, second)) * 1_000_000_000
