"""One volume between the two cuts of a base: which blocks to look at, and what each of them is."""

from __future__ import annotations

from collections import deque

from engine.group.core import GroupCore
from engine.history.timelines import holds
from engine.history.visibility import visibility
from engine.history.volumes import Volume
from engine.index.changes import ChangeScan
from engine.index.view import Place, ReadBatch, VolumeView
from protocol.events import WRITE, ZERO
from protocol.positions import Cut


class VolumeWalk:
    """`volume` at `cut`, and at `start` (None: on nothing) if it was there then. `after` is the first."""

    def __init__(self, group: GroupCore, volume: Volume, cut: Cut, start: Cut | None) -> None:
        self.volume = volume
        self.blocks = group.volumes.most_blocks(volume.id)
        self.after = _view(group, volume, cut)
        self._before: VolumeView | None = None
        if start is not None:
            spans = group.timelines.lineage(start.timeline, start.position)
            if holds(spans, volume.timeline, volume.id):
                self._before = _view(group, volume, start)
        self._group = group

    def scan(self, first: int) -> ChangeScan:
        """Candidates from block `first` on."""
        return ChangeScan(
            store=self._group.store,
            memtable=self._group.memtable,
            volume=self.volume.id,
            blocks=self.blocks,
            before=self._before.intervals if self._before else (),
            after=self.after.intervals,
            first=first,
        )

    def kind(self, batch: ReadBatch, block: int) -> int:
        """WRITE or ZERO if the block differs, else 0."""
        after = self.after.find(batch, block)
        before = self._before.find(batch, block) if self._before else None
        if _place(after) == _place(before):
            return 0
        return ZERO if after is None else WRITE

    def run(self, batch: ReadBatch, candidates: deque[int], room: int) -> tuple[int, int, int]:
        """Take the next candidates that are neighbours and of one kind: (kind, first block, blocks)."""
        first = candidates.popleft()
        kind, count = self.kind(batch, first), 1
        while count < room and candidates and candidates[0] == first + count:
            if self.kind(batch, candidates[0]) != kind:
                break
            candidates.popleft()
            count += 1
        return kind, first, count


def _place(place: Place | None) -> tuple[int, int] | None:
    return (place.lane, place.number) if place else None


def _view(group: GroupCore, volume: Volume, cut: Cut) -> VolumeView:
    return VolumeView(
        volume=volume.id,
        size_bytes=volume.size_bytes,
        intervals=visibility(group.timelines, group.volumes, volume.id, cut.timeline, cut.position),
        memtable=group.memtable,
        segments=group.segments,
        store=group.store,
    )
