"""Mending what is damaged at this site: from its own journal where that suffices, else from the peer.

Frames are fetched by (timeline, position), checked as any frame that comes from a peer, and only if the next
one here continues them, written over what stands there, durably. A version's bytes are its frame's, if the
frame is sound; else the block as the peer shows it at a cut that sees this version, which must have the
checksum that the index has for it. Rows of the index are put by the indexer, its one writer.

Nothing is taken off the list of damage before it was looked at again and found whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from crc32c import crc32c

from engine.index.requests import IndexRequest
from engine.index.runs import exact_version, place_of, row_holding, row_value, version_in, versions_in
from engine.index.versions import (
    RECORD_KEY,
    STORED_HEAD_BYTES,
    IndexedVersion,
    check_bytes,
    stored_bytes,
    stored_value,
    version_key,
    version_value,
)
from engine.index.view import ZERO_BLOCK
from engine.integrity.damage import sees
from engine.integrity.faults import VERSION_FAULTS, Damage, Fault
from engine.integrity.index_repair import RepairIndex
from engine.integrity.own_frames import (
    check_frames,
    content_of,
    digest_before,
    frame_at,
    frame_holding,
    lane_of,
    record_value,
    write_block,
    write_frames,
)
from engine.integrity.verify import Stretch
from engine.integrity.verify_slices import JournalSlice, VerifyJournal
from protocol.errors import Busy, Corruption, FarshoreError, Mismatch, NotFound, Unreachable, WrongState
from protocol.frames import Frame
from protocol.limits import BLOCK_BYTES
from protocol.positions import Cut

if TYPE_CHECKING:
    from engine.group.group import Group

# How often a block's question is asked again of a peer that is busy or behind, and how long after.
PEER_WAITS = 20
PEER_WAIT_S = 0.25

Ask = Callable[["Group", IndexRequest], Awaitable[tuple[int, ...]]]


class RepairSource(Protocol):
    """The peer, or whoever else holds the same history (engine.peering.peer_requests)."""

    def frames(self, timeline: int, start: int, end: int) -> AsyncIterator[Frame]:
        """Frames of a timeline from the boundary `start` up to `end`, bodies checked."""

    async def blocks_at(self, volume: int, cut: Cut, blocks: Sequence[int]) -> list[bytes | None]:
        """Each block's bytes at a cut; None where they are damaged there, too."""


