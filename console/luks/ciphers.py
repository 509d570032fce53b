"""Encrypting and decrypting by sectors, as dm-crypt does: AES in XTS or CBC, with an IV for each sector.

A cipher's name is `aes-xts-plain64`: algorithm, mode, how the IV comes from the sector's number. `plain` is
its low 32 bits, `plain64` all of it, little-endian; `essiv:sha256` is plain64 encrypted with the key's hash.

Source: Linux, Documentation/admin-guide/device-mapper/dm-crypt.rst.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from console.luks.unreadable import Unreadable

SECTOR_BYTES = 512
IV_BYTES = 16
_IVS = frozenset({"plain", "plain64", "essiv:sha256"})
_XTS_KEYS, _CBC_KEYS = frozenset({32, 64}), frozenset({16, 24, 32})


class SectorCipher:
    """`key` is as long as the cipher's name and nothing else says. Raises Unreadable for a cipher that is not
    known here."""

    def __init__(self, name: str, key: bytes, *, sector_bytes: int = SECTOR_BYTES, first: int = 0) -> None:
        """`first` is the number of the first sector, in units of 512 bytes whatever `sector_bytes` is."""
        algorithm, _, rest = name.partition("-")
        mode, _, iv = rest.partition("-")
        keys = {"xts": _XTS_KEYS, "cbc": _CBC_KEYS}.get(mode, frozenset())
        if algorithm != "aes" or len(key) not in keys or iv not in _IVS:
            raise Unreadable(f"its cipher, {name[:64]} with {len(key) * 8} bits, is not known here")
        self.sector_bytes = sector_bytes
        self._step = sector_bytes // SECTOR_BYTES
        self._first = first
        self._algorithm = algorithms.AES(key)
        self._mode: Callable[[bytes], modes.XTS | modes.CBC] = modes.XTS if mode == "xts" else modes.CBC
        self._iv_bits = 32 if iv == "plain" else 64
        self._essiv = None
        if iv == "essiv:sha256":
            hashed = hashlib.sha256(key).digest()
            self._essiv = Cipher(algorithms.AES(hashed), modes.ECB()).encryptor()

    def decrypt(self, number: int, data: bytes) -> bytes:
        """Whole sectors, of which the first is the `number`th."""
        return b"".join(
            Cipher(self._algorithm, self._mode(iv)).decryptor().update(piece)
            for iv, piece in self._pieces(number, data)
        )

    def encrypt(self, number: int, data: bytes) -> bytes:
        """The same the other way."""
        return b"".join(
            Cipher(self._algorithm, self._mode(iv)).encryptor().update(piece)
            for iv, piece in self._pieces(number, data)
        )

    def _pieces(self, number: int, data: bytes) -> list[tuple[bytes, memoryview]]:
        view, size = memoryview(data), self.sector_bytes
        return [
            (self._iv(self._first + (number + each) * self._step), view[each * size : (each + 1) * size])
            for each in range(len(data) // size)
        ]

    def _iv(self, number: int) -> bytes:
        plain = (number & ((1 << self._iv_bits) - 1)).to_bytes(IV_BYTES, "little")
        return plain if self._essiv is None else self._essiv.update(plain)
