"""What is known, in memory, of the frame boundaries of a segment: one every `NOTE_BYTES`, or `NOTE_FRAMES` of
small frames, and the latest time of the frames before it.

Who looks for a time or a position begins at the last note before it, and not where the segment begins. Notes
come from the writer, and from whoever walked there; after a restart a segment has none until one did. They
lie end to end: up to the last one, every frame was written or walked by this run.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right

NOTE_BYTES, NOTE_FRAMES = 256 << 10, 512


class SegmentNotes:
    """Those of one segment. `next_at`: the next note is due where a frame ends there or later."""

    __slots__ = ("_ends", "_latest_ns", "next_at")

    def __init__(self, start: int) -> None:
        self._ends = array("Q", [start])
        self._latest_ns = array("Q", [0])
        self.next_at = start + NOTE_BYTES // 8

    @property
    def reached(self) -> int:
        """The last boundary that is noted; where the segment begins, if none is."""
        return self._ends[-1]

    def add(self, end: int, utc_ns: int, frame_bytes: int) -> None:
        """A frame of that size ends there, and none since the last note is of a later time."""
        self._ends.append(end)
        self._latest_ns.append(max(self._latest_ns[-1], utc_ns))
        self.next_at = end + min(NOTE_BYTES, NOTE_FRAMES * frame_bytes)

    def before(self, position: int) -> int:
        """The last noted boundary before a position."""
        return self._ends[max(0, bisect_left(self._ends, position) - 1)]

    def not_after(self, utc_ns: int, end: int) -> int:
        """The last noted boundary, at `end` or before, before which no frame is of a later time."""
        known = min(bisect_right(self._latest_ns, utc_ns), bisect_right(self._ends, end))
        return self._ends[max(0, known - 1)]

    def cut(self, end: int) -> None:
        """Nothing past that position stands any more."""
        kept = max(1, bisect_right(self._ends, end))
        del self._ends[kept:], self._latest_ns[kept:]
        self.next_at = self.reached + NOTE_BYTES // 8