class Repair:
    """One run of mending. `source` is None where there is nobody to ask; `ask` asks the indexer."""

    def __init__(self, group: Group, source: RepairSource | None, ask: Ask) -> None:
        self._group = group
        self._source = source
        self._ask = ask

    async def mend(self, damage: Damage) -> list[Damage]:
        """Mend one damaged thing. Returns what came to light behind it. FarshoreError says why it is still
        damaged; Unreachable: as will be whatever else only the peer has."""
        if damage.fault is Fault.FRAME:
            return await self._repair_frames(damage)
        if damage.fault is Fault.RECORD:
            await self._repair_record(damage)
        elif damage.fault in VERSION_FAULTS:
            await self._repair_version(damage)
            if not self._whole(damage):
                raise Mismatch("it was mended, and is still not what was written", position=damage.position)
        elif damage.fault is Fault.UNREAD:
            raise WrongState(
                "it is as it was written, and the same at every site",
                subject=self._group.name,
                position=damage.position,
                next_step="the version that wrote it reads it; docs/durability.md says what else there is",
            )
        else:
            raise WrongState("only a whole round of verification can say", next_step="add --deep")
        return []

    def _peer(self) -> RepairSource:
        if self._source is None:
            raise NotFound(
                f"{self._group.name} has no peer to mend from",
                subject=self._group.name,
                next_step="restore the volume from a cut that is whole",
            )
        return self._source

    # -- the journal

    async def _repair_frames(self, damage: Damage) -> list[Damage]:
        timeline, position, end, _ = damage.place
        found = await self._look_again(damage)
        if any(each.fault is Fault.FRAME for each in found):
            frames = [frame async for frame in self._peer().frames(timeline, position, end)]
            check_frames(self._group, timeline, position, end, frames)
            await write_frames(self._group, frames)
            found = await self._look_again(damage)
        if any(each.fault is Fault.FRAME for each in found):
            raise Mismatch("its frames were written again, and are still damaged", position=damage.position)
        return found

    async def _look_again(self, damage: Damage) -> list[Damage]:
        """What is damaged in a stretch of the journal now."""
        timeline, position, end, _ = damage.place
        stretch = Stretch(
            timeline=timeline,
            lane=lane_of(self._group, timeline),
            start=position,
            end=end,
            digest=digest_before(self._group, timeline, position),
            indexed=self._group.checkpoints.reached,
        )
        request = VerifyJournal(stretch=stretch, bytes_max=end - position)
        return list(JournalSlice.from_figures(await self._ask(self._group, request)).damage)

    # -- the index

    async def _repair_record(self, damage: Damage) -> None:
        timeline, position, frame_position, _ = damage.place
        frame = frame_at(self._group, timeline, frame_position)
        if frame is None:
            raise Corruption("its frame cannot be read, too", position=damage.position)
        value = record_value(frame, position)
        key = RECORD_KEY.pack(timeline, position)
        await self._ask(self._group, RepairIndex(table="records", key=key, value=value))

    async def _repair_version(self, damage: Damage) -> None:
        if self._whole(damage):
            return
        lane, volume, block, number = damage.version
        key = version_key(lane, volume, block, number)
        frame = frame_holding(self._group, lane, number)
        if frame is not None:
            await self._repair_row(damage, frame)
            return
        if damage.is_run:
            raise Corruption("its frame cannot be read, too", position=damage.position)
        content = await self._from_peer(damage)
        version = self._row(damage)
        if version is not None:
            check_bytes(version, content)
            if not version.tail:
                await write_block(self._group, lane, number, content)
                return
        elif content == ZERO_BLOCK and not self._has_stored(key):
            await self._ask(
                self._group, RepairIndex(table="versions", key=key, value=version_value(key, None))
            )
            return
        else:
            version = IndexedVersion(number, False, crc32c(content, crc32c(key)), key)
        value = stored_value(version.crc, content)
        head = content[:STORED_HEAD_BYTES]
        await self._ask(self._group, RepairIndex(table="versions", key=key, value=value, head=head))

    async def _repair_row(self, damage: Damage, frame: Frame) -> None:
        """Put the row that a sound frame gives: the version's own, or that of the run it is in."""
        lane, volume, block, number = damage.version
        key = version_key(lane, volume, block, number)
        with self._group.store.read() as transaction:
            if (row := row_holding(transaction, *damage.version)) is not None:
                key = row[0]
        _, volume, first, blocks, number = place_of(key)
        value = row_value(key, content_of(frame, volume, first, number, blocks))
        await self._ask(self._group, RepairIndex(table="versions", key=key, value=value))
        self._group.memtable.index_changed()

    def _row(self, damage: Damage) -> IndexedVersion | None:
        """A version as its row says it, if there is one that can be read."""
        try:
            with self._group.store.read() as transaction:
                return exact_version(transaction, *damage.version)
        except Corruption:
            return None

    def _has_stored(self, key: bytes) -> bool:
        with self._group.store.read() as transaction:
            return transaction.get("blocks", key) is not None

    def _whole(self, damage: Damage) -> bool:
        """Whether a version can be read as it was written. One whose row was truncated away is no damage."""
        lane = damage.version[0]
        with self._group.store.read() as transaction:
            row = row_holding(transaction, *damage.version)
            if row is None:
                return damage.fault is not Fault.ROW_MISSING
            try:
                block = damage.version[2]
                for version in versions_in(*row) if damage.is_run else [version_in(*row, block)]:
                    if version.tail:
                        check_bytes(version, stored_bytes(transaction, version))
                    elif not version.zero:
                        data = self._group.segments.read_bytes(lane, version.number, BLOCK_BYTES)
                        check_bytes(version, data)
            except Corruption:
                return False
        return True

    # -- where the right bytes are

    async def _from_peer(self, damage: Damage) -> bytes:
        """The block as the peer shows it at a cut that sees the version."""
        source = self._peer()
        _, volume, block, _ = damage.version
        reason: FarshoreError = NotFound(
            "no cut that is kept shows it", subject=self._group.name, position=damage.position
        )
        waits = PEER_WAITS
        for cut in self._cuts(damage):
            while True:
                try:
                    (content,) = await source.blocks_at(volume, cut, [block])
                except Unreachable:  # each cut of thousands would wait for the same silence
                    raise
                except (Busy, WrongState) as error:  # it has no turn for this site, or has not come so far
                    reason = error
                    if waits > 0:
                        waits -= 1
                        await asyncio.sleep(PEER_WAIT_S)
                        continue
                    if isinstance(error, Busy):  # so it is for every other cut
                        raise
                except FarshoreError as error:
                    reason = error
                else:
                    if content is not None:
                        return content
                    reason = Corruption("it is damaged at the peer, too", position=str(cut))
                break
        raise reason

    def _cuts(self, damage: Damage) -> Iterator[Cut]:
        """Cuts that see a version and can be read here: backups first, which both sites keep."""
        group = self._group
        lane, _, _, number = damage.version
        head = group.spans(group.writer.written)
        candidates = [copy.cut for copy in group.copies.at(head)]
        horizon = group.kept.horizon()
        candidates += [horizon] if horizon is not None else []
        segment = group.segments.holding(lane, number)
        if segment is not None:
            for prefix in group.reader.prefixes(segment.timeline, segment.start, number + 1):
                if prefix.end > number:
                    candidates.append(Cut(segment.timeline, prefix.end))
        candidates.append(group.end)
        for cut in dict.fromkeys(candidates):
            if group.kept.readable(cut) and self._seen_at(damage, cut):
                yield cut

    def _seen_at(self, damage: Damage, cut: Cut) -> bool:
        group = self._group
        spans = group.timelines.lineage(cut.timeline, cut.position)
        for volume in group.volumes.at(spans).values():
            if volume.id == damage.version[1]:
                view = group.kept.view_at(volume.name, cut)
                with view.batch() as batch:
                    return sees(view, batch, damage)
        return False
