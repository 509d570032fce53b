"""The digests that lie beside a seed."""

from __future__ import annotations

import pytest
from xxhash import xxh3_128_digest

from protocol.seed_limits import SEED_CHUNK_BYTES
from protocol.seeds import HEADER_BYTES, LACKING, chunk_digest, chunks_of, digest_at, digests_header, size_in


def test_the_last_chunk_counts_with_zeroes_behind_it() -> None:
    whole = b"abc".ljust(SEED_CHUNK_BYTES, b"\0")
    assert chunk_digest(b"abc") == chunk_digest(whole) == xxh3_128_digest(whole)


@pytest.mark.parametrize("length", [1, 4096, SEED_CHUNK_BYTES])
def test_zeroes_have_no_digest(length: int) -> None:
    assert chunk_digest(bytes(length)) == LACKING
    assert chunk_digest(bytes(length - 1) + b"x") != LACKING


def test_the_header() -> None:
    assert digests_header(70_000) == b"FSSD\0\1\0\0" + (70_000).to_bytes(8, "big")
    assert size_in(digests_header(70_000)) == 70_000
    assert (chunks_of(70_000), chunks_of(SEED_CHUNK_BYTES), chunks_of(0)) == (2, 1, 0)
    assert digest_at(0) == HEADER_BYTES == 16
    assert digest_at(3) == 64


@pytest.mark.parametrize(
    "header",
    [b"", b"FSSD", digests_header(1)[:-1], b"FSSE" + digests_header(1)[4:],
     b"FSSD\0\2" + digests_header(1)[6:], digests_header(0),
     digests_header((1 << 50) + 1), digests_header(1) + b"x"],
)  # fmt: skip
def test_no_header(header: bytes) -> None:
    with pytest.raises(ValueError, match="digests of the seed"):
        size_in(header)
