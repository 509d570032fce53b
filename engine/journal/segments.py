"""The segment files of a group: found by timeline for walking frames, by lane for fetching a version's bytes.

Files open when first used; at most `OPEN_FILES_MAX` stay open. Knows nothing of what is valid in them.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict

from engine.history.bases import FIRST_BASE_LANE
from engine.journal.format import (
    JOURNAL_DIRECTORY,
    segment_path,
    start_from_name,
    timeline_directory,
    timeline_from_name,
)
from engine.journal.notes import SegmentNotes
from engine.ports.disk import Disk, DiskFile
from protocol.errors import Corruption
from protocol.positions import Cut

OPEN_FILES_MAX = 512


class Segment:
    """One file: frames of `timeline` from position `start` on."""

    __slots__ = ("notes", "size", "start", "timeline")

    def __init__(self, timeline: int, start: int, size: int) -> None:
        self.timeline = timeline
        self.start = start
        self.size = size
        self.notes = SegmentNotes(start)

    @property
    def path(self) -> str:
        """Relative to the group's directory."""
        return segment_path(self.timeline, self.start)

    def cut(self, end: int) -> None:
        """Its file ends at a position from now on."""
        self.size = end - self.start
        self.notes.cut(end)


class _Sorted:
    """Segments by start."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.by_start: dict[int, Segment] = {}

    def add(self, segment: Segment) -> None:
        if segment.start not in self.by_start:
            insort(self.starts, segment.start)
        self.by_start[segment.start] = segment

    def remove(self, start: int) -> None:
        if self.by_start.pop(start, None) is not None:
            self.starts.remove(start)

    def holding(self, position: int) -> Segment | None:
        at = bisect_right(self.starts, position) - 1
        return self.by_start[self.starts[at]] if at >= 0 else None


class SegmentMap:
    """Every segment of one group's journal."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._timelines: dict[int, _Sorted] = {}
        self._lanes: dict[int, _Sorted] = {}
        self._bases: set[int] = set()  # timelines that are on no lineage
        self._open: OrderedDict[tuple[int, int], DiskFile] = OrderedDict()

    def timelines(self) -> list[int]:
        """Timelines with at least one segment."""
        return sorted(timeline for timeline, found in self._timelines.items() if found.starts)

    def total_bytes(self) -> int:
        """Bytes that the journal takes on disk; those of bases are live data, not history."""
        return sum(
            segment.size
            for timeline, found in self._timelines.items()
            if timeline not in self._bases
            for segment in found.by_start.values()
        )

    def largest_bytes(self) -> int:
        """Of the largest segment, those of bases included; 0 if there is none."""
        sizes = (segment.size for found in self._timelines.values() for segment in found.by_start.values())
        return max(sizes, default=0)

    def load(self) -> None:
        """Look at the directory again."""
        for name in self._disk.list_directory(JOURNAL_DIRECTORY):
            timeline = timeline_from_name(name)
            if timeline is not None:
                self.load_timeline(timeline)

    def load_timeline(self, timeline: int) -> None:
        """The same for one timeline: files that have gone are forgotten, new ones taken in. Known ones
        are opened again when they are read: another process may have made them anew."""
        known = self._timelines.setdefault(timeline, _Sorted())
        starts = set(map(start_from_name, self._disk.list_directory(timeline_directory(timeline))))
        for start in list(known.starts):
            if start not in starts:
                self.forget(known.by_start[start])
                continue
            known.by_start[start].notes = SegmentNotes(start)
            if (file := self._open.pop((timeline, start), None)) is not None:
                file.close()
        for start in sorted(start for start in starts if start is not None and start not in known.by_start):
            segment = Segment(timeline, start, 0)
            segment.size = self.file(segment).size()
            known.add(segment)

    def set_lane(self, timeline: int, lane: int) -> None:
        """Say in which lane a timeline's versions are kept."""
        self._note_base(timeline, lane)
        lane_segments = self._lanes.setdefault(lane, _Sorted())
        for segment in self._timelines.setdefault(timeline, _Sorted()).by_start.values():
            lane_segments.add(segment)

    def add(self, segment: Segment, lane: int, file: DiskFile | None) -> None:
        """Take in a segment that was just made."""
        self._note_base(segment.timeline, lane)
        self._timelines.setdefault(segment.timeline, _Sorted()).add(segment)
        self._lanes.setdefault(lane, _Sorted()).add(segment)
        if file is not None:
            self._keep_open(segment, file)

    def _note_base(self, timeline: int, lane: int) -> None:
        if lane >= FIRST_BASE_LANE:
            self._bases.add(timeline)

    def forget(self, segment: Segment) -> None:
        """Close a segment's file and leave it out from now on."""
        file = self._open.pop((segment.timeline, segment.start), None)
        if file is not None:
            file.close()
        self._timelines[segment.timeline].remove(segment.start)
        for lane in self._lanes.values():
            if lane.by_start.get(segment.start) is segment:
                lane.remove(segment.start)

    def has(self, segment: Segment) -> bool:
        """Whether a segment is still one of the journal's: not forgotten, nor made anew."""
        found = self._timelines.get(segment.timeline)
        return found is not None and found.by_start.get(segment.start) is segment

    def of_timeline(self, timeline: int) -> list[Segment]:
        """A timeline's segments in order."""
        found = self._timelines.get(timeline)
        return [found.by_start[start] for start in found.starts] if found else []

    def segment_at(self, timeline: int, position: int) -> Segment | None:
        """The segment in which a frame at `position` stands: the last one that begins at or before it."""
        found = self._timelines.get(timeline)
        return found.holding(position) if found else None

    def file(self, segment: Segment) -> DiskFile:
        """The open file of a segment; Corruption if it has gone."""
        file = self._open.get((segment.timeline, segment.start))
        if file is None:
            try:
                file = self._disk.open(segment.path)
            except FileNotFoundError as error:
                raise Corruption(
                    f"journal segment {segment.path} is missing",
                    subject=segment.path,
                    position=str(Cut(segment.timeline, segment.start)),
                    next_step="`farshore verify GROUP --deep`",
                ) from error
            self._keep_open(segment, file)
        return file

    def holding(self, lane: int, number: int) -> Segment | None:
        """The segment in which a version of that number has its bytes, if they are in the journal."""
        lane_segments = self._lanes.get(lane)
        segment = lane_segments.holding(number) if lane_segments else None
        return segment if segment is not None and number < segment.start + segment.size else None

    def read_bytes(self, lane: int, number: int, length: int) -> bytes:
        """`length` bytes of the journal at position `number` of a lane; all of one segment."""
        lane_segments = self._lanes.get(lane)
        segment = lane_segments.holding(number) if lane_segments else None
        if segment is not None:
            data = self.file(segment).pread(length, number - segment.start)
            if len(data) == length:
                return data
        raise Corruption(
            "the journal ends before bytes that the index names",
            subject=f"lane {lane}",
            position=str(number),
            next_step="`farshore verify GROUP --deep`",
        )

    def run_bytes(self, lane: int, number: int) -> int:
        """Bytes from `number` to the end of its segment: how far a run of versions may be read at once."""
        segment = self._lanes[lane].holding(number) if lane in self._lanes else None
        return segment.start + segment.size - number if segment else 0

    def close(self) -> None:
        """Close every file."""
        for file in self._open.values():
            file.close()
        self._open.clear()

    def _keep_open(self, segment: Segment, file: DiskFile) -> None:
        self._open[segment.timeline, segment.start] = file
        if len(self._open) > OPEN_FILES_MAX:
            _, oldest = self._open.popitem(last=False)
            oldest.close()
