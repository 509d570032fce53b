"""What a look at a group's journal finds: the segments that may go, or that the group is at rest.

A site may have a thousand groups, of which few are written. Each is looked at every few seconds
(`engine.retention.reclaim`): for what changed, and for what only time does, or others who use the file
system. Of a group at rest, of which the last look found nothing to do or to wait for, only the first is
asked, a few numbers, and the second every `REST_S`. So that a segment left the window, or that somebody else
fills the disk, is noticed that much later. Until then more is kept than need be, and who writes is told that
there is no room when it is so.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.group.core import GroupCore
from engine.retention.journal_space import JournalSpace
from engine.retention.old_segments import OldSegment, frame_time, lineage_segments
from engine.retention.retention_lock import RetentionLock
from engine.retention.window_time import WindowTime

REST_S = 10.0


class OutsideWindow:
    """Segments of one group that are outside its any-point window and that nobody needs."""

    def __init__(self, group: GroupCore, space: JournalSpace, lock: RetentionLock) -> None:
        self._group = group
        self._space = space
        self._lock = lock
        self._time = WindowTime(group.clock)

    def segments(self, promised: int) -> Iterator[OldSegment]:
        """Oldest first. `promised`: how far the writing site said that it is durable there."""
        group = self._group
        limit = min(self._space.limit(), self._lock.limit())
        if not (group.primary or group.head.began):
            limit = min(limit, promised)
        total = group.segments.total_bytes()
        window_s, window_bytes = group.policies.window(group.spans(), group.settings)
        window_bytes = min(window_bytes, self._space.capacity(total) // 2)
        since_ns = self._time.utc_ns(group.head.utc_ns) - int(window_s * 1e9)
        for old in lineage_segments(group):
            if old.end > limit:
                return
            if total <= window_bytes and frame_time(group, old.end) > since_ns:
                return
            total -= old.segment.size
            yield old


class Rest:
    """Whether one group is at rest; at first it is not."""

    def __init__(self, group: GroupCore, space: JournalSpace) -> None:
        self._group = group
        self._space = space
        self._state: tuple[object, ...] = ()
        self._until_s = 0.0

    def begin(self) -> None:
        """A look has just found nothing to do."""
        group = self._group
        if self._space.calm and group.writer.durable == group.writer.written:
            self._state = self._now()
            self._until_s = group.clock.monotonic() + REST_S

    def end(self) -> None:
        """There may be something to do."""
        self._state = ()

    @property
    def lasts(self) -> bool:
        """Whether nothing changed since, and its time is not over."""
        if not self._state or self._group.clock.monotonic() >= self._until_s:
            return False
        return self._state == self._now()

    def _now(self) -> tuple[object, ...]:
        group, writer = self._group, self._group.writer
        return (
            group.failed,
            group.head.timeline,
            writer.written,
            writer.durable,
            writer.no_space,
            group.copies.revision,
            group.settings,
            self._space.confirmed(),
        )
