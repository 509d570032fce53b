"""Frames of this site's own journal: what a sound one says, and writing what belongs there back.

What came from the peer is written only where it fits exactly between what stands before and after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.history.unread import read_frame
from engine.journal.format import segment_path
from engine.journal.reader import BadFrame
from engine.journal.segments import Segment
from engine.ports.awaited import synced
from engine.ports.disk import DiskFile
from protocol.errors import Corruption, FarshoreError, Mismatch
from protocol.events import LAST_DATA_KIND, WRITE
from protocol.frames import Frame, FrameError, check_frame
from protocol.limits import BLOCK_BYTES
from protocol.positions import Cut
from protocol.rows import pack_row

if TYPE_CHECKING:
    from engine.group.group import Group


def lane_of(group: Group, timeline: int) -> int:
    """The lane of a timeline's versions; of a base, its own."""
    base = next((base for base in group.timelines.bases if base.timeline == timeline), None)
    return base.lane if base is not None else group.timelines.get(timeline).lane


def digest_before(group: Group, timeline: int, position: int) -> bytes | None:
    """What the frame at a position continues; None if that cannot be read, too."""
    try:
        return group.reader.digest_at(group.timelines, timeline, position)
    except (BadFrame, FarshoreError):
        return None


def frame_at(group: Group, timeline: int, position: int) -> Frame | None:
    """The frame that stands at a position, if it is sound."""
    prefix = group.reader.prefix_at(timeline, position)
    if prefix is None:
        return None
    digest = digest_before(group, timeline, position)
    try:
        return next(iter(group.reader.frames(timeline, position, prefix.end, digest)))
    except (BadFrame, Corruption):
        return None


def frame_holding(group: Group, lane: int, number: int) -> Frame | None:
    """The frame within which a version number lies, if it is here and sound."""
    segment = group.segments.holding(lane, number)
    if segment is None:
        return None
    for prefix in group.reader.prefixes(segment.timeline, segment.start, number + 1):
        if prefix.position <= number < prefix.end:
            return frame_at(group, segment.timeline, prefix.position)
    return None


def content_of(frame: Frame, volume: int, block: int, number: int, count: int = 1) -> bytes | None:
    """What a sound frame says of the version of that number: the bytes of `count` blocks, None for zeroes.
    Corruption if it says nothing of it."""
    at = frame.prefix.payload_at
    with memoryview(frame.raw) as raw:
        for row in read_frame(frame).rows:
            if row[0] == WRITE:
                _, row_volume, first, blocks = row
                here = first <= block and block + count <= first + blocks
                if row_volume == volume and here and number == at + (block - first) * BLOCK_BYTES:
                    offset = number - frame.prefix.position
                    return bytes(raw[offset : offset + count * BLOCK_BYTES])
                at += blocks * BLOCK_BYTES
            elif row[0] <= LAST_DATA_KIND and number == at - 1:
                _, row_volume, first, blocks = row
                if row_volume == volume and first <= block and block + count <= first + blocks:
                    return None
    raise Corruption("the journal has no such version", position=str(number))


def record_value(frame: Frame, position: int) -> bytes:
    """The row of `records` for the event at a position, by a sound frame."""
    prefix = frame.prefix
    return pack_row((prefix.utc_ns, prefix.position, read_frame(frame).rows[position - prefix.position]))


def check_frames(group: Group, timeline: int, position: int, end: int, frames: list[Frame]) -> None:
    """Mismatch unless the frames fit exactly between what stands before and after them here."""
    digest = digest_before(group, timeline, position)
    at = position
    try:
        for frame in frames:
            if frame.prefix.position != at or frame.prefix.timeline != timeline:
                raise FrameError(f"frames of another place came for {Cut(timeline, at)}")
            check_frame(frame.prefix, frame.raw, digest)
            at, digest = frame.prefix.end, frame.prefix.digest
        if at != end:
            raise FrameError(f"they end at {at}, not at {end}")
        following = group.reader.prefix_at(timeline, end)
        if following is not None:
            next(iter(group.reader.frames(timeline, end, following.end, digest)))
    except FrameError as error:
        raise Mismatch(
            f"the peer's frames do not fit in here: {error}",
            subject=group.name,
            position=str(Cut(timeline, position)),
            next_step=f"`farshore pair show {group.name}`",
        ) from error


async def write_frames(group: Group, frames: list[Frame]) -> None:
    """Frames to where they belong, durably; `check_frames` first."""
    files: dict[str, DiskFile] = {}
    for frame in frames:
        segment = _segment_for(group, frame, frames[-1].prefix.end)
        file = group.segments.file(segment)
        file.pwrite(frame.raw, frame.prefix.position - segment.start)
        files[segment.path] = file
    await synced(group.disk, list(files.values()))


async def write_block(group: Group, lane: int, number: int, content: bytes) -> None:
    """A block's bytes into the journal, where the index says that they stand."""
    segment = group.segments.holding(lane, number)
    if segment is None:
        raise Corruption("the segment of these bytes has gone", position=str(number))
    file = group.segments.file(segment)
    file.pwrite(content, number - segment.start)
    await synced(group.disk, [file])


def _segment_for(group: Group, frame: Frame, end: int) -> Segment:
    """The segment that a frame belongs in; made anew if its file has gone."""
    prefix = frame.prefix
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
    group.segments.add(segment, lane_of(group, segment.timeline), file)
    return segment
