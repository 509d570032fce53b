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

from engine.history.unread import read_frame
from engine.index.requests import IndexRequest
from engine.index.versions import (
    RECORD_KEY,
    STORED_HEAD_BYTES,
    IndexedVersion,
    check_bytes,
    read_version,
    stored_bytes,
    stored_value,
    version_key,
    version_value,
)
from engine.index.view import ZERO_BLOCK
from engine.integrity.damage import sees
from engine.integrity.faults import VERSION_FAULTS, Damage, Fault
from engine.integrity.mending import MendIndex
from engine.integrity.verify import Stretch
from engine.integrity.verify_slices import JournalSlice, VerifyJournal
from engine.journal.format import segment_path
from engine.journal.reader import BadFrame
from engine.journal.segments import Segment
from engine.ports.disk import DiskFile
from protocol.errors import Busy, Corruption, FarshoreError, Mismatch, NotFound, Unreachable, WrongState
from protocol.events import LAST_DATA_KIND, WRITE
from protocol.frames import Frame, FrameError, check_frame
from protocol.limits import BLOCK_BYTES
from protocol.positions import Cut
from protocol.rows import pack_row

if TYPE_CHECKING:
    from engine.group.group import Group

# How often a block's question is asked again of a peer that is busy or behind, and how long after.
PEER_WAITS = 20
PEER_WAIT_S = 0.25

Ask = Callable[["Group", IndexRequest], Awaitable[tuple[int, ...]]]


