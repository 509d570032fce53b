"""Names in blocks of directories: what the kernel sees, and nothing between it."""

from __future__ import annotations

from struct import pack

from hypothesis import given
from hypothesis import strategies as st

from console.file_systems.ext_directories import names_in_block


def entry(inode: int, name: bytes, length: int) -> bytes:
    """One entry of `length` bytes."""
    return (pack("<IHBB", inode, length, len(name), 1) + name).ljust(length, b"\0")


def test_names() -> None:
    block = entry(12, b"one", 12) + entry(0, b"gone", 12) + entry(13, b"two", 1000)
    assert names_in_block(block) == ([(b"one", 12), (b"two", 13)], None)


def test_what_lies_in_an_entrys_slack_does_not_exist() -> None:
    """A deleted name, and the index of a hashed directory, which fills an entry without an inode."""
    slack = entry(12, b"one", 512)[:12] + entry(14, b"ghost", 500)
    index = pack("<IHBB", 0, 512, 0, 0) + entry(15, b"ghost", 504)
    assert names_in_block(slack + index) == ([(b"one", 12)], None)


def test_a_block_of_64_kib_is_one_entry() -> None:
    for length in (0, 65535):
        block = pack("<IHBB", 12, length, 3, 1) + b"one" + bytes(65536 - 11)
        assert names_in_block(block) == ([(b"one", 12)], None)


def test_names_before_the_damage_come() -> None:
    found, error = names_in_block(entry(12, b"one", 12) + pack("<IHBB", 13, 7, 3, 1) + bytes(100))
    assert found == [(b"one", 12)]
    assert error is not None


@given(st.binary(max_size=300))
def test_noise_ends(noise: bytes) -> None:
    found, _ = names_in_block(noise)
    assert len(found) <= len(noise) // 8
