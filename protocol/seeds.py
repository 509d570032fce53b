"""A seed's digests: what a site says of a copy of a volume that it was given as a file, and keeps beside it.

    VOLUME.img      the copy, byte for byte, with holes where it reads as zeroes
    VOLUME.digests  offset  bytes  field (big-endian)
                         0      4  magic "FSSD"
                         4      2  format version, 1
                         6      2  reserved, zero
                         8      8  bytes in VOLUME.img
                        16     16  xxh3-128 of its first 64 KiB (SEED_CHUNK_BYTES)
                        32      …  and so on; the last chunk counts with zeroes behind it

A chunk that is all zeroes has 16 zero bytes for a digest, so that both files are sparse: nothing is ever
taken from it. VOLUME.digests comes last and goes first: without it the other file is none.

Pure: no I/O.
"""

from __future__ import annotations

from struct import Struct

from xxhash import xxh3_128_digest

from protocol.limits import DIGEST_BYTES, VOLUME_BYTES_MAX
from protocol.seed_limits import SEED_CHUNK_BYTES

SEEDS = "seeds"  # the directory, below a site's own
IMAGE, DIGESTS, UNFINISHED = ".img", ".digests", ".unfinished"
MAGIC = b"FSSD"
FORMAT_VERSION = 1
LACKING = bytes(DIGEST_BYTES)

_HEADER = Struct(">4sHHQ")
HEADER_BYTES = _HEADER.size
_ZEROES = bytes(SEED_CHUNK_BYTES)

Buffer = bytes | bytearray | memoryview


def chunks_of(size_bytes: int) -> int:
    """How many chunks so many bytes are."""
    return -(-size_bytes // SEED_CHUNK_BYTES)


def chunk_digest(data: Buffer) -> bytes:
    """The digest of one chunk, or of the last bytes of an image. `LACKING` if it is all zeroes."""
    whole = bytes(data)
    if whole == _ZEROES[: len(whole)]:
        return LACKING
    return xxh3_128_digest(whole.ljust(SEED_CHUNK_BYTES, b"\0"))


def digests_header(size_bytes: int) -> bytes:
    """What VOLUME.digests begins with."""
    return _HEADER.pack(MAGIC, FORMAT_VERSION, 0, size_bytes)


def size_in(header: bytes) -> int:
    """Bytes in VOLUME.img. ValueError if this is no header of its digests."""
    if len(header) != HEADER_BYTES:
        raise ValueError("the digests of the seed end before their header does")
    magic, version, reserved, size_bytes = _HEADER.unpack(header)
    if (magic, version, reserved) != (MAGIC, FORMAT_VERSION, 0) or not 0 < size_bytes <= VOLUME_BYTES_MAX:
        raise ValueError("the digests of the seed do not begin as they must")
    return int(size_bytes)


def digest_at(chunk: int) -> int:
    """Where the digest of a chunk is in VOLUME.digests."""
    return HEADER_BYTES + chunk * DIGEST_BYTES
