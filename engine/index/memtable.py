"""The memtable: every version since the last checkpoint, in RAM, newest last.

Nothing is dropped when a block is written again: exports at a cut, reverts and the next checkpoint need the
versions in between. Readers filter by visibility.

An entry is one integer, `number << 1 | zero`: the version's number (position of its bytes in the journal) and
whether it reads as zeroes. A block with one version maps straight to its entry; with more, to a chain
(entry, older chain or entry), so that a write costs one look-up and one store. Of a large write, runs of
blocks are one entry, which is that of the run's first block (`engine.index.runs`). Zeroed ranges over
`RANGE_BLOCKS` stay ranges: a discarded terabyte must not become a quarter of a billion entries.

Layers: a checkpoint freezes the current layer and drops it whole once its versions are in LMDB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.history.visibility import Interval
from engine.index.levels import pieces, run_blocks
from protocol.events import WRITE, Row
from protocol.limits import BLOCK_BYTES

RANGE_BLOCKS = 256
# Blocks of a region, as a shift.
REGION_SHIFT = 14
NOT_FOUND = -1

Chain = int | tuple[int, "Chain"]  # entry, or (entry, what was before it)


class VolumeVersions:
    """Versions of one volume in one lane within one layer. `runs` are chains by first block, of each level
    from 1 on. `regions` have blocks here: what is in no order can be skipped by it."""

    __slots__ = ("blocks", "ranges", "regions", "runs")

    def __init__(self) -> None:
        self.blocks: dict[int, Chain] = {}
        self.runs: tuple[dict[int, Chain], ...] = ({}, {}, {})
        self.regions: set[int] = set()
        self.ranges: list[tuple[int, int, int]] = []  # (entry, first block, end block), oldest first

    def newest(self, block: int, low: int, high: int) -> int:
        """The newest entry of `block` numbered in [low, high), or NOT_FOUND. All three as block and
        numbers."""
        low, high = low << 1, high << 1
        found = NOT_FOUND
        chain = self.blocks.get(block)
        if chain is not None:
            found = _in_chain(chain, low, high, 0)
        for level, runs in enumerate(self.runs, 1):
            if runs:
                first = block & -run_blocks(level)
                chain = runs.get(first)
                if chain is not None:
                    found = max(found, _in_chain(chain, low, high, (block - first) * BLOCK_BYTES << 1))
        for entry, first, end in reversed(self.ranges):
            if first <= block < end and low <= entry < high:
                return max(found, entry)
        return found

    def add(self, first: int, count: int, entry: int) -> int:
        """Add versions of `count` blocks, the first of which has this entry; how many entries they took."""
        step = 0 if entry & 1 else BLOCK_BYTES << 1
        added = 0
        # A frame's payload, and RANGE_BLOCKS, are smaller than a region.
        self.regions.update((first >> REGION_SHIFT, first + count - 1 >> REGION_SHIFT))
        for level, start, size in pieces(first, count):
            if level:
                self._push(self.runs[level - 1], start, entry)
                entry += size * step
                added += 1
                continue
            for block in range(start, start + size):
                self._push(self.blocks, block, entry)
                entry += step
            added += size
        return added

    @staticmethod
    def _push(chains: dict[int, Chain], key: int, entry: int) -> None:
        before = chains.get(key)
        chains[key] = entry if before is None else (entry, before)

    def within(self, first: int, end: int) -> set[int]:
        """Blocks in [first, end) with any version, but for ranges."""
        found = set(_keys_within(self.blocks, first, end, 1))
        for level, runs in enumerate(self.runs, 1):
            size = run_blocks(level)
            for start in _keys_within(runs, first & -size, end, size):
                found.update(range(max(first, start), min(end, start + size)))
        return found

    def pop(self, most: int) -> bool:
        """Free up to `most` chains; whether none is left."""
        for chains in (*self.runs, self.blocks):
            taken = min(most, len(chains))
            most -= taken
            for _ in range(taken):
                chains.popitem()
        return not len(self)

    def __len__(self) -> int:
        return len(self.blocks) + sum(map(len, self.runs))


def _in_chain(chain: Chain | None, low: int, high: int, skip: int) -> int:
    """The newest entry of a chain in [low, high), all doubled; that of a block is `skip` past its run's,
    unless it is zeroes."""
    while chain is not None:
        if isinstance(chain, int):
            entry, chain = chain, None
        else:
            entry, chain = chain
        if not entry & 1:
            entry += skip
        if entry < high:
            return entry if entry >= low else NOT_FOUND
    return NOT_FOUND


def _keys_within(chains: dict[int, Chain], first: int, end: int, step: int) -> Iterator[int]:
    if len(chains) * step < end - first:
        return (key for key in chains if first <= key < end)
    return (key for key in range(first, end, step) if key in chains)


class Layer:
    """Versions numbered from one checkpoint to the next."""

    __slots__ = ("count", "volumes")

    def __init__(self) -> None:
        self.volumes: dict[tuple[int, int], VolumeVersions] = {}
        self.count = 0

    def volume(self, lane: int, volume: int) -> VolumeVersions:
        """The versions of (lane, volume), made empty if there are none."""
        found = self.volumes.get((lane, volume))
        if found is None:
            found = self.volumes[lane, volume] = VolumeVersions()
        return found


class Memtable:
    """Layers, oldest first; writes go to the last. `levels`: at which levels the index has rows, by lane and
    volume, as readers find out; one who found it out of an older state of the index keeps the older dict."""

    def __init__(self) -> None:
        self.layers: list[Layer] = [Layer()]
        self.levels: dict[tuple[int, int], tuple[int, ...]] = {}

    @property
    def count(self) -> int:
        """Versions held, ranges counted as one: the measure of memory."""
        return sum(layer.count for layer in self.layers)

    def apply(self, lane: int, rows: Sequence[Row], payload_at: int) -> None:
        """Take in the data rows of one frame, in order, whose payload begins at position `payload_at`."""
        layer = self.layers[-1]
        number = payload_at
        for row in rows:
            kind = row[0]
            if kind == WRITE:
                _, volume, first, count = row
                versions = layer.volume(lane, volume)
                if count == 1:
                    blocks = versions.blocks
                    before = blocks.get(first)
                    entry = number << 1
                    blocks[first] = entry if before is None else (entry, before)
                    versions.regions.add(first >> REGION_SHIFT)
                    layer.count += 1
                else:
                    layer.count += versions.add(first, count, number << 1)
                number += count * BLOCK_BYTES
            elif kind <= 3:
                self._zero(layer, lane, row, (number - 1) << 1 | 1)

    def _zero(self, layer: Layer, lane: int, row: Row, entry: int) -> None:
        _, volume, first, count = row
        versions = layer.volume(lane, volume)
        if count > RANGE_BLOCKS:
            versions.ranges.append((entry, first, first + count))
            layer.count += 1
        else:
            layer.count += versions.add(first, count, entry)

    def newest(self, volume: int, block: int, interval: Interval) -> int:
        """The newest entry of a block within an interval, or NOT_FOUND."""
        lane, low, high = interval
        for layer in reversed(self.layers):
            versions = layer.volumes.get((lane, volume))
            if versions is not None:
                found = versions.newest(block, low, high)
                if found != NOT_FOUND:
                    return found
        return NOT_FOUND

    def freeze(self) -> None:
        """Begin a new layer; everything so far belongs to the checkpoint that starts now."""
        self.layers.append(Layer())

    def drop_frozen(self) -> Layer:
        """Forget the oldest layer: its versions are in LMDB. Returned so that the caller frees it in
        slices."""
        self.index_changed()
        return self.layers.pop(0)

    def index_changed(self) -> None:
        """The index may have rows at levels at which it had none; to be said before anybody reads them. Not
        said of runs that fall apart (`engine.index.runs.levels_of`)."""
        self.levels = {}
