"""Holes cut into a frame and filled again: the same bytes, or a refusal."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.base_holes import check_holes, cut_out, put_back
from protocol.base_messages import BaseHoled, Hole
from protocol.compress import Compression
from protocol.errors import RemoteProtocolError
from protocol.messages import decode_message
from protocol.seed_limits import SEED_CHUNK_BYTES

CHUNKS = (3, 1, 2)
SEEDS = [random.Random(number).randbytes(chunks * SEED_CHUNK_BYTES) for number, chunks in enumerate(CHUNKS)]


def fetch(seed: int, chunk: int) -> bytes:
    return SEEDS[seed][chunk * SEED_CHUNK_BYTES : (chunk + 1) * SEED_CHUNK_BYTES]


@st.composite
def framed(draw: st.DrawFn) -> tuple[bytes, list[Hole]]:
    """A frame of which ranges are in seeds, some of them neighbours, and these ranges."""
    frame, holes = bytearray(), []
    for _ in range(draw(st.integers(1, 8))):
        frame += draw(st.binary(max_size=50))
        seed = draw(st.integers(0, len(SEEDS) - 1))
        at = draw(st.integers(0, len(SEEDS[seed]) - 1))
        length = draw(st.integers(1, len(SEEDS[seed]) - at))
        holes.append((len(frame), length, seed, at))
        frame += SEEDS[seed][at : at + length]
    frame += draw(st.binary(max_size=50))
    return bytes(frame), holes


@given(framed())
def test_what_was_cut_out_is_put_back(case: tuple[bytes, list[Hole]]) -> None:
    frame, holes = case
    check_holes(holes, len(frame), CHUNKS)
    left = cut_out(frame, holes)
    assert len(left) == len(frame) - sum(length for _, length, _, _ in holes)
    assert put_back(left, holes, len(frame), fetch) == frame


WRONG: dict[str, tuple[list[Hole], str]] = {
    "overlap": ([(0, 10, 0, 0), (9, 10, 0, 50)], "overlap"),
    "order": ([(20, 10, 0, 0), (0, 10, 0, 50)], "out of order"),
    "twice": ([(5, 10, 0, 0), (5, 10, 0, 0)], "overlap"),
    "no such seed": ([(0, 10, 3, 0)], "names seed 3 of 3"),
    "past the seed": ([(0, 2, 1, SEED_CHUNK_BYTES - 1)], "past the end of seed 1"),
    "far past the seed": ([(0, 10, 0, 1 << 49)], "past the end of seed 0"),
    "past the frame": ([(95, 10, 0, 0)], "past the end of its frame"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_holes_are_refused(name: str) -> None:
    holes, why = WRONG[name]
    with pytest.raises(RemoteProtocolError, match=why):
        check_holes(holes, 100, CHUNKS)


@pytest.mark.parametrize("left_bytes", [0, 89, 91, 5000])
def test_what_is_left_must_be_as_long_as_it_should(left_bytes: int) -> None:
    with pytest.raises(RemoteProtocolError, match="not as long"):
        put_back(bytes(left_bytes), [(0, 10, 0, 0)], 100, fetch)


@given(
    st.lists(
        st.tuples(st.integers(0, 70_000), st.integers(1, 70_000), st.integers(0, 4), st.integers(0, 200_000)),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 300_000),
    st.binary(max_size=300),
)
def test_any_holes_are_refused_or_filled(holes: list[Hole], frame_bytes: int, left: bytes) -> None:
    """Whatever a peer says: nothing but a refusal, or a frame of the length that was said."""
    try:
        check_holes(holes, frame_bytes, CHUNKS)
        frame = put_back(left, holes, frame_bytes, fetch)
    except RemoteProtocolError:
        return
    assert len(frame) == frame_bytes
    assert cut_out(frame, holes) == left


def test_random_bytes_in_place_of_a_message() -> None:
    rng = random.Random(7)
    good = BaseHoled(
        session=9,
        base=3,
        compression=Compression.NONE,
        frame_bytes=5000,
        holes=((100, 4096, 0, 0), (4200, 100, 1, 50)),
    ).encode()
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            message = decode_message(bytes(data))
            if isinstance(message, BaseHoled):
                check_holes(message.holes, message.frame_bytes, CHUNKS)
                put_back(rng.randbytes(rng.choice([0, 804, 5000])), message.holes, message.frame_bytes, fetch)
        except RemoteProtocolError:
            pass


@pytest.mark.parametrize(
    "changed",
    [{"holes": ()}, {"holes": ((0, 1, 0, 0),) * 1025}, {"frame_bytes": 0}, {"frame_bytes": (4 << 20) + 1},
     {"holes": ((0, 0, 0, 0),)}, {"holes": ((0, 1, 256, 0),)}, {"holes": ((0, 1, 0, 1 << 50),)}],
)  # fmt: skip
def test_what_is_out_of_bounds_is_no_message(changed: dict[str, object]) -> None:
    fields: dict[str, object] = {"frame_bytes": 5000, "holes": ((0, 1, 0, 0),)}
    row: Any = fields | changed
    message = BaseHoled(session=9, base=3, compression=Compression.NONE, **row)
    with pytest.raises(RemoteProtocolError):
        decode_message(message.encode())
