"""What is inside an encrypted stretch of an export: decrypted as it is read, encrypted as it is written."""

from __future__ import annotations

from typing import Protocol

from console.luks.ciphers import SectorCipher
from protocol.limits import NBD_REQUEST_BYTES_MAX


class Below(Protocol):
    """The export, or a part of it."""

    def read(self, offset: int, length: int) -> bytes:
        """Raises OSError."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """At most `NBD_REQUEST_BYTES_MAX`. Raises OSError."""
        ...

    def flush(self) -> None:
        """Raises OSError."""
        ...


class LuksDisk:
    """`size_bytes` from `first_byte` of what lies below, whole sectors of the cipher's."""

    def __init__(self, below: Below, cipher: SectorCipher, first_byte: int, size_bytes: int) -> None:
        self._below = below
        self._cipher = cipher
        self._first_byte = first_byte
        self.size_bytes = size_bytes

    def read(self, offset: int, length: int) -> bytes:
        """Within the disk; at no multiple of anything. Raises OSError."""
        start, stop = self._whole(offset, length)
        plain = self._decrypted(start, stop)
        return plain[offset - start : offset - start + length]

    def write(self, offset: int, data: bytes) -> None:
        """The same; sectors that are changed in part are read first. Raises OSError."""
        start, stop = self._whole(offset, len(data))
        unit = self._cipher.sector_bytes
        if offset > start:
            data = self._decrypted(start, start + unit)[: offset - start] + data
        if start + len(data) < stop:
            data += self._decrypted(stop - unit, stop)[start + len(data) - stop :]
        for at in range(0, len(data), NBD_REQUEST_BYTES_MAX):
            piece = data[at : at + NBD_REQUEST_BYTES_MAX]
            self._below.write(
                self._first_byte + start + at, self._cipher.encrypt((start + at) // unit, piece)
            )

    def flush(self) -> None:
        """What was written is durable. Raises OSError."""
        self._below.flush()

    def _whole(self, offset: int, length: int) -> tuple[int, int]:
        unit = self._cipher.sector_bytes
        return offset // unit * unit, -(-(offset + length) // unit) * unit

    def _decrypted(self, start: int, stop: int) -> bytes:
        if start == stop:
            return b""
        data = self._below.read(self._first_byte + start, stop - start)
        return self._cipher.decrypt(start // self._cipher.sector_bytes, data)
