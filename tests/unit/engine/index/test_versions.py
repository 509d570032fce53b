"""Rows of the versions table: order of keys, and damage that no reader takes for a version."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.history.visibility import Interval
from engine.index.versions import (
    IndexedVersion,
    check_bytes,
    newest_single,
    read_version,
    version_key,
    version_value,
)
from protocol.errors import Corruption
from tests.sim.sim_store import SimStore, StoreFile

numbers = st.integers(0, (1 << 62) - 1)
DATA = bytes(range(256)) * 16


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 9), numbers), min_size=2))
def test_keys_sort_by_place_and_newest_first(places: list[tuple[int, int, int, int]]) -> None:
    by_key = sorted(places, key=lambda place: version_key(*place))
    assert by_key == sorted(places, key=lambda place: (*place[:3], -place[3]))


def test_a_version_survives_its_row() -> None:
    key = version_key(1, 2, 3, 4)
    stored = read_version(key, version_value(key, DATA))
    assert (stored.number, stored.zero, stored.key) == (4, False, key)
    check_bytes(stored, DATA)
    assert read_version(key, version_value(key, None)).zero


def test_a_row_at_another_place_is_damage() -> None:
    """The CRC covers the key: right bytes in the wrong block are wrong."""
    key, other = version_key(1, 2, 3, 4), version_key(1, 2, 4, 4)
    with pytest.raises(Corruption):
        read_version(other, version_value(key, None))
    moved = read_version(other, version_value(key, DATA))
    with pytest.raises(Corruption, match="block 4") as caught:
        check_bytes(moved, DATA)
    assert caught.value.position == "4"


@pytest.mark.parametrize("at", range(5))
def test_a_flipped_byte_of_a_value_is_damage(at: int) -> None:
    key = version_key(1, 2, 3, 4)
    for data in (DATA, None):
        value = bytearray(version_value(key, data))
        value[at] ^= 1
        with pytest.raises(Corruption):
            check_bytes(read_version(key, bytes(value)), DATA)


@pytest.mark.parametrize("value", [b"", b"\x01", bytes(4), bytes(6), b"\x03" + bytes(4)])
def test_a_value_of_no_known_form_is_damage(value: bytes) -> None:
    with pytest.raises(Corruption):
        read_version(version_key(1, 2, 3, 4), value)


def test_other_bytes_than_those_indexed_are_damage() -> None:
    key = version_key(1, 2, 3, 4)
    version = read_version(key, version_value(key, DATA))
    with pytest.raises(Corruption):
        check_bytes(version, DATA[:-1] + b"\0")


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 3), st.integers(0, 30)), max_size=30
    ),
    st.tuples(st.integers(0, 1), st.integers(0, 3)),
    st.tuples(st.integers(0, 1), st.integers(0, 31), st.integers(1, 32)),
)
def test_the_newest_in_an_interval_is_found_with_one_seek(
    stored: list[tuple[int, int, int, int]], place: tuple[int, int], limits: tuple[int, int, int]
) -> None:
    volume, block = place
    interval = Interval(*limits)
    store = SimStore(StoreFile(), ("versions",))
    with store.write() as write:
        for each in stored:
            key = version_key(*each)
            write.put("versions", key, version_value(key, None))
    expected = [
        number
        for lane, its_volume, its_block, number in stored
        if (lane, its_volume, its_block) == (interval.lane, volume, block)
        and interval.low <= number < interval.high
    ]
    with store.read() as read:
        found = newest_single(read.cursor("versions"), volume, block, interval)
    assert isinstance(found, IndexedVersion | None)
    assert (found.number if found else None) == max(expected, default=None)
