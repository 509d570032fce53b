"""When a group's checkpoints begin and what follows them; what one is, `engine.index.checkpoint` says.

A checkpoint freezes the memtable's layer, waits until everything in it is durable, has the indexer put it
into LMDB, and drops the layer. One at a time; one that failed is tried again with the same target.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.group.core import GroupCore
from engine.index.checkpoint import CheckpointPlan
from engine.index.memtable import Layer
from engine.index.requests import Indexer
from engine.ports.clock import Timer
from protocol.frames import Frame
from protocol.positions import Cut

RETRY_S = 5.0
STUCK_AFTER = 3  # failures: the next try may succeed, and who is told that there is no room gives up
FREE_SLICE = 2000
FREE_SLICE_EVERY_S = 0.002


class Checkpoints:
    """`reached`: position of the head's lineage up to which LMDB holds everything; `failures` counts,
    `in_a_row` those since the last that did not fail."""

    def __init__(
        self, group: GroupCore, indexer: Indexer, when_clones_durable: Callable[[Callable[[], None]], None]
    ) -> None:
        self.reached = 0
        self.failures = 0
        self.in_a_row = 0
        self.indexer = indexer
        self._group = group
        self._when_clones_durable = when_clones_durable
        self._waiting: list[tuple[int, Callable[[Cut], None]]] = []
        self._running = False
        self._held_by: set[str] = set()
        self._retry_timer: Timer | None = None
        self._freeing: list[Layer] = []
        self._free_timer: Timer | None = None
        self._branches: dict[int, int] = {}  # timelines left with frames not indexed, by their end
        group.listeners.head.append(self.head_moved)
        group.listeners.branch_grew.append(self._branch_grew)
        group.listeners.branch_failed.append(self._branch_failed)
        group.listeners.frame.append(self._on_frame)

    def _on_frame(self, frame: Frame) -> None:
        settings = self._group.settings
        due = frame.prefix.end - self.reached >= settings.checkpoint_after_bytes
        if due or self._group.memtable.layers[-1].count >= settings.memtable_soft:
            self.begin()

    def head_moved(self, left: Cut, position: int) -> None:
        """The head left a timeline at `left` for one that goes on at `position`: what was written to the
        first is indexed too, so that it stays readable."""
        self.reached = min(self.reached, position)
        # The new line may never come to where the old one was.
        self._waiting = [(min(end, position), callback) for end, callback in self._waiting]
        if left.timeline:
            self._branches[left.timeline] = left.position

    def _branch_grew(self, end: Cut) -> None:
        self._branches[end.timeline] = end.position
        if self._group.memtable.layers[-1].count >= self._group.settings.memtable_soft:
            self.begin()

    def _branch_failed(self, timeline: int) -> None:
        self._branches.pop(timeline, None)

    def indexed(self, timeline: int) -> bool:
        """Whether LMDB holds everything of a timeline that is not on the head's lineage."""
        return timeline not in self._branches

    def hold(self, who: str, *, on: bool) -> None:
        """Begin none for a while, for one or several that ask for it by name: who installs a base says what
        is indexed, and who drops a branch takes away timelines that a plan would name."""
        if on:
            self._held_by.add(who)
        elif who in self._held_by:
            self._held_by.remove(who)
            self.begin()

    @property
    def running(self) -> bool:
        """Whether one is under way, or is to be tried again."""
        return self._running

    @property
    def failing(self) -> bool:
        """Whether the last try failed, and the next one is to come: nothing is being carried out."""
        return self._retry_timer is not None

    @property
    def stuck(self) -> bool:
        """Whether it failed so often in a row that nobody should wait for it."""
        return self.in_a_row >= STUCK_AFTER

    def begin(self) -> None:
        """Begin a checkpoint of everything written, unless one runs or there is nothing to do."""
        group = self._group
        if self._running or self._held_by or group.failed or not group.head:
            return
        if group.writer.written == self.reached and not self._branches:
            return
        self._running = True
        group.memtable.freeze()
        self._plan(group.end)

    def when_indexed(self, callback: Callable[[Cut], None]) -> None:
        """Call back with a cut of the head's lineage up to which LMDB holds everything, at or past what is
        written now."""
        if self._group.writer.written == self.reached and not self._running and not self._branches:
            callback(self._group.end)
        else:
            self._waiting.append((self._group.writer.written, callback))
            self.begin()

    def _tell_waiting(self, target: Cut) -> None:
        if not self._group.holds_cut(target):
            return
        waiting, self._waiting = self._waiting, []
        for position, callback in waiting:
            if position <= target.position:
                callback(target)
            else:
                self._waiting.append((position, callback))

    def _plan(self, target: Cut) -> None:
        timelines = tuple(self._group.timelines.all())
        ends = sorted(self._branches.items())

        def start() -> None:
            branches = tuple(Cut(timeline, end) for timeline, end in ends if timeline in self._branches)
            plan = CheckpointPlan(
                target=target, durable=target.position, timelines=timelines, branches=branches
            )
            self.indexer.start(plan, lambda failure, _: self._done(plan, failure))

        def durable(error: OSError | None) -> None:
            if error is None:
                self._when_clones_durable(start)

        if target.timeline == self._group.head.timeline:
            self._group.writer.when_durable(target.position, durable)
        else:
            durable(None)  # the head left it, and leaves nothing that is not durable

    def _done(self, plan: CheckpointPlan, failure: Exception | None) -> None:
        group, target = self._group, plan.target
        if failure is not None:
            self.failures += 1
            self.in_a_row += 1
            group.emit("checkpoint.failed", group=group.name, position=str(target), error=str(failure))
            self._retry_timer = group.clock.call_later(RETRY_S, lambda: self._again(target))
            return
        overloaded = group.overloaded
        self.in_a_row = 0
        for branch in plan.branches:
            if self._branches.get(branch.timeline) == branch.position:
                del self._branches[branch.timeline]
        fork = next((span.end for span in group.spans() if span.timeline == target.timeline), 0)
        self.reached = max(self.reached, min(target.position, fork))
        self._running = False
        self._freeing.append(group.memtable.drop_frozen())
        group.clock.call_soon(self._free_slice)
        group.relieve(waited=overloaded)
        if group.overloaded:
            # Everyone waits for the next one, so no frame will come to begin it.
            self.begin()
        self._tell_waiting(target)
        if self._waiting:
            self.begin()
        for listener in group.listeners.indexed:
            listener()

    def _again(self, target: Cut) -> None:
        self._retry_timer = None
        self._plan(target)

    def _free_slice(self) -> None:
        """Free a dropped layer a little at a time: half a million objects at once would stall hosts."""
        if not self._freeing:
            return
        volumes = self._freeing[0].volumes
        for key, versions in list(volumes.items())[:1]:
            if versions.pop(FREE_SLICE):
                del volumes[key]
        if not volumes:
            self._freeing.pop(0)
        if self._freeing:
            self._free_timer = self._group.clock.call_later(FREE_SLICE_EVERY_S, self._free_slice)

    def close(self) -> None:
        """Stop timers."""
        for timer in (self._retry_timer, self._free_timer):
            if timer is not None:
                timer.cancel()
        self._freeing.clear()
        self._waiting.clear()
