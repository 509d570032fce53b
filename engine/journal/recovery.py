"""What a journal holds after a crash: where it ends, and whether that end is a torn tail or damage.

Rule (invariant 4). Walk from the last checkpoint; the first place without a valid frame is

  corruption   if it lies below the checkpoint's or a fork's position, or, in a timeline that this site wrote,
               below the `durable` field of any valid frame that stands later: those bytes were promised.
               Reported with position, never cut.
  torn tail    otherwise: nobody was promised these bytes. Cut and reported with its range; the file is
               truncated and made durable before anything is read or appended: what is read once stays.

Example of why a later frame's `durable` decides: after power loss the disk may hold frame 7 but not frame 6.
If 7 says "durable to 6" then 6 was synced and later damaged; if it says "durable to 5", both were in flight.
A site that follows holds the writer's frames: what they call durable was so there, and may be in flight here.

A file larger than any segment is made is damage as well. Files are looked through in windows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from crc32c import crc32c

from engine.journal.format import timeline_directory
from engine.journal.reader import BadFrame, JournalReader
from engine.journal.segments import Segment, SegmentMap
from engine.ports.disk import Disk, DiskFile
from protocol.errors import Corruption
from protocol.frames import MAGIC, PREFIX_BYTES, Frame, FrameError, FramePrefix, parse_prefix
from protocol.limits import FRAME_BYTES_MAX, SEGMENT_FILE_BYTES_MAX, UNSYNCED_BYTES_MAX
from protocol.positions import POSITION_MAX, Cut

# What a failed sync left lies within the newest segments, the last of which may be mostly empty.
SETTLED_BYTES = 2 * UNSYNCED_BYTES_MAX
# Twice what a frame may have, so that each is whole in one window.
WINDOW_BYTES = 2 * FRAME_BYTES_MAX
_ZEROES = bytes(64 << 10)
SYNC_FILES_MAX = 64  # below OPEN_FILES_MAX, or opening the last would close the first


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEnd:
    """Where a timeline's valid frames end, the digest there, the last frame's time, and what was cut."""

    position: int
    digest: bytes
    utc_ns: int
    torn_bytes: int
    reason: str


def walk_to_end(
    reader: JournalReader,
    segments: SegmentMap,
    *,
    timeline: int,
    start: int,
    digest: bytes,
    promised: int,
    own: bool,
    on_frame: Callable[[Frame], None],
) -> JournalEnd:
    """Give every frame from boundary `start` to `on_frame` and find the end. Corruption if a frame below
    `promised`, or in a timeline of this site's `own` below what a later frame says is durable, is not
    valid; or if a file is too large to be a segment."""
    for each in segments.of_timeline(timeline):
        _check_size(each)
    position, utc_ns = start, 0
    reason = ""
    try:
        for frame in reader.frames(timeline, start, POSITION_MAX, digest):
            if frame.prefix.utc_ns < utc_ns:
                raise BadFrame(timeline, position, "its time is before that of the frame before it")
            on_frame(frame)
            position, digest, utc_ns = frame.prefix.end, frame.prefix.digest, frame.prefix.utc_ns
    except BadFrame as bad:
        reason = bad.reason
    witness = _later_promise(segments, timeline, position) if own else None
    if position < promised or witness is not None:
        detail = f"a frame at {witness.position} says it is durable" if witness else "it was durable"
        error = Corruption(
            f"the journal is damaged at {Cut(timeline, position)} ({reason}), and {detail}",
            subject=(segment.path if (segment := segments.segment_at(timeline, position)) else "journal"),
            position=str(Cut(timeline, position)),
            next_step="nothing was cut; restore the file, or read the volumes at the peer",
        )
        raise name_stray(reader, segments, timeline, error)
    torn = sum(nonzero_from(segments, segment, position) for segment in segments.of_timeline(timeline))
    return JournalEnd(position=position, digest=digest, utc_ns=utc_ns, torn_bytes=torn, reason=reason)


def settle(disk: Disk, segments: SegmentMap, timeline: int, start: int) -> None:
    """Make the journal from `start` on what it is read as: the run before may have ended on a sync that
    failed, after which the cache shows frames that the disk never took."""
    newest: list[Segment] = []
    for segment in reversed(segments.of_timeline(timeline)):
        if segment.start + segment.size <= start or sum(each.size for each in newest) >= SETTLED_BYTES:
            break
        newest.insert(0, segment)
    for at in range(0, len(newest), SYNC_FILES_MAX):
        files = [segments.file(segment) for segment in newest[at : at + SYNC_FILES_MAX]]
        disk.sync(files, [])
        disk.forget_cached(files)


def settle_newest(disk: Disk, timeline: int) -> None:
    """`settle` a timeline of which no more is known yet. OSError; Corruption if a file went meanwhile."""
    segments = SegmentMap(disk)
    try:
        segments.load_timeline(timeline)
        settle(disk, segments, timeline, 0)
    finally:
        segments.close()


def cut_tail(disk: Disk, segments: SegmentMap, timeline: int, start: int, end: int) -> None:
    """Truncate the journal at `end` and make what is left from `start` on durable."""
    shorten(disk, segments, timeline, end)
    make_durable(disk, segments, timeline, start)


def shorten(disk: Disk, segments: SegmentMap, timeline: int, end: int) -> None:
    """Truncate the journal at `end`; not durable."""
    for segment in segments.of_timeline(timeline):
        if segment.start >= end:
            segments.forget(segment)
            disk.remove(segment.path)
        elif segment.start + segment.size > end:
            segments.file(segment).truncate(end - segment.start)
            segment.cut(end)


def make_durable(disk: Disk, segments: SegmentMap, timeline: int, start: int) -> None:
    """Make a timeline's files from `start` on durable: which of them a crashed run had synced is not known
    any more. OSError."""
    unsure = [s for s in segments.of_timeline(timeline) if s.start + s.size > start]
    for at in range(0, len(unsure), SYNC_FILES_MAX):
        disk.sync([segments.file(segment) for segment in unsure[at : at + SYNC_FILES_MAX]], [])
    directory = timeline_directory(timeline)
    disk.sync([], [directory] if disk.exists(directory) else [])


def name_stray(reader: JournalReader, segments: SegmentMap, timeline: int, error: Corruption) -> Corruption:
    """The same error, about the file that may be its cause if there is one: it begins within another segment,
    hides what follows there, and has no frame of its own place. A copy under another number, or rubbish."""
    within: Segment | None = None
    for segment in segments.of_timeline(timeline):
        if within is None or segment.start >= within.start + within.size:
            within = segment
        elif reader.prefix_at(timeline, segment.start) is not None:
            within = segment  # what the one before was preallocated with goes on below it
        else:
            return Corruption(
                f"{error.message}; {segment.path} begins within {within.path} and is no part of the journal",
                subject=segment.path,
                position=error.position,
                next_step=f"nothing was cut; `mv {segment.path} {segment.path}.stray` in the group's "
                "directory, and restart the site's daemon",
            )
    return error


def nonzero_from(segments: SegmentMap, segment: Segment, position: int) -> int:
    """Bytes from `position` to the last one that is not zero: the size of a torn tail. Corruption if the file
    is too large to be a segment."""
    _check_size(segment)
    offset = max(0, position - segment.start)
    end = min(segment.size, segments.file(segment).data_end())
    while end > offset:
        begin = max(offset, end - WINDOW_BYTES)
        data = segments.file(segment).pread(end - begin, begin)
        if kept_bytes := _without_zeroes(data):
            return begin + kept_bytes - offset
        end = begin
    return 0


def _without_zeroes(data: bytes) -> int:
    """Bytes up to the last one that is not zero. Looked for in pieces: rstrip(), which goes byte by byte,
    takes 2.7 ms a MiB, and each group's last segment ends with as much as was preallocated."""
    end = len(data)
    while end:
        piece = data[max(0, end - len(_ZEROES)) : end]
        if piece != _ZEROES[: len(piece)]:
            return end - len(piece) + len(piece.rstrip(b"\0"))
        end -= len(piece)
    return 0


