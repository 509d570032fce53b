"""Payloads of messages, smaller on the wire: zstd, one independent zstd frame a payload (RFC 8878).

Who compresses says so in the message and leaves a payload as it is where zstd gains nothing. Whoever
decompresses trusts no number of the sender: a size that is not declared, or declared above the bound, is
refused before anything is allocated, and what comes out must be exactly as long as declared.

Pure: no I/O.
"""

from __future__ import annotations

from enum import IntEnum

import zstandard

from protocol.errors import RemoteProtocolError
from protocol.limits import COMPRESS_BYTES_MIN, FRAME_BYTES_MAX

# The fastest of zstd's ordinary levels: at 4 MiB it holds the caller up for about 5 ms.
LEVEL = 1


class Compression(IntEnum):
    """How a payload travels; numbers are never used again for something else."""

    NONE = 0
    ZSTD = 1


# Neither may be used by two threads at once; everything that sends or receives runs on one loop.
_COMPRESSOR = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True, write_checksum=False)
_DECOMPRESSOR = zstandard.ZstdDecompressor(max_window_size=FRAME_BYTES_MAX)


def compress(payload: bytes | bytearray | memoryview) -> bytes | None:
    """The payload as one zstd frame; None where it is not worth it (too short, or not smaller)."""
    if len(payload) < COMPRESS_BYTES_MIN:
        return None
    packed = _COMPRESSOR.compress(payload)
    return packed if len(packed) < len(payload) else None


def decompress(packed: bytes | bytearray | memoryview, bytes_max: int = FRAME_BYTES_MAX) -> bytes:
    """What `compress` was given, at most `bytes_max` long. RemoteProtocolError for anything else."""
    try:
        declared = zstandard.get_frame_parameters(packed).content_size
        # zstandard allocates what is declared; a size that is not declared reads as 2^64 − 1.
        if not 0 < declared <= bytes_max:
            raise RemoteProtocolError(f"a compressed payload must say that it holds 1 to {bytes_max} bytes")
        payload = _DECOMPRESSOR.decompress(packed, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise RemoteProtocolError(f"a compressed payload cannot be read: {error}") from error
    if len(payload) != declared:
        raise RemoteProtocolError("a compressed payload is shorter than it says")
    return payload
