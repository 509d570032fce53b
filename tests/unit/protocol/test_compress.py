"""Compressed payloads: back as they were, or refused; never more memory than the bound."""

from __future__ import annotations

import random
import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.compress import compress, decompress
from protocol.errors import RemoteProtocolError
from protocol.limits import COMPRESS_BYTES_MIN, FRAME_BYTES_MAX

SOFT = b"all work and no play " * 4000


def packed(payload: bytes | bytearray | memoryview) -> bytes:
    made = compress(payload)
    assert made is not None
    return made


@given(st.binary(max_size=4096), st.integers(1, 400))
def test_what_was_compressed_comes_back(piece: bytes, times: int) -> None:
    payload = piece * times
    made = compress(payload)
    if made is not None:
        assert len(made) < len(payload)
        assert decompress(made) == payload


def test_any_buffer_will_do() -> None:
    for kind in (bytes, bytearray, memoryview):
        assert decompress(kind(packed(kind(SOFT)))) == SOFT


def test_the_largest_message_fits() -> None:
    payload = bytes(FRAME_BYTES_MAX)
    assert decompress(packed(payload)) == payload


def test_what_gains_nothing_is_left_as_it_is() -> None:
    assert compress(random.Random(1).randbytes(64 << 10)) is None
    assert compress(bytes(COMPRESS_BYTES_MIN - 1)) is None
    assert compress(b"") is None


def test_a_bomb_is_refused_before_it_goes_off() -> None:
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(256 << 20))
    assert len(bomb) < 64 << 10
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            decompress(bomb)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_byte_more_than_allowed_is_refused() -> None:
    assert len(decompress(packed(bytes(4096)), 4096)) == 4096
    with pytest.raises(RemoteProtocolError):
        decompress(packed(bytes(4097)), 4096)


def test_a_size_that_is_not_declared_is_refused() -> None:
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(SOFT)
    with pytest.raises(RemoteProtocolError):
        decompress(silent)


@pytest.mark.parametrize("declared", [0, 1, 4095, 4097, 8192, FRAME_BYTES_MAX])
def test_a_lie_about_the_size_is_refused(declared: int) -> None:
    """RFC 8878, 3.1.1.1: the descriptor says a single segment and how wide the size is; the size follows."""
    whole = packed(bytes(range(256)) * 256)
    assert whole[4] & 0xE0 == 0x60, "one segment, a size of two bytes"
    width_of_four = bytes([whole[4] & 0x1F | 0xA0])
    lying = whole[:4] + width_of_four + declared.to_bytes(4, "little") + whole[7:]
    with pytest.raises(RemoteProtocolError):
        decompress(lying)
    honest = whole[:4] + width_of_four + (65536).to_bytes(4, "little") + whole[7:]
    assert len(decompress(honest)) == 65536


@pytest.mark.parametrize(
    "noise",
    [
        b"",
        b"\x28\xb5\x2f\xfd",
        bytes.fromhex("502a4d18") + (4).to_bytes(4, "little") + b"skip",
        bytes.fromhex("502a4d18") + (4).to_bytes(4, "little") + b"skip" + packed(SOFT),
        packed(SOFT)[:-1],
        packed(SOFT) + b"x",
        packed(SOFT) + packed(SOFT),
        SOFT,
    ],
)
def test_what_is_not_one_whole_frame_is_refused(noise: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decompress(noise)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_damage_is_refused_or_stays_within_the_bound(data: st.DataObject) -> None:
    """Without a checksum some damage goes through to the frames' own; nothing else may happen."""
    damaged = bytearray(packed(SOFT))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert len(decompress(damaged)) <= FRAME_BYTES_MAX
    except RemoteProtocolError:
        pass


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200))
def test_noise_after_the_magic_number_is_refused_or_bounded(noise: bytes) -> None:
    try:
        assert len(decompress(b"\x28\xb5\x2f\xfd" + noise, 1 << 16)) <= 1 << 16
    except RemoteProtocolError:
        pass
