"""Ranges grown to units, cut into pieces, and what lies between them."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from console.images.image import PIECE_BYTES, Range, pieces_of, rounded

SIZE = 1000


def spread(ranges: list[Range]) -> set[int]:
    return {at for offset, length in ranges for at in range(offset, offset + length)}


@st.composite
def some_ranges(draw: st.DrawFn) -> list[Range]:
    places = sorted(draw(st.sets(st.integers(0, SIZE), max_size=20)))
    return [(low, high - low) for low, high in zip(places[::2], places[1::2], strict=False)]


@given(some_ranges(), st.integers(1, 100))
def test_rounded_covers_whole_units_that_are_touched_and_no_others(ranges: list[Range], unit: int) -> None:
    found = list(rounded(ranges, unit, SIZE))
    touched = {at // unit for at in spread(ranges)}
    assert spread(found) == {at for at in range(SIZE) if at // unit in touched}
    assert all(one[0] + one[1] < other[0] for one, other in itertools.pairwise(found))


def test_pieces() -> None:
    assert list(pieces_of([(0, PIECE_BYTES + 1), (1 << 30, 5)])) == [
        (0, PIECE_BYTES),
        (PIECE_BYTES, 1),
        (1 << 30, 5),
    ]
