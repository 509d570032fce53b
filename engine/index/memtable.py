"""The memtable: every version since the last checkpoint, in RAM, newest last.

Nothing is dropped when a block is written again: exports at a cut, reverts and the next checkpoint need the
versions in between. Readers filter by visibility.

An entry is one integer, `number << 1 | zero`: the version's number (position of its bytes in the journal) and
whether it reads as zeroes. A block with one version maps straight to its entry; with more, to a chain
(entry, older chain or entry), so that a write costs one look-up and one store. Zeroed ranges over
`RANGE_BLOCKS` stay ranges: a discarded terabyte must not become a quarter of a billion entries.

Layers: a checkpoint freezes the current layer and drops it whole once its versions are in LMDB.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.history.visibility import Interval
from protocol.events import WRITE, Row
from protocol.limits import BLOCK_BYTES

RANGE_BLOCKS = 256
# Blocks of a region, as a shift: those of `engine.index.versions`.
REGION_SHIFT = 14
NOT_FOUND = -1

Chain = int | tuple[int, "Chain"]  # entry, or (entry, what was before it)


class VolumeVersions:
    """Versions of one volume in one lane within one layer."""

    __slots__ = ("blocks", "ranges", "regions")

    def __init__(self) -> None:
        self.blocks: dict[int, Chain] = {}
        self.regions: set[int] = (
            set()
        )  # those that have blocks here: what is in no order can be skipped by it
        self.ranges: list[tuple[int, int, int]] = []  # (entry, first block, end block), oldest first

    def newest(self, block: int, low: int, high: int) -> int:
        """The newest entry of `block` numbered in [low, high), or NOT_FOUND. All three as block and
        numbers."""
        low, high = low << 1, high << 1
        found = NOT_FOUND
        chain = self.blocks.get(block)
        while chain is not None:
            if isinstance(chain, int):
                entry, chain = chain, None
            else:
                entry, chain = chain
            if entry < high:
                if entry >= low:
                    found = entry
                break
        for entry, first, end in reversed(self.ranges):
            if first <= block < end and low <= entry < high:
                return max(found, entry)
        return found


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
    """Layers, oldest first; writes go to the last."""

    def __init__(self) -> None:
        self.layers: list[Layer] = [Layer()]

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
                blocks = versions.blocks
                versions.regions.add(first >> REGION_SHIFT)
                if count > 1:
                    versions.regions.add(first + count - 1 >> REGION_SHIFT)
                for block in range(first, first + count):
                    before = blocks.get(block)
                    entry = number << 1
                    blocks[block] = entry if before is None else (entry, before)
                    number += BLOCK_BYTES
                layer.count += count
            elif kind <= 3:
                self._zero(layer, lane, row, (number - 1) << 1 | 1)

    def _zero(self, layer: Layer, lane: int, row: Row, entry: int) -> None:
        _, volume, first, count = row
        versions = layer.volume(lane, volume)
        if count > RANGE_BLOCKS:
            versions.ranges.append((entry, first, first + count))
            layer.count += 1
            return
        blocks = versions.blocks
        versions.regions.update((first >> REGION_SHIFT, first + count - 1 >> REGION_SHIFT))
        for block in range(first, first + count):
            before = blocks.get(block)
            blocks[block] = entry if before is None else (entry, before)
        layer.count += count

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
        return self.layers.pop(0)
