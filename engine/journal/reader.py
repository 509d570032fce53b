"""Walking a journal: frames in order from any frame boundary, checked as they come.

Used by recovery, checkpoints, shipping and cuts. It reads; it never mends, cuts or waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from engine.history.bases import base_at
from engine.history.timelines import TimelineTable
from engine.journal.segments import Segment, SegmentMap
from engine.retention.needed import Anchor
from protocol.errors import Corruption, NotFound
from protocol.frames import (
    NO_DIGEST,
    PREFIX_BYTES,
    Frame,
    FrameError,
    FramePrefix,
    check_frame,
    parse_prefix,
)
from protocol.limits import DIGEST_BYTES
from protocol.positions import NO_TIMELINE, Cut

# The first window of a walk, and the largest: most walks end soon, and read zeroes beyond that.
FIRST_WINDOW_BYTES = 64 << 10
WINDOW_BYTES = 1 << 20

AnchorOf = Callable[[int, int], Anchor | None]


class BadFrame(FrameError):
    """Where the walk found no valid frame, and why."""

    def __init__(self, timeline: int, position: int, reason: str) -> None:
        super().__init__(f"{Cut(timeline, position)}: {reason}")
        self.timeline = timeline
        self.position = position
        self.reason = reason


class JournalReader:
    """Frames of the segments in a `SegmentMap`. `anchor` knows some places whose frames have gone."""

    def __init__(self, segments: SegmentMap, anchor: AnchorOf = lambda timeline, position: None) -> None:
        self._segments = segments
        self.anchor = anchor

    def frames(self, timeline: int, start: int, end: int, previous_digest: bytes | None) -> Iterator[Frame]:
        """Frames from boundary `start` up to `end`, each checked (also against `previous_digest`, unless
        None: then of the first frame only the body is, and its digest believed). BadFrame where one is not
        valid."""
        position = start
        digest = previous_digest
        window_bytes = FIRST_WINDOW_BYTES
        while position < end:
            batch = self._window(timeline, position, end, window_bytes)
            # Large frames come in rows: a window that the next one does not fit into would be read twice.
            window_bytes = max(min(2 * window_bytes, WINDOW_BYTES), batch[-1].prefix.frame_bytes)
            for frame in checked(batch, digest):
                yield frame
                position, digest = frame.prefix.end, frame.prefix.digest

    def _window(self, timeline: int, position: int, end: int, window_bytes: int) -> list[Frame]:
        """At least one frame from `position`, all parsed but unchecked."""
        segment = self._segments.segment_at(timeline, position)
        if segment is None:
            raise BadFrame(timeline, position, "no segment holds this position")
        file = self._segments.file(segment)
        offset = position - segment.start
        data = memoryview(file.pread(window_bytes, offset))
        prefix = _prefix(timeline, position, data, 0)
        if prefix.frame_bytes > len(data):
            data = memoryview(file.pread(prefix.frame_bytes, offset))
            if len(data) < prefix.frame_bytes:
                raise BadFrame(timeline, position, "the file ends within the frame")
        frames = []
        at = 0
        while True:
            frames.append(Frame(prefix, data[at : at + prefix.frame_bytes]))
            at += prefix.frame_bytes
            if prefix.end >= end or len(data) - at < PREFIX_BYTES:
                return frames
            if self._segments.segment_at(timeline, prefix.end) is not segment:
                return frames
            try:
                prefix = _prefix(timeline, prefix.end, data, at)
            except BadFrame:
                return frames
            if prefix.frame_bytes > len(data) - at:
                return frames

    def prefix_at(self, timeline: int, position: int) -> FramePrefix | None:
        """The prefix of a frame at `position`, unchecked, or None."""
        segment = self._segments.segment_at(timeline, position)
        if segment is None:
            return None
        try:
            data = memoryview(self._segments.file(segment).pread(PREFIX_BYTES, position - segment.start))
            return _prefix(timeline, position, data, 0)
        except BadFrame:
            return None

    def prefixes(self, timeline: int, start: int, end: int) -> Iterator[FramePrefix]:
        """Prefixes from boundary `start` up to `end`, unchecked; stops early at a place that has none."""
        position = start
        while position < end:
            prefix = self.prefix_at(timeline, position)
            if prefix is None:
                return
            yield prefix
            position = prefix.end

    def _walk(self, segment: Segment, start: int, end: int) -> Iterator[FramePrefix]:
        """The same from a noted boundary of a segment, noting what nobody noted yet."""
        notes, latest_ns = segment.notes, 0
        fresh = start == notes.reached
        for prefix in self.prefixes(segment.timeline, start, end):
            yield prefix
            if not fresh:
                fresh = prefix.end == notes.reached
                continue
            latest_ns = max(latest_ns, prefix.utc_ns)
            if prefix.end >= notes.next_at:
                if self._segments.segment_at(segment.timeline, prefix.position) is not segment:
                    fresh = False
                    continue
                notes.add(prefix.end, latest_ns, prefix.frame_bytes)

    def frame_before(self, timeline: int, position: int) -> FramePrefix | None:
        """The frame of this timeline that ends at `position`; None if no frame does."""
        segment = self._segments.segment_at(timeline, position - 1)
        if segment is None:
            return None
        for prefix in self._walk(segment, segment.notes.before(position), position):
            if prefix.end == position:
                return prefix
        return None

    def ending_at(self, timeline: int, position: int) -> Anchor | None:
        """Digest and time of the frame of this timeline that ends at `position`, also where it is known and
        the frame has gone."""
        anchor = self.anchor(timeline, position)
        if anchor is None and (before := self.frame_before(timeline, position)) is not None:
            anchor = Anchor(before.digest, before.utc_ns)
        return anchor

    def digest_at(self, timelines: TimelineTable, timeline: int, position: int) -> bytes:
        """The digest that the next frame at a cut continues. NotFound if the cut is no frame boundary
        here."""
        while timeline != NO_TIMELINE:
            base = base_at(timelines, Cut(timeline, position))
            if base is not None:
                return base.digest
            entry = timelines.get(timeline)
            if position > entry.fork:
                found = self.ending_at(timeline, position)
                if found is None:
                    break
                return found.digest
            if position < entry.fork:
                break
            timeline = entry.parent
        if timeline == NO_TIMELINE and position == 0:
            return NO_DIGEST
        raise NotFound(
            f"{Cut(timeline, position)} is not a frame boundary held here",
            position=str(Cut(timeline, position)),
            next_step="`farshore journal show GROUP` prints boundaries",
        )

    def boundary_at_time(self, timeline: int, start: int, end: int, utc_ns: int) -> int | None:
        """The end of the last frame in [start, end) written at or before `utc_ns`; None if there is none."""
        candidates = [s for s in self._segments.of_timeline(timeline) if s.start < end]
        first = self._last_not_after(candidates, utc_ns)
        if first is None or first.start < start:
            return _last_by(utc_ns, self.prefixes(timeline, start, end), None)
        noted = first.notes.not_after(utc_ns, end)
        boundary = noted if noted > first.start else None
        return _last_by(utc_ns, self._walk(first, noted, end), boundary)

    def _last_not_after(self, segments: list[Segment], utc_ns: int) -> Segment | None:
        """By bisection: the last segment whose first frame was written at or before `utc_ns`."""
        low, high = 0, len(segments)
        while low < high:
            middle = (low + high) // 2
            segment = segments[middle]
            prefix = self.prefix_at(segment.timeline, segment.start)
            if prefix is not None and prefix.utc_ns <= utc_ns:
                low = middle + 1
            else:
                high = middle
        return segments[low - 1] if low else None


def _last_by(utc_ns: int, prefixes: Iterator[FramePrefix], known: int | None) -> int | None:
    """The end of the last frame before the first one of a later time; `known` if that comes first."""
    for prefix in prefixes:
        if prefix.utc_ns > utc_ns:
            break
        known = prefix.end
    return known


def parsed_frames(data: memoryview, timeline: int, start: int, end: int) -> Iterator[Frame]:
    """Frames of a piece of the journal that is in memory, all parsed but unchecked: `data` begins at boundary
    `start`. BadFrame where one cannot be parsed."""
    position = start
    while position < end:
        at = position - start
        prefix = _prefix(timeline, position, data, at)
        if prefix.frame_bytes > len(data) - at:
            raise BadFrame(timeline, position, "the file ends within the frame")
        yield Frame(prefix, data[at : at + prefix.frame_bytes])
        position = prefix.end


def checked(frames: Iterable[Frame], previous_digest: bytes | None) -> Iterator[Frame]:
    """Frames that follow each other, each checked as `JournalReader.frames` has it."""
    digest = previous_digest
    for frame in frames:
        prefix = frame.prefix
        try:
            check_frame(prefix, frame.raw, digest)
        except FrameError as error:
            raise BadFrame(prefix.timeline, prefix.position, str(error)) from error
        digest = prefix.digest
        yield frame


def _prefix(timeline: int, position: int, data: memoryview, at: int) -> FramePrefix:
    try:
        prefix = parse_prefix(data, at)
    except FrameError as error:
        raise BadFrame(timeline, position, str(error)) from error
    if prefix.position != position or prefix.timeline != timeline:
        raise BadFrame(
            timeline, position, f"the frame says it is at {prefix.timeline:016x}:{prefix.position}"
        )
    return prefix


def require_digest(digest: bytes, found: bytes, timeline: int, position: int) -> None:
    """Corruption unless two digests of one position are equal."""
    if len(digest) != DIGEST_BYTES or digest != found:
        raise Corruption(
            "the journal's digest here is not the one recorded",
            position=str(Cut(timeline, position)),
            next_step="`farshore verify GROUP --deep`",
        )


def time_at(reader: JournalReader, timelines: TimelineTable, cut: Cut) -> int:
    """The time (UTC ns) of the last frame before a cut, 0 if there is none: time in a journal never goes
    back, over restarts too."""
    timeline, position = cut.timeline, cut.position
    while timeline != NO_TIMELINE:
        base = base_at(timelines, Cut(timeline, position))
        if base is not None:
            return base.utc_ns
        entry = timelines.get(timeline)
        if position > entry.fork:
            before = reader.ending_at(timeline, position)
            return before.utc_ns if before else 0
        timeline, position = entry.parent, entry.fork
    return 0
