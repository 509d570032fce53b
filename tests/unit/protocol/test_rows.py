"""Rows: small arrays that are stored or sent, and what is refused in their place."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import RemoteProtocolError
from protocol.limits import MESSAGE_HEADER_BYTES_MAX
from protocol.rows import check_row, pack_row, unpack_row

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.text(max_size=9)
    | st.binary(max_size=9)
)
rows = st.lists(scalars | st.lists(scalars, max_size=4).map(tuple), max_size=8).map(tuple)


@given(rows)
def test_a_row_survives(row: tuple[object, ...]) -> None:
    assert unpack_row(pack_row(row)) == row


@given(st.binary(max_size=100))
def test_noise_is_refused_or_a_row(noise: bytes) -> None:
    try:
        row = unpack_row(noise)
    except RemoteProtocolError:
        return
    assert type(row) is tuple


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        msgpack.packb(5),
        msgpack.packb("text"),
        msgpack.packb({}),
        msgpack.packb([{1: 2}]),
        msgpack.packb([msgpack.ExtType(3, b"longer than none")]),
        pack_row((1, 2))[:-1],
        pack_row((1, 2)) + b"\0",
        b"\xdd\xff\xff\xff\xff",
        b"\x91\xc6\xff\xff\xff\xff",
        b"\x91" * 2000 + b"\x90",
        b"\x91\xa1\xff",
        pack_row(("x" * MESSAGE_HEADER_BYTES_MAX,)),
    ],
)
def test_what_is_no_row_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        unpack_row(data)


def test_the_limit_is_the_callers() -> None:
    data = pack_row((b"x" * 100,))
    assert unpack_row(data, len(data)) == (b"x" * 100,)
    with pytest.raises(RemoteProtocolError, match="limit"):
        unpack_row(data, len(data) - 1)


def test_a_checked_row_has_exactly_the_types_asked_for() -> None:
    assert check_row((1, "a", b"b", (2,)), int, str, bytes, tuple) == (1, "a", b"b", (2,))


@pytest.mark.parametrize("row", [(), (1,), (1, 2, 3), ("1", 2), (True, 2), (1, None), 5, "ab", None])
def test_other_types_or_lengths_are_refused(row: object) -> None:
    """Also what is no row at all: a nested one is whatever the other side sent in its place."""
    with pytest.raises(RemoteProtocolError):
        check_row(row, int, int)  # type: ignore[arg-type]
