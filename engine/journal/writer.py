"""Appending to a journal, and making it durable: two verbs.

`append` returns when the frame is in the file (survives the process). Durability is asked for with
`when_durable` and granted in groups: one fdatasync at a time, away from the caller's thread, covering
whatever was written when it began. Unasked, one begins at `SYNC_AFTER_BYTES` or `SYNC_AFTER_S`.

After a failed sync the kernel may have dropped what it could not write and call the next sync a success, so
nothing past `durable` is trusted any more: the writer is failed for good and says so to everyone who waits.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from engine.journal.format import SPARE_PATH, segment_path, timeline_directory
from engine.journal.room import least_segment_bytes, next_segment_bytes, truncation_bytes
from engine.journal.segments import Segment, SegmentMap
from engine.journal.spare import SpareSegment
from engine.ports.clock import Clock, Timer
from engine.ports.disk import Disk, DiskFile
from protocol.errors import Corruption, NoSpace, WrongState
from protocol.events import Row
from protocol.frames import Buffer, Frame, encode_frame
from protocol.limits import SYNC_AFTER_BYTES, SYNC_AFTER_S, UNSYNCED_BYTES_MAX
from protocol.positions import Cut

DurableCallback = Callable[[OSError | None], None]
RETRY_SPACE_AFTER_S = 0.5
READ_ONLY = "the file system is read-only"


class JournalWriter:
    """The end of one timeline's journal. `limit_bytes` bounds all segments of the group; `reserve_bytes` of
    the file system are left free for checkpoints and recovery, and with them what a truncation may need."""

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        segments: SegmentMap,
        *,
        limit_bytes: int,
        reserve_bytes: int,
        on_durable: Callable[[], None],
        on_failed: Callable[[OSError], None],
        on_space: Callable[[str], None] = lambda _: None,
        spare_path: str = SPARE_PATH,
    ) -> None:
        """`on_space` is told once why there is no room, and once, with "", that there is again. With no
        `spare_path` no segment is made before it is needed."""
        self._disk = disk
        self._clock = clock
        self._segments = segments
        self.limit_bytes = limit_bytes
        self._reserve_bytes = reserve_bytes
        self._on_durable = on_durable
        self._on_failed = on_failed
        self._on_space = on_space
        self._spare = SpareSegment(disk, spare_path)
        self.timeline = 0
        self.lane = 0
        self.written = 0
        self.durable = 0
        self.failed: OSError | None = None
        self.no_space = ""  # why there is no room for more
        self._segment: Segment | None = None
        self._torn_at = -1  # where a frame could not be written, and may have been in part
        self._dirty: dict[str, Segment] = {}
        self._dirty_directories: set[int] = set()  # of these timelines
        self._under_way: tuple[list[Segment], set[int]] = ([], set())  # what the sync that runs covers
        self._waiters: deque[tuple[int, DurableCallback]] = deque()
        self._syncing = False
        self._timer: Timer | None = None
        self._no_space_until = 0.0

    @property
    def segment_bytes(self) -> int:
        """The size of the next segment."""
        capacity = min(self.limit_bytes, self._segments.total_bytes() + self.room_bytes())
        return next_segment_bytes(self._segments, self.timeline, capacity)

    def room_bytes(self) -> int:
        """What segments may still take of the file system, the spare one included."""
        return max(0, self._room_beside_spare_bytes()) + self._spare.bytes

    def _room_beside_spare_bytes(self) -> int:
        left_bytes = self._disk.free_bytes() - self._reserve_bytes
        held_bytes = self._segments.total_bytes() + self._spare.bytes
        capacity = min(self.limit_bytes, held_bytes + max(0, left_bytes))
        return left_bytes - truncation_bytes(self._segments, capacity)

    @property
    def behind(self) -> bool:
        """Whether so much is written and not durable that who writes more must wait."""
        return self.written - self.durable >= UNSYNCED_BYTES_MAX

    def start(self, timeline: int, lane: int, position: int) -> None:
        """Go on at `position` of a timeline, all of which is durable. The next frame begins a new segment."""
        self._seal()
        self.timeline, self.lane = timeline, lane
        self.written = self.durable = position
        self._segment = None

    def back_to(self, timeline: int, lane: int, position: int, *, keep: bool = False) -> None:
        """A move to another timeline came to nothing: the end is where it was. Never raises. The segment of
        the try is forgotten, or it would be found in its lane once that is given out again. Its file goes
        too, unless it is to be kept because the move may stand after a restart."""
        segment, self._segment = self._segment, None
        if segment is not None and segment.timeline != timeline:
            with suppress(OSError, Corruption):
                if keep:
                    self._segments.file(segment).truncate(self.written - segment.start)
                else:
                    self._disk.remove(segment.path)
            self._segments.forget(segment)
        elif segment is not None:
            segment.notes.cut(position)
        self.timeline, self.lane = timeline, lane
        self.written = self.durable = position

    def next_frame(
        self,
        utc_ns: int,
        previous_digest: bytes,
        rows: Sequence[Row],
        payload: Sequence[Buffer],
        payload_bytes: int,
    ) -> Frame:
        """The frame that comes next at the end, not yet written."""
        return encode_frame(
            timeline=self.timeline,
            position=self.written,
            utc_ns=utc_ns,
            durable=self.durable,
            previous_digest=previous_digest,
            rows=rows,
            payload=payload,
            payload_bytes=payload_bytes,
        )

    def append(self, frame: Frame) -> None:
        """Write a frame at the end. NoSpace if there is no room for it; OSError if the disk fails: then the
        end has not moved and the same position may be tried again. What comes there then is durable on
        return: a power loss could put the failed one back in its place, which others know otherwise."""
        if self.failed is not None:
            raise OSError(errno.EIO, "the journal failed and waits for a restart") from self.failed
        prefix = frame.prefix
        if prefix.position != self.written or prefix.timeline != self.timeline:
            raise WrongState(
                "a frame does not continue the journal", position=str(Cut(prefix.timeline, prefix.position))
            )
        segment = self._segment
        if segment is None or prefix.end - segment.start > segment.size:
            segment = self._roll(prefix.frame_bytes)
        self._dirty[segment.path] = segment
        try:
            # Asked for each time: readers of many segments may have had the file closed.
            self._segments.file(segment).pwrite(frame.raw, prefix.position - segment.start)
        except OSError as error:
            self._torn_at = prefix.position
            if error.errno == errno.EROFS:
                self._set_no_space(READ_ONLY)
            raise
        if self.no_space == READ_ONLY:
            self._set_no_space("")
        if self._torn_at == prefix.position:
            segment.notes.cut(prefix.position)  # the one that failed may have been seen there
            self.sync_now()
            self._torn_at = -1
        self.written = end = prefix.end
        if end >= segment.notes.next_at:
            segment.notes.add(end, prefix.utc_ns, prefix.frame_bytes)
        if not self._syncing:
            if self.written - self.durable >= SYNC_AFTER_BYTES:
                self._start_sync()
            elif self._timer is None:
                self._timer = self._clock.call_later(SYNC_AFTER_S, self._on_timer)

    def when_durable(self, position: int, callback: DurableCallback) -> None:
        """Call back once everything before `position` is durable, at once if it is; with the error if it
        never will be."""
        if self.failed is not None:
            callback(self.failed)
        elif position <= self.durable:
            callback(None)
        else:
            self._waiters.append((position, callback))
            if not self._syncing:
                self._start_sync()

    def sync_now(self) -> None:
        """Make everything written durable before returning; OSError fails the writer. What a sync under way
        covers is not durable yet: it is synced here too."""
        if self.failed is not None:
            raise OSError(errno.EIO, "the journal failed and waits for a restart") from self.failed
        target = self.written
        segments, timelines = self._take_dirty()
        older, older_timelines = self._under_way
        try:
            files, directories = self._still_there([*older, *segments], older_timelines | timelines)
            self._disk.sync(files, directories)
        except OSError as error:
            self._fail(error)
            raise
        self._reached(target)

    def cut_torn(self) -> None:
        """Take away, durably, what a write that failed left past the end. OSError."""
        if self._torn_at == self.written:
            self._seal()
            self.sync_now()
            self._torn_at = -1

    def close(self) -> None:
        """Stop timers; what is not durable stays as it is. Waiters are told."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._tell_waiters(OSError(errno.ESHUTDOWN, "the group is closing"), everyone=True)

    # -- segments

    def _roll(self, frame_bytes: int) -> Segment:
        """Begin a segment at the end; the one before is cut to its frames."""
        if self._clock.monotonic() < self._no_space_until:
            raise self._no_space("no room for another journal segment")
        size = self._spare.bytes
        path = segment_path(self.timeline, self.written)
        directory = timeline_directory(self.timeline)
        made = not self._disk.exists(directory)
        if made:
            self._make_directory(directory)
        elif self._disk.exists(path):
            self._remove_leftover(path)
        if size >= frame_bytes:
            file = self._spare.become(path)
        else:
            self._spare.drop()
            try:
                file = self._preallocate(path, frame_bytes)
            except (NoSpace, OSError):
                if made:
                    self._disk.remove(directory)
                raise
            size = file.size()
        self._dirty_directories.add(self.timeline)
        self._seal()
        if self._segment is not None:
            self._disk.wrote_once(self._segment.path, self._segment.size)
        self._segment = Segment(self.timeline, self.written, size)
        self._segments.add(self._segment, self.lane, file)
        self._set_no_space("")
        self._clock.call_soon(lambda: self._prepare_spare(frame_bytes))
        return self._segment

    def _make_directory(self, directory: str) -> None:
        try:
            self._disk.make_directory(directory)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._full(error) from error
            raise

    def _remove_leftover(self, path: str) -> None:
        """A segment that begins where the journal ends holds no part of it: an earlier try to begin this
        timeline got so far and no further, or its first frame failed and this one is too large for it."""
        segment = self._segments.segment_at(self.timeline, self.written)
        if segment is not None and segment.start == self.written:
            self._segments.forget(segment)
            if segment is self._segment:
                self._segment = None
        self._disk.remove(path)

    def _seal(self) -> None:
        """Give back what the last segment did not use."""
        segment = self._segment
        if segment is not None and self.written - segment.start < segment.size:
            segment.cut(self.written)
            self._segments.file(segment).truncate(segment.size)
            self._dirty[segment.path] = segment

    def _preallocate(self, path: str, frame_bytes: int) -> DiskFile:
        """A file of the size that is due, or of a smaller one that still holds the frame."""
        room = min(self.limit_bytes - self._segments.total_bytes(), self._room_beside_spare_bytes())
        least = least_segment_bytes(frame_bytes)
        size = max(least, self.segment_bytes)
        refusal = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        while True:
            if size <= room:
                try:
                    return self._disk.preallocate(path, size)
                except OSError as error:
                    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                        raise
                    refusal = error
            if size == least:
                break
            size = max(least, size // 2)
        if self._segments.total_bytes() + least > self.limit_bytes:
            self._no_space_until = self._clock.monotonic() + RETRY_SPACE_AFTER_S
            raise self._no_space(f"the journal has reached its limit of {self.limit_bytes} bytes")
        raise self._full(refusal)

    def _full(self, error: OSError) -> NoSpace:
        self._no_space_until = self._clock.monotonic() + RETRY_SPACE_AFTER_S
        return self._no_space(f"{self._disk.why_full(error)} for another journal segment")

    def _set_no_space(self, reason: str) -> None:
        """Hosts may try again a thousand times a second: only a change is told."""
        if bool(reason) != bool(self.no_space):
            self.no_space = reason
            self._on_space(reason)

    def _no_space(self, message: str) -> NoSpace:
        self._set_no_space(message)
        return NoSpace(
            message,
            subject="journal",
            position=str(Cut(self.timeline, self.written)),
            next_step="free space on the file system (`df`, `df -i`), or raise journal_limit_bytes in "
            "site.toml",
        )

    def _prepare_spare(self, frame_bytes: int) -> None:
        """Make the next segment ahead, for frames of this size, unless it would take the last room that
        there is."""
        if not self._spare.wanted or self.failed is not None:
            return
        size = max(self.segment_bytes, least_segment_bytes(frame_bytes))
        if self._segments.total_bytes() + size <= self.limit_bytes and self.room_bytes() >= 2 * size:
            self._spare.prepare(size)

    # -- durability

    def _on_timer(self) -> None:
        self._timer = None
        if not self._syncing and self.written > self.durable and self.failed is None:
            self._start_sync()

    def _take_dirty(self) -> tuple[list[Segment], set[int]]:
        taken = list(self._dirty.values()), self._dirty_directories
        self._dirty, self._dirty_directories = {}, set()
        return taken

    def _still_there(
        self, segments: Iterable[Segment], timelines: Iterable[int]
    ) -> tuple[list[DiskFile], list[str]]:
        """What there is to sync of them. A segment may be reclaimed, or its branch dropped, before the sync
        begins that its last cut or the directory waits for."""
        files = [self._segments.file(segment) for segment in segments if self._segments.has(segment)]
        held = sorted(timeline for timeline in timelines if self._segments.of_timeline(timeline))
        return files, [timeline_directory(timeline) for timeline in held]

    def _start_sync(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._syncing = True
        timeline, target = self.timeline, self.written
        self._under_way = self._take_dirty()
        try:
            files, directories = self._still_there(*self._under_way)
            self._disk.start_sync(files, directories, lambda error: self._sync_done(error, timeline, target))
        except (OSError, Corruption) as error:
            self._sync_done(OSError(errno.EIO, f"a sync could not begin: {error}"), timeline, target)

    def _sync_done(self, error: OSError | None, timeline: int, target: int) -> None:
        self._syncing = False
        self._under_way = ([], set())
        if error is not None:
            self._fail(error)
            return
        if self.failed is not None:
            return  # another sync failed meanwhile: what it dropped this one may have called a success
        if timeline == self.timeline:
            self._reached(target)
        if self._waiters or self.written - self.durable >= SYNC_AFTER_BYTES:
            self._start_sync()
        elif self.written > self.durable and self._timer is None:
            self._timer = self._clock.call_later(SYNC_AFTER_S, self._on_timer)

    def _reached(self, position: int) -> None:
        if position > self.durable:
            self.durable = position
            self._tell_waiters(None, everyone=False)
            self._on_durable()

    def _fail(self, error: OSError) -> None:
        self.failed = error
        self._tell_waiters(error, everyone=True)
        self._on_failed(error)

    def _tell_waiters(self, error: OSError | None, *, everyone: bool) -> None:
        while self._waiters and (everyone or self._waiters[0][0] <= self.durable):
            self._waiters.popleft()[1](error)
