"""The levels of rows in `versions`: single blocks, and runs of them by powers of two (`engine.index.runs`).

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

# Blocks of a run at each level, as a power of two.
RUN_SHIFTS = (2, 4, 8)
LEVEL_SHIFT = 56
FIRST_MASK = (1 << LEVEL_SHIFT) - 1
ALL_LEVELS = (1, 2, 3)


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


def pieces(first: int, count: int) -> Iterable[tuple[int, int, int]]:
    """(level, first block, blocks) of the pieces of a write, in order. Level 0 may be several blocks, each a
    version of its own."""
    return _cut(first, first + count) if count >= run_blocks(1) else ((0, first, count),)


def _cut(first: int, end: int) -> Iterator[tuple[int, int, int]]:
    least = run_blocks(1)
    while first < end:
        level = _level_at(first, end - first)
        size = run_blocks(level) if level else min(end, (first | (least - 1)) + 1) - first
        yield level, first, size
        first += size


def _level_at(first: int, blocks: int) -> int:
    """The highest level of which a run begins here and goes no further than `blocks`."""
    for level in reversed(ALL_LEVELS):
        size = run_blocks(level)
        if not first & (size - 1) and blocks >= size:
            return level
    return 0
