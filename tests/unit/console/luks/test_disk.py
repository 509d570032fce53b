"""Sectors that are encrypted one by one, read and written at any offset (C50)."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from console.luks.ciphers import SectorCipher
from console.luks.disk import LuksDisk

KEY = bytes(range(64))
SIZE = 64 << 10
FIRST = 4096


class Memory:
    """What lies below, as bytes."""

    def __init__(self) -> None:
        self.data = bytearray(FIRST + SIZE)
        self.flushed = False

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = data

    def flush(self) -> None:
        self.flushed = True


@pytest.mark.parametrize("sector", [512, 4096])
def test_c50_the_iv_counts_in_512_bytes(sector: int) -> None:
    """As dm-crypt counts, whatever the sector's size."""
    memory = Memory()
    disk = LuksDisk(memory, SectorCipher("aes-xts-plain64", KEY, sector_bytes=sector, first=7), FIRST, SIZE)
    disk.write(2 * sector, b"x" * sector)
    iv = (7 + 2 * sector // 512).to_bytes(16, "little")
    expected = Cipher(algorithms.AES(KEY), modes.XTS(iv)).encryptor().update(b"x" * sector)
    assert memory.data[FIRST + 2 * sector : FIRST + 3 * sector] == expected
    assert bytes(memory.data[: FIRST + 2 * sector]).count(0) == FIRST + 2 * sector


def test_c50_plain_counts_in_32_bits_and_essiv_by_the_key() -> None:
    key, number = KEY[:32], 1 << 32 | 5
    block = b"y" * 512

    def cbc(iv: bytes) -> bytes:
        return Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor().update(block)

    plain = number.to_bytes(16, "little")
    hashed = Cipher(algorithms.AES(hashlib.sha256(key).digest()), modes.ECB()).encryptor()
    for name, iv in {
        "aes-cbc-plain": (5).to_bytes(16, "little"),
        "aes-cbc-plain64": plain,
        "aes-cbc-essiv:sha256": hashed.update(plain),
    }.items():
        cipher = SectorCipher(name, key)
        assert cipher.encrypt(number, block) == cbc(iv)
        assert cipher.decrypt(number, cbc(iv)) == block


@given(
    st.lists(st.tuples(st.integers(0, SIZE - 1), st.binary(min_size=1, max_size=9000)), max_size=8),
    st.sampled_from([512, 4096]),
)
def test_c50_writes_of_any_length_change_nothing_beside_them(
    writes: list[tuple[int, bytes]], sector: int
) -> None:
    memory, mirror = Memory(), bytearray(SIZE)
    disk = LuksDisk(memory, SectorCipher("aes-xts-plain64", KEY, sector_bytes=sector), FIRST, SIZE)
    disk.write(0, bytes(SIZE))
    for offset, data in writes:
        there = data[: SIZE - offset]
        disk.write(offset, there)
        mirror[offset : offset + len(there)] = there
    assert disk.read(0, SIZE) == mirror
    for offset, data in writes:
        assert disk.read(offset, min(len(data), SIZE - offset)) == mirror[offset : offset + len(data)]
    assert memory.data[:FIRST] == bytes(FIRST)
    disk.flush()
    assert memory.flushed
