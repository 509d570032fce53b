"""One digest for one content, however it is cut up and whatever is a hole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_128

from protocol.content_digest import ContentDigest, data_runs
from protocol.limits import BLOCK_BYTES

contents = st.lists(st.sampled_from([b"\0", b"a", b"b"]), max_size=40).map(
    lambda blocks: b"".join(block * BLOCK_BYTES for block in blocks)
)


def digest_of(data: bytes, piece_blocks: int) -> str:
    digest = ContentDigest()
    for at in range(0, len(data), piece_blocks * BLOCK_BYTES):
        piece = data[at : at + piece_blocks * BLOCK_BYTES]
        digest.add(at, piece, data_runs(piece))
    assert digest.data_bytes == len(data) - data.count(b"\0" * BLOCK_BYTES) * BLOCK_BYTES
    return digest.text(len(data))


def plainly(data: bytes) -> str:
    """The definition, written down."""
    found = xxh3_128()
    for at in range(0, len(data), BLOCK_BYTES):
        block = data[at : at + BLOCK_BYTES]
        if any(block):
            found.update((at // BLOCK_BYTES).to_bytes(8, "big") + block)
    found.update(len(data).to_bytes(8, "big"))
    return "xxh3:" + found.hexdigest()


@given(contents, st.integers(1, 50))
def test_it_is_the_definition_in_any_pieces(data: bytes, piece_blocks: int) -> None:
    assert digest_of(data, piece_blocks) == plainly(data)


@given(contents, contents)
def test_other_content_has_another_digest(one: bytes, other: bytes) -> None:
    assert (plainly(one) == plainly(other)) == (one == other)


def test_runs_join_and_end_with_the_data() -> None:
    data = b"x" + bytes(2 * BLOCK_BYTES - 1) + b"y" * BLOCK_BYTES + b"z" * 10
    assert data_runs(data) == [(0, BLOCK_BYTES), (2 * BLOCK_BYTES, 3 * BLOCK_BYTES + 10)]
    assert data_runs(bytes(100)) == []


def test_a_short_last_block_counts_with_zeroes_behind_it() -> None:
    short, whole = ContentDigest(), ContentDigest()
    short.add(0, b"q" * 512, data_runs(b"q" * 512))
    data = (b"q" * 512).ljust(BLOCK_BYTES, b"\0")
    whole.add(0, data, data_runs(data))
    assert short.text(BLOCK_BYTES) == whole.text(BLOCK_BYTES) != short.text(512)
