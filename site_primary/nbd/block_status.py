"""What a host may ask of a range by BLOCK_STATUS: what holds data, and what changed since a cut.

    base:allocation               bits 0 and 1: a hole, reads as zeroes
    farshore:changed-since/CUT    bit 0: may differ from what the volume held at CUT (never one too few)

CUT is a label, backup id, RFC 3339 time or TIMELINE:POSITION. An answer may end before the range asked for,
as the protocol allows: work on one request is bounded, so that one host's map does not hold up the others.

Source: NBD proto.md, "Metadata querying", "`base:allocation` metadata context".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from engine.history.visibility import Interval
from engine.index.changes import SLICE_ROWS, ChangeScan
from engine.index.extents import extend_stretches, trim_stretches
from protocol.limits import BLOCK_BYTES
from protocol.nbd.constants import BlockState
from site_primary.nbd.exports import Export

CHANGED_SINCE = "farshore:changed-since/"
CHANGED = 1

_HOLE = int(BlockState.HOLE) | int(BlockState.ZERO)
# QEMU asks for one extent at a time: a full slice for each would make a map quadratic.
ONE_SLICE_ROWS = 64
# A slice over the memtable covers 32 MiB however little changed in it.
SLICES_MAX = 4


class StatusMap(Protocol):
    """One metadata context of one connection."""

    def extents(self, offset: int, length: int, *, only_one: bool) -> list[tuple[int, int]]:
        """(bytes, flags) of neighbouring stretches from `offset`: at least one, and no more than `length`
        bytes in all. Corruption or OSError if the index cannot be read."""

    def close(self) -> None:
        """The connection is gone."""


class Allocation:
    """`base:allocation` of an export, as it is when asked."""

    def __init__(self, export: Export) -> None:
        self._export = export

    def extents(self, offset: int, length: int, *, only_one: bool) -> list[tuple[int, int]]:
        """See `StatusMap.extents`."""
        stretches = self._export.view.extents(offset, length, only_one=only_one)
        return [(size, 0 if data else _HOLE) for size, data in stretches]

    def close(self) -> None:
        """See `StatusMap.close`."""


class ChangedSince:
    """`farshore:changed-since/CUT` of an export. `before` is what the volume saw at the cut, which its lease
    keeps whole until `release`: after a restore a difference may lie in versions that only that cut needs."""

    def __init__(self, export: Export, before: tuple[Interval, ...], release: Callable[[], None]) -> None:
        self._export = export
        self._before = before
        self._release = release

    def extents(self, offset: int, length: int, *, only_one: bool) -> list[tuple[int, int]]:
        """See `StatusMap.extents`."""
        group, view = self._export.group.history, self._export.view
        first, end = offset // BLOCK_BYTES, -(-(offset + length) // BLOCK_BYTES)
        scan = ChangeScan(
            store=group.store,
            memtable=group.memtable,
            volume=view.volume,
            blocks=end,
            before=self._before,
            after=view.intervals,
            first=first,
        )
        rows_max = ONE_SLICE_ROWS if only_one else SLICE_ROWS // 2
        stretches: list[tuple[int, bool]] = []
        at = first
        for _ in range(SLICES_MAX):
            for block in scan.slice(rows_max):
                extend_stretches(stretches, block - at, False)
                extend_stretches(stretches, 1, True)
                at = block + 1
            stop = end if scan.done else scan.next_block
            extend_stretches(stretches, stop - at, False)
            at = stop
            if scan.done or scan.rows >= rows_max or (only_one and len(stretches) > 1):
                break
        sized = [(blocks * BLOCK_BYTES, changed) for blocks, changed in stretches]
        kept = trim_stretches(sized, offset - first * BLOCK_BYTES, length)
        return [(size, CHANGED if changed else 0) for size, changed in kept]

    def close(self) -> None:
        """See `StatusMap.close`."""
        self._release()