class RepairSource(Protocol):
    """The peer, or whoever else holds the same history (engine.peering.peer_questions)."""

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
            return await self._mend_frames(damage)
        if damage.fault is Fault.RECORD:
            await self._mend_record(damage)
        elif damage.fault in VERSION_FAULTS:
            await self._mend_version(damage)
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

    async def _mend_frames(self, damage: Damage) -> list[Damage]:
        timeline, position, end, _ = damage.place
        found = await self._look_again(damage)
        if any(each.fault is Fault.FRAME for each in found):
            frames = [frame async for frame in self._peer().frames(timeline, position, end)]
            self._check_frames(timeline, position, end, frames)
            await self._write_frames(frames)
            found = await self._look_again(damage)
        if any(each.fault is Fault.FRAME for each in found):
            raise Mismatch("its frames were written again, and are still damaged", position=damage.position)
        return found

    async def _look_again(self, damage: Damage) -> list[Damage]:
        """What is damaged in a stretch of the journal now."""
        timeline, position, end, _ = damage.place
        stretch = Stretch(
            timeline=timeline,
            lane=self._lane(timeline),
            start=position,
            end=end,
            digest=self._digest_before(timeline, position),
            indexed=self._group.checkpoints.reached,
        )
        request = VerifyJournal(stretch=stretch, bytes_max=end - position)
        return list(JournalSlice.from_figures(await self._ask(self._group, request)).damage)

    def _lane(self, timeline: int) -> int:
        group = self._group
        base = next((base for base in group.timelines.bases if base.timeline == timeline), None)
        return base.lane if base is not None else group.timelines.get(timeline).lane

    def _digest_before(self, timeline: int, position: int) -> bytes | None:
        """What the frame at a position continues; None if that cannot be read, too."""
        try:
            return self._group.reader.digest_at(self._group.timelines, timeline, position)
        except (BadFrame, FarshoreError):
            return None

    def _check_frames(self, timeline: int, position: int, end: int, frames: list[Frame]) -> None:
        """Mismatch unless the frames fit exactly between what stands before and after them here."""
        digest = self._digest_before(timeline, position)
        at = position
        try:
            for frame in frames:
                if frame.prefix.position != at or frame.prefix.timeline != timeline:
                    raise FrameError(f"frames of another place came for {Cut(timeline, at)}")
                check_frame(frame.prefix, frame.raw, digest)
                at, digest = frame.prefix.end, frame.prefix.digest
            if at != end:
                raise FrameError(f"they end at {at}, not at {end}")
            following = self._group.reader.prefix_at(timeline, end)
            if following is not None:
                next(iter(self._group.reader.frames(timeline, end, following.end, digest)))
        except FrameError as error:
            raise Mismatch(
                f"the peer's frames do not fit in here: {error}",
                subject=self._group.name,
                position=str(Cut(timeline, position)),
                next_step=f"`farshore pair show {self._group.name}`",
            ) from error

    async def _write_frames(self, frames: list[Frame]) -> None:
        group = self._group
        files: dict[str, DiskFile] = {}
        for frame in frames:
            segment = self._segment_for(frame, frames[-1].prefix.end)
            file = group.segments.file(segment)
            file.pwrite(frame.raw, frame.prefix.position - segment.start)
            files[segment.path] = file
        await self._sync(list(files.values()))

    def _segment_for(self, frame: Frame, end: int) -> Segment:
        """The segment that a frame belongs in; made anew if its file has gone."""
        group, prefix = self._group, frame.prefix
        segment = group.segments.segment_at(prefix.timeline, prefix.position)
        if segment is not None and not group.disk.exists(segment.path):
            group.segments.forget(segment)
            segment = Segment(segment.timeline, segment.start, 0)
        elif segment is None or prefix.position >= segment.start + segment.size:
            segment = Segment(prefix.timeline, prefix.position, 0)
        else:
            return segment
        segment.size = max(group.writer.segment_bytes, end - segment.start)
        file = group.disk.preallocate(segment_path(segment.timeline, segment.start), segment.size)
        group.segments.add(segment, self._lane(segment.timeline), file)
        return segment

    async def _sync(self, files: list[DiskFile]) -> None:
        synced: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
        self._group.disk.start_sync(
            files, [], lambda error: None if synced.done() else synced.set_result(error)
        )
        error = await synced
        if error is not None:
            raise error

    # -- the index

    async def _mend_record(self, damage: Damage) -> None:
        timeline, position, frame_position, _ = damage.place
        frame = self._frame_at(timeline, frame_position)
        if frame is None:
            raise Corruption("its frame cannot be read, too", position=damage.position)
        row = read_frame(frame).rows[position - frame_position]
        value = pack_row((frame.prefix.utc_ns, frame_position, row))
        key = RECORD_KEY.pack(timeline, position)
        await self._ask(self._group, MendIndex(table="records", key=key, value=value))

    async def _mend_version(self, damage: Damage) -> None:
        if self._whole(damage):
            return
        lane, volume, block, number = damage.version
        key = version_key(lane, volume, block, number)
        frame = self._frame_holding(lane, number)
        if frame is not None:
            data = _content(frame, volume, block, number)
            await self._ask(self._group, MendIndex(table="versions", key=key, value=version_value(key, data)))
            return
        content = await self._from_peer(damage)
        version = self._row(key)
        if version is not None:
            check_bytes(version, content)
            if not version.tail:
                await self._write_block(lane, number, content)
                return
        elif content == ZERO_BLOCK and not self._has_stored(key):
            await self._ask(self._group, MendIndex(table="versions", key=key, value=version_value(key, None)))
            return
        else:
            version = IndexedVersion(number, False, crc32c(content, crc32c(key)), key)
        value = stored_value(version, content)
        head = content[:STORED_HEAD_BYTES]
        await self._ask(self._group, MendIndex(table="versions", key=key, value=value, head=head))

    async def _write_block(self, lane: int, number: int, content: bytes) -> None:
        """A block's bytes into the journal, where the index says that they stand."""
        segment = self._group.segments.holding(lane, number)
        if segment is None:
            raise Corruption("the segment of these bytes has gone", position=str(number))
        file = self._group.segments.file(segment)
        file.pwrite(content, number - segment.start)
        await self._sync([file])

    def _row(self, key: bytes) -> IndexedVersion | None:
        """A version's row, if there is one that can be read."""
        with self._group.store.read() as transaction:
            value = transaction.get("versions", key)
        try:
            return read_version(key, value) if value is not None else None
        except Corruption:
            return None

    def _has_stored(self, key: bytes) -> bool:
        with self._group.store.read() as transaction:
            return transaction.get("blocks", key) is not None

    def _whole(self, damage: Damage) -> bool:
        """Whether a version can be read as it was written. One whose row was folded away is no damage."""
        lane, volume, block, number = damage.version
        key = version_key(lane, volume, block, number)
        with self._group.store.read() as transaction:
            value = transaction.get("versions", key)
            if value is None:
                return damage.fault is not Fault.ROW_MISSING
            try:
                version = read_version(key, value)
                if version.tail:
                    check_bytes(version, stored_bytes(transaction, version))
                elif not version.zero:
                    check_bytes(version, self._group.segments.read_bytes(lane, number, BLOCK_BYTES))
            except Corruption:
                return False
        return True

    # -- where the right bytes are

    def _frame_at(self, timeline: int, position: int) -> Frame | None:
        """The frame that stands at a position, if it is sound."""
        prefix = self._group.reader.prefix_at(timeline, position)
        if prefix is None:
            return None
        digest = self._digest_before(timeline, position)
        try:
            return next(iter(self._group.reader.frames(timeline, position, prefix.end, digest)))
        except (BadFrame, Corruption):
            return None

    def _frame_holding(self, lane: int, number: int) -> Frame | None:
        """The frame within which a version number lies, if it is here and sound."""
        segment = self._group.segments.holding(lane, number)
        if segment is None:
            return None
        for prefix in self._group.reader.prefixes(segment.timeline, segment.start, number + 1):
            if prefix.position <= number < prefix.end:
                return self._frame_at(segment.timeline, prefix.position)
        return None

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
        floor = group.kept.floor()
        candidates += [floor] if floor is not None else []
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


def _content(frame: Frame, volume: int, block: int, number: int) -> bytes | None:
    """What a sound frame says of the version of that number: a block's bytes, None for zeroes. Corruption if
    it says nothing of it."""
    at = frame.prefix.payload_at
    with memoryview(frame.raw) as raw:
        for row in read_frame(frame).rows:
            if row[0] == WRITE:
                _, row_volume, first, count = row
                if row_volume == volume and number == at + (block - first) * BLOCK_BYTES:
                    offset = number - frame.prefix.position
                    return bytes(raw[offset : offset + BLOCK_BYTES])
                at += count * BLOCK_BYTES
            elif row[0] <= LAST_DATA_KIND and number == at - 1:
                _, row_volume, first, count = row
                if row_volume == volume and first <= block < first + count:
                    return None
    raise Corruption("the journal has no such version", position=str(number))