def _check_size(segment: Segment) -> None:
    if segment.size > SEGMENT_FILE_BYTES_MAX:
        raise Corruption(
            f"{segment.path} has {segment.size} bytes, more than any segment of a journal",
            subject=segment.path,
            position=str(Cut(segment.timeline, segment.start)),
            next_step="nothing was cut; restore the file, or copy it and take off what cannot be frames: "
            f"`truncate -s {SEGMENT_FILE_BYTES_MAX} {segment.path}`",
        )


def _later_promise(segments: SegmentMap, timeline: int, bad: int) -> FramePrefix | None:
    """A valid frame after position `bad` whose writer said that `bad` was durable, if there is one."""
    for segment in segments.of_timeline(timeline):
        if segment.start + segment.size > bad:
            prefix = _promise_in(segments, segment, bad)
            if prefix is not None:
                return prefix
    return None


def _promise_in(segments: SegmentMap, segment: Segment, bad: int) -> FramePrefix | None:
    file = segments.file(segment)
    offset = max(0, bad - segment.start)
    if not _may_hold_frames(file, offset):
        return None
    while True:
        data = file.pread(min(WINDOW_BYTES, segment.size - offset), offset)
        is_last = len(data) < WINDOW_BYTES
        # A frame that begins further on may end behind this window: the next one begins with it.
        reach = len(data) if is_last else len(data) - FRAME_BYTES_MAX
        past = 0
        while 0 <= (at := data.find(MAGIC, past)) < reach:
            prefix = _valid_at(data, at, segment.timeline, segment.start + offset + at)
            if prefix is not None and prefix.durable > bad:
                return prefix
            past = at + (prefix.frame_bytes if prefix else 1)
        if is_last:
            return None
        offset += at if at >= 0 else max(past, len(data) - len(MAGIC) + 1)


def _may_hold_frames(file: DiskFile, offset: int) -> bool:
    """Whether anything from `offset` on begins like a frame. What was only preallocated is not read."""
    end = file.data_end()
    while offset < end:
        data = file.pread(min(WINDOW_BYTES, end - offset), offset)
        if MAGIC in data:
            return True
        if offset + len(data) >= end or not data:
            return False
        offset += len(data) - len(MAGIC) + 1
    return False


def _valid_at(data: bytes, at: int, timeline: int, position: int) -> FramePrefix | None:
    """The prefix of a frame that stands at its own position with the right body CRC, or None."""
    try:
        prefix = parse_prefix(data, at)
    except FrameError:
        return None
    if prefix.timeline != timeline or prefix.position != position or prefix.frame_bytes > FRAME_BYTES_MAX:
        return None
    body = memoryview(data)[at + PREFIX_BYTES : at + prefix.frame_bytes]
    return prefix if len(body) == prefix.body_bytes and crc32c(body) == prefix.body_crc else None
