"""What inodes and entries say beyond pytsk3, also where it is noise: only typed errors, nothing unsaid."""

from __future__ import annotations

from struct import pack_into
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.file_systems.ext_inodes import ExtInodes, ExtLayout, ext_layout
from console.file_systems.facts import Facts, named
from console.file_systems.fat_facts import FatFacts
from console.file_systems.ntfs_facts import _judge_reparse, _time_ns
from protocol.file_stream import TIME_NS_MAX, TIME_NS_MIN

NS = 1_000_000_000
LAYOUT = ExtLayout(
    block_bytes=4096, inodes_per_group=8192, inode_bytes=256, descriptor_bytes=64, unfinished=False,
    unknown_features=0,
)  # fmt: skip
FILE = SimpleNamespace(info=SimpleNamespace(meta=SimpleNamespace(type=1)))


def inode(**fields: int) -> bytearray:
    """A file's, with 32 extra bytes."""
    raw = bytearray(256)
    pack_into("<H", raw, 0, 0o100644)
    pack_into("<H", raw, 128, fields.get("extra", 32))
    pack_into("<i", raw, 16, fields.get("seconds", 0))
    pack_into("<I", raw, 136, fields.get("rest", 0))
    pack_into("<I", raw, 32, fields.get("flags", 0))
    return raw


def ext_facts(raw: bytes) -> Facts:
    return ExtInodes(LAYOUT, lambda offset, length: raw[:length].ljust(length, b"\0")).facts(1, None)


@pytest.mark.parametrize(
    ("seconds", "rest", "expected_s"),
    [
        (-(1 << 31), 0, -(1 << 31)),
        (-1, 0, -1),
        ((1 << 31) - 1, 0, (1 << 31) - 1),
        # The table of the kernel's documentation, "Inode Timestamps".
        (-(1 << 31), 1, 1 << 31),
        (-1, 1, (1 << 32) - 1),
        (0, 1, 1 << 32),
        ((1 << 31) - 1, 3, 15_032_385_535),
    ],
)
def test_c21_times_of_ext4(seconds: int, rest: int, expected_s: int) -> None:
    found = ext_facts(bytes(inode(seconds=seconds, rest=rest | 123_456_789 << 2)))
    assert found.mtime_ns == expected_s * NS + 123_456_789


def test_c21_a_small_inode_has_no_more_bits() -> None:
    assert ext_facts(bytes(inode(seconds=-5, rest=0xFFFFFFFF, extra=4))).mtime_ns == -5 * NS


@pytest.mark.parametrize(("flag", "word"), [(0x800, "fscrypt"), (0x4, "compressed")])
def test_c20_what_is_sealed(flag: int, word: str) -> None:
    assert word in ext_facts(bytes(inode(flags=flag))).sealed


def test_flags_are_said() -> None:
    found = ext_facts(bytes(inode(flags=0x80000 | 0x1000 | 0x10 | 0x20)))
    assert found.lacks == ["its flags (ia, as chattr writes them)"]
    assert found.sealed == ""


def test_a_project_is_said() -> None:
    raw = inode()
    pack_into("<I", raw, 156, 4711)
    assert ext_facts(bytes(raw)).lacks == ["its project (4711)"]


@given(st.binary(min_size=256, max_size=256))
def test_an_inode_of_noise(raw: bytes) -> None:
    found = ext_facts(raw)
    assert found.mtime_ns is not None
    assert TIME_NS_MIN <= found.mtime_ns <= TIME_NS_MAX


@given(st.binary(min_size=1024, max_size=1024))
def test_a_superblock_of_noise(raw: bytes) -> None:
    magic = raw[:56] + b"\x53\xef" + raw[58:]
    layout = ext_layout(magic)
    assert layout is None or 1024 <= layout.block_bytes <= 65536


@pytest.mark.parametrize(("groups", "unknown"), [(64, 0), (65, 0x10)])
def test_descriptors_elsewhere_are_refused(groups: int, unknown: int) -> None:
    """With meta_bg, what is beyond the first block of descriptors would be read wrongly."""
    raw = bytearray(1024)
    for at, value in ((4, groups * 32768), (24, 2), (32, 32768), (40, 8192), (96, 0x10 | 0x80 | 0x2)):
        pack_into("<I", raw, at, value)
    pack_into("<H", raw, 56, 0xEF53)
    pack_into("<H", raw, 88, 256)
    pack_into("<H", raw, 254, 64)
    layout = ext_layout(bytes(raw))
    assert layout is not None
    assert layout.unknown_features == unknown


BOOT = bytearray(512)
pack_into("<HBHB", BOOT, 11, 512, 1, 32, 2)
pack_into("<H", BOOT, 22, 100)
EX_BOOT = bytearray(512)
pack_into("<I", EX_BOOT, 88, 1000)
EX_BOOT[108] = 9


@given(st.binary(min_size=31, max_size=31), st.sampled_from(["fat", "exfat"]))
def test_an_entry_of_noise(raw: bytes, kind: str) -> None:
    boot = bytes(EX_BOOT if kind == "exfat" else BOOT)
    found = FatFacts(kind, boot, lambda _, length: (b"\x85" + raw)[:length]).facts(3, FILE)
    assert found.mtime_ns is not None
    # A day's zone at most beyond what the fields can say.
    assert 315_532_800 - 86400 <= found.mtime_ns // NS < 4_354_819_200 + 86400
    assert found.mode in (0o644, 0o444)


def test_c21_fat_in_2107() -> None:
    raw = bytearray(32)
    pack_into("<HH", raw, 22, 23 << 11 | 59 << 5 | 29, 127 << 9 | 12 << 5 | 31)
    found = FatFacts("fat", bytes(BOOT), lambda _offset, _length: bytes(raw)).facts(3, FILE)
    assert found.mtime_ns == 4_354_819_198 * NS


def test_exfat_says_its_zone() -> None:
    raw = bytearray(32)
    raw[0] = 0x85
    pack_into("<I", raw, 12, (40 << 9 | 1 << 5 | 2) << 16)
    at = {}
    for zone in (0, 0x80, 0x80 | 4, 0x80 | 0x7C):
        raw[23] = zone
        found = FatFacts("exfat", bytes(EX_BOOT), lambda _offset, _length: bytes(raw)).facts(3, FILE)
        at[zone] = found.mtime_ns
    midnight = 1_577_923_200 * NS
    assert list(at.values()) == [midnight, midnight, midnight - 3600 * NS, midnight + 3600 * NS]


def test_c20_reparse_points() -> None:
    """A file's content is elsewhere or another; a directory may be one all the same, or stand for another."""
    for tag, is_directory, kind in (
        (0x80000017, False, "sealed"),
        (0x80000013, False, "sealed"),
        (0x9000601A, False, "sealed"),
        (0x12345, False, "sealed"),
        (0, False, "sealed"),
        (0x9000601A, True, "lacks"),
        (0xA0000003, True, "nothing"),
        (0xA000000C, False, "nothing"),
    ):
        found = Facts()
        _judge_reparse(tag, found, is_directory=is_directory)
        said = {name for name in ("sealed", "lacks", "nothing") if getattr(found, name)}
        assert said == {kind}, hex(tag)


def test_times_of_ntfs_have_ends() -> None:
    assert _time_ns(0) == TIME_NS_MIN
    assert _time_ns((1 << 64) - 1) == TIME_NS_MAX
    assert _time_ns(116_444_736_000_000_000) == 0


def test_many_names_are_cut() -> None:
    assert named("streams:", [b"\x1b%d" % n for n in range(10)], 2) == r"streams: \x1b0, \x1b1 and 8 more"
