"""The memtable answers like a list of all versions, whatever its chains, ranges and layers look like."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.history.visibility import Interval
from engine.index.memtable import NOT_FOUND, RANGE_BLOCKS, Memtable
from protocol.events import TRIM, WRITE, ZERO, Row
from protocol.limits import BLOCK_BYTES

BLOCKS = 2 * RANGE_BLOCKS + 9
FRAME_GAP = 100
EVERYTHING = Interval(0, 0, 1 << 60)


@dataclass
class Versions:
    """The oracle: every version as (number, first block, end block, zero), and frames' ends."""

    table: Memtable = field(default_factory=Memtable)
    all: list[tuple[int, int, int, bool]] = field(default_factory=list)
    position: int = 0
    cuts: list[int] = field(default_factory=lambda: [0])

    def frame(self, rows: list[Row]) -> None:
        number = self.position + FRAME_GAP
        self.table.apply(0, rows, number)
        for kind, _, first, count in rows:
            if kind == WRITE:
                for block in range(first, first + count):
                    self.all.append((number, block, block + 1, False))
                    number += BLOCK_BYTES
            else:
                self.all.append((number - 1, first, first + count, True))
        self.position = number
        self.cuts.append(number)

    def newest(self, block: int, low: int, high: int) -> int:
        found = NOT_FOUND
        for number, first, end, zero in self.all:
            if first <= block < end and low <= number < high:
                found = max(found, number << 1 | zero)
        return found


@st.composite
def rows(draw: st.DrawFn) -> Row:
    kind = draw(st.sampled_from([WRITE, WRITE, ZERO, TRIM]))
    first = draw(st.integers(0, 20) | st.integers(0, BLOCKS - 1))
    long = st.integers(1, BLOCKS) | st.sampled_from([RANGE_BLOCKS, RANGE_BLOCKS + 1])
    count = draw(st.integers(1, 4) | long if kind == WRITE else st.integers(1, 6) | long)
    return (kind, 9, first, min(count, BLOCKS - first))


steps = st.lists(st.lists(rows(), min_size=1, max_size=4) | st.sampled_from(["freeze"]), max_size=25)


@given(steps, st.randoms(use_true_random=False))
def test_every_block_at_every_cut(history, rng) -> None:
    versions = Versions()
    for step in history:
        if step == "freeze":
            versions.table.freeze()
        else:
            versions.frame(step)
    cuts = [*versions.cuts, 1 << 60]
    for block in [*range(24), RANGE_BLOCKS - 1, RANGE_BLOCKS, BLOCKS - 1]:
        low, high = sorted(rng.choices(cuts, k=2))
        assert versions.table.newest(9, block, Interval(0, low, high)) == versions.newest(block, low, high)


def entry(table: Memtable, block: int) -> int:
    return table.newest(9, block, EVERYTHING)


def test_versions_of_other_lanes_and_volumes_are_apart() -> None:
    table = Memtable()
    table.apply(0, [(WRITE, 9, 0, 1)], 100)
    table.apply(1, [(WRITE, 9, 0, 1)], 200)
    table.apply(0, [(WRITE, 8, 0, 1)], 300)
    assert entry(table, 0) == 100 << 1
    assert table.newest(9, 0, Interval(1, 0, 1000)) == 200 << 1
    assert table.newest(8, 0, EVERYTHING) == 300 << 1
    assert table.newest(7, 0, EVERYTHING) == NOT_FOUND
    assert table.newest(9, 0, Interval(2, 0, 1000)) == NOT_FOUND


def test_order_within_a_frame_decides() -> None:
    """A zero has the number of the byte before the payload that follows it."""
    table = Memtable()
    table.apply(0, [(WRITE, 9, 0, 1), (ZERO, 9, 0, 1)], 100)
    assert entry(table, 0) & 1
    table.apply(0, [(ZERO, 9, 0, 1), (WRITE, 9, 0, 1)], 10_000)
    assert entry(table, 0) == 10_000 << 1


def test_a_terabyte_discarded_is_one_entry() -> None:
    table = Memtable()
    table.apply(0, [(TRIM, 9, 0, 1 << 28)], 100)
    assert table.count == 1
    assert entry(table, 1 << 27) & 1


@pytest.mark.parametrize(
    ("first", "count", "held"),
    [
        (0, 3, 3),
        (0, 15, 3 + 3),
        (0, 16, 1),
        (1, 255, 3 + 3 + 15),
        (0, RANGE_BLOCKS, 1),
        (1, RANGE_BLOCKS, 3 + 3 + 15 + 1),
        (1, RANGE_BLOCKS + 1, 1),
    ],
)
def test_the_count_is_what_is_held(first: int, count: int, held: int) -> None:
    """Runs and ranges as one; a range is as long as it is."""
    table = Memtable()
    table.apply(0, [(WRITE, 9, 0, 3), (ZERO, 9, first, count)], 100)
    assert table.count == 3 + held


def test_dropping_the_frozen_layer_forgets_it_and_no_more() -> None:
    table = Memtable()
    table.apply(0, [(WRITE, 9, 0, 2)], 100)
    table.freeze()
    table.apply(0, [(WRITE, 9, 1, 1)], 20_000)
    layer = table.drop_frozen()
    assert layer.count == 2
    assert entry(table, 0) == NOT_FOUND
    assert entry(table, 1) == 20_000 << 1
    assert table.count == 1
