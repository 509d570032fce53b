"""The levels of rows in `versions`: single blocks, and runs of them by powers of two (`engine.index.runs`).

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator

# Blocks of a run at each level, as a power of two.
RUN_SHIFTS = (4, 8)
LEVEL_SHIFT = 56
FIRST_MASK = (1 << LEVEL_SHIFT) - 1
ALL_LEVELS = (1, 2)


def run_blocks(level: int) -> int:
    """Blocks of a run at a level; of level 0, one."""
    return 1 << RUN_SHIFTS[level - 1] if level else 1


def tagged(level: int, first: int) -> int:
    """The field `block` of a run's key."""
    return level << LEVEL_SHIFT | first


def level_and_first(block: int) -> tuple[int, int]:
    """Level and first block that a key's field `block` means."""
    return block >> LEVEL_SHIFT, block & FIRST_MASK


def blocks_at(block: int) -> range:
    """The blocks that a row with this field `block` is of."""
    level, first = level_and_first(block)
    return range(first, first + run_blocks(level)) if level <= len(RUN_SHIFTS) else range(0)


def pieces(first: int, count: int) -> Iterator[tuple[int, int, int]]:
    """(level, first block, blocks) of the pieces of a write, in order. Level 0 may be several blocks, each a
    version of its own."""
    (low, high), end = RUN_SHIFTS, first + count
    small, large = 1 << low, 1 << high
    while first < end:
        if not first & (large - 1) and end - first >= large:
            yield 2, first, large
            first += large
        elif not first & (small - 1) and end - first >= small:
            yield 1, first, small
            first += small
        else:
            stop = min(end, (first | (small - 1)) + 1)
            yield 0, first, stop - first
            first = stop
