"""When a group's journal is shortened; what a truncation is, `engine.retention.truncation` says.

A segment is truncated once it lies outside the any-point window (by age or by bytes) and nobody needs its
frames: it is durable at the writer, every user of journal frames (`engine.retention.journal_space`) is past
it, the site's lock lets go of it (`engine.retention.retention_lock`), and it is not the last of the head's.
It must be in the index too: that is worked on, by beginning a checkpoint. One segment after the other, oldest
first; but the horizon goes past all of them at once, so that of a backlog only what none of it wrote again
moves into the index.

Which cuts a truncation gives up is decided here and holds from before the request on: a cut that is refused
from now on may still be whole for a moment, but never the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from engine.group.core import GroupCore
from engine.index.checkpoint_timing import Checkpoints
from engine.index.requests import Indexer
from engine.ports.clock import Timer
from engine.ports.store import ReadTransaction
from engine.retention.journal_space import JournalSpace
from engine.retention.kept import KeptHistory
from engine.retention.looking import OutsideWindow, Rest
from engine.retention.needed import (
    NO_ANCHOR,
    Keep,
    Retention,
    raised,
    same_name,
    up_to,
    what_to_keep,
)
from engine.retention.old_segments import OldSegment, remove_segment
from engine.retention.reclaim_requests import FIRST_BLOCK, SweepPlan, TruncatePlan, sweep_is_due
from engine.retention.retention_lock import RetentionLock
from protocol.errors import FarshoreError
from protocol.frames import Frame
from protocol.positions import Cut

POLL_S = 2.0
RETRY_S = 5.0
SWEEP_EVERY_S = 0.05
# Truncations for each slice of a sweep, while there is something to truncate: a backlog of segments may last
# for hours, or for ever. Fewer if somebody waits for the sweep, or the truncations come to nothing.
TRUNCATIONS_A_SLICE = 8
# Of the reserve, one part is left alone by a truncation, which gives back more than it takes.
RESERVE_PARTS = 4


class _Wish(NamedTuple):
    """What somebody asked a sweep for."""

    dropped: tuple[tuple[int, int], ...]
    when_done: Callable[[], None]


class _Tries:
    """Work that fails now and then: `said` why it did last, until it succeeds; `blocked` for a while."""

    def __init__(self, group: GroupCore) -> None:
        self.said = ""
        self.blocked = False
        self._group = group

    def failed(self, error: Exception) -> None:
        """Let it be until `blocked` is taken back."""
        self.blocked = True
        if str(error) != self.said:
            self.said = str(error)
            self._group.emit("fold.failed", group=self._group.name, error=self.said)


class Reclaim:
    """`promised`: how far the writing site said that it is durable there."""

    def __init__(
        self,
        group: GroupCore,
        kept: KeptHistory,
        lock: RetentionLock,
        space: JournalSpace,
        checkpoints: Checkpoints,
        indexer: Indexer,
    ) -> None:
        self.failures = 0
        self.promised = 0
        self._group = group
        self._kept = kept
        self._lock = lock
        self._space = space
        self._checkpoints = checkpoints
        self._indexer = indexer
        self._outside = OutsideWindow(group, space, lock)
        self._rest = Rest(group, space)
        # What was decided last, of what, and the retention that this made. Between two slices of a sweep
        # nothing is another, and of tens of thousands of backups deciding takes longer than a host may wait.
        self._decided: tuple[tuple[object, ...], Keep | None, Retention] = ((), None, Retention())
        self._copies: Set[Cut] = set()
        self._look_at = 0
        # A segment of which more is to be truncated, its end, and from which volume and block on.
        self._go_on: tuple[object, int, tuple[int, int]] = (None, 0, FIRST_BLOCK)
        self._running = False
        self._truncation_tries = _Tries(group)
        self._closed = False
        self._sweeping = False
        self._sweep_begun = False  # its first slice was done: until then one of before is not to go on
        self._sweep_due = False  # one is to begin
        self._looked_back = False  # for what was deleted in a run before, and not swept for
        self._sweep_tries = _Tries(group)
        self._swept_for: list[_Wish] = []  # the sweep under way
        self._wishes: list[_Wish] = []  # the next one
        self._truncations = 0  # since the last slice of a sweep
        self._held_by: set[str] = set()
        self._timers: dict[str, Timer] = {}
        group.listeners.frame.append(self._on_frame)
        group.listeners.indexed.append(self.consider)

    # -- recovery

    def load(self, transaction: ReadTransaction) -> None:
        """Take up what the index says, before any cut or digest is asked for."""
        self._kept.load(transaction)
        self._sweep_due = sweep_is_due(transaction)
        self._lock.load()

    def remove_truncated(self) -> None:
        """Remove files that a crash kept from going after their truncation."""
        for timeline, (end, _) in self._kept.retention.truncated.items():
            for segment in self._group.segments.of_timeline(timeline):
                if segment.start < end:
                    remove_segment(self._group, segment)

    def start(self) -> None:
        """Begin to look, now and then."""
        self.promised = 0
        self._kept.timed.load()
        self._copies = self._group.copies.cuts()
        self._after("poll", POLL_S, self._poll)

    # -- when

    def _on_frame(self, frame: Frame) -> None:
        self.promised = frame.prefix.durable
        self._space.spend(frame.prefix.frame_bytes)
        if frame.prefix.end >= self._look_at:
            self._look_at = frame.prefix.end + self._group.writer.segment_bytes // 4
            self._group.clock.call_soon(self.consider)

    def _poll(self) -> None:
        self._after("poll", POLL_S, self._poll)
        if self._rest.lasts:
            self._lock.look()  # its clock has to be written down in time
        else:
            self.consider()

    def consider(self) -> None:
        """Truncate the oldest segment if it is time, and see how full the journal is."""
        group = self._group
        self._rest.end()
        if self._closed or group.failed or not group.head:
            return
        self._lock.look()
        self._look_for_deletions()
        old = list(self._outside.segments(self.promised))
        # What the last try could not free counts as held until one succeeds, or each would be told twice.
        freeable_bytes = 0 if self._truncation_tries.said else sum(each.segment.size for each in old)
        indexed = [each for each in old if each.end <= self._checkpoints.reached]
        # Nor do hosts wait for what is not indexed, where that has failed again and again.
        blocked = self._truncation_tries.blocked or (self._checkpoints.stuck and not indexed)
        self._space.measure(freeable_bytes, blocked=blocked)
        if self._running or self._held_by:
            return
        if indexed and not self._truncation_tries.blocked and not self._sweeps_turn:
            self._truncate(indexed[0], indexed[-1])
            return
        if old and not indexed:
            self._checkpoints.begin()
        if indexed and not self._truncation_tries.blocked:
            self._sweep()
        elif self._wants_sweep and "sweep" not in self._timers:
            # Each frame may lead here: a timer that is set anew each time would never run out.
            self._after("sweep", SWEEP_EVERY_S, self._sweep)
        elif not old and not self._wants_sweep:
            self._rest.begin()

    @property
    def _wants_sweep(self) -> bool:
        return (self._sweep_due or self._sweeping) and not self._sweep_tries.blocked

    @property
    def _sweeps_turn(self) -> bool:
        """Whether a slice of a sweep comes before the next truncation."""
        soon = self._wishes or self._swept_for or self._truncation_tries.said
        return self._wants_sweep and self._truncations >= (1 if soon else TRUNCATIONS_A_SLICE)

    def _look_for_deletions(self) -> None:
        """What only deleted backups kept is to be given back, once their deletion is durable."""
        timelines, before = self._group.timelines, self._copies
        self._copies = self._retained()
        if not self._looked_back:
            self._look_back()
        if self._copies is before:
            return
        gone = (cut for cut in before - self._copies if cut.timeline in timelines)
        if any(same_name(timelines, cut) in self._kept.retention.kept for cut in gone):
            self._sweep_due = True  # once more, if one runs: it may have passed what that kept

    def _look_back(self) -> None:
        """What was kept for who ended with the last run goes, too. To decide costs much: not without need."""
        self._looked_back = True
        timelines, kept = self._group.timelines, self._kept.retention
        wanted = self._copies | self._kept.leases.cuts()
        if kept.kept.keys() - {same_name(timelines, cut) for cut in wanted if cut.timeline in timelines}:
            self._decide(kept.horizons)

    def _retained(self) -> frozenset[Cut]:
        return self._group.copies.retained(self._group.spans(), self._group.writer.durable)

    # -- reclaim

    def _truncate(self, old: OldSegment, last: OldSegment) -> None:
        """The oldest of those that can be; `last` is the newest."""
        group = self._group
        try:
            self._space.note_confirmed()
        except (FarshoreError, OSError) as error:
            self._failed(error)
            return
        horizons = raised(group.timelines, self._kept.retention.horizons, Cut(last.span.timeline, last.end))
        keep = self._decide(horizons)
        least_bytes = group.settings.reserve_bytes // RESERVE_PARTS
        plan = TruncatePlan(
            timeline=old.span.timeline,
            lane=old.span.lane,
            start=old.segment.start,
            end=old.end,
            keep=keep,
            room_bytes=max(0, group.disk.free_bytes() - least_bytes),
            after=self._go_on[2] if self._go_on[:2] == (old.segment, old.end) else FIRST_BLOCK,
        )
        self._running = True
        self._truncations += 1
        self._indexer.start(plan, partial(self._truncated, old))

    def _decide(self, horizons: frozenset[Cut]) -> Keep:
        """What stays from now on, for the index and for whoever asks for a cut."""
        group, before = self._group, self._kept.retention
        wanted = self._retained() | self._kept.leases.cuts()
        tails = self._kept.tails(horizons)
        table, reverts = group.timelines, group.volumes.all_reverts()
        said = (horizons, wanted, tails, table.all(), [*table.bases], reverts)
        known, keep, made = self._decided
        if keep is None or said != known or not (before is made or _as_decided(before, keep)):
            keep = what_to_keep(table, group.volumes, before, horizons, wanted, tails, self._kept.bounds.of)
            if before.kept.keys() - keep.cuts:
                self._sweep_due = True
            kept = {cut: before.kept.get(cut, NO_ANCHOR) for cut in keep.cuts}
            self._kept.retention = made = replace(before, horizons=keep.horizons, kept=kept)
            self._decided = (said, keep, made)
        return replace(keep, lane_horizons=up_to(keep.lane_horizons, self._dropped))

    @property
    def _dropped(self) -> tuple[tuple[int, int], ...]:
        return tuple(each for wish in (*self._swept_for, *self._wishes) for each in wish.dropped)

    @property
    def running(self) -> bool:
        """Whether a truncation or a slice of a sweep is under way."""
        return self._running

    def hold(self, who: str, *, on: bool) -> None:
        """Begin nothing for a while, for one or several that ask for it by name: who drops a branch takes
        away timelines that a plan would name."""
        if on:
            self._held_by.add(who)
        elif who in self._held_by:
            self._held_by.remove(who)
            self.consider()

    def _truncated(self, old: OldSegment, error: Exception | None, figures: tuple[int, ...]) -> None:
        self._running = False
        if self._closed:
            return
        if error is not None:
            self._failed(error)
            return
        self._truncation_tries.said = ""
        self._kept.reload()  # the index has the digests of frames that go; of a sweep it says nothing new
        match figures:
            case (_, _, volume, block):
                self._go_on = (old.segment, old.end, (volume, block))
            case _:
                try:
                    remove_segment(self._group, old.segment)
                except OSError as left:
                    self._failed(left)  # its file stays until the next start, and nobody looks at it
                    return
        self._ended()

    def _ended(self) -> None:
        """Something was done: there may be more, and hosts may go on."""
        was_overloaded = self._group.overloaded
        self.consider()
        self._group.relieve(waited=was_overloaded)

    def _failed(self, error: Exception) -> None:
        """Hosts are not held up for what does not work: they are told that there is no room."""
        self.failures += 1
        self._truncation_tries.failed(error)
        self._after("retry", RETRY_S, partial(self._again, self._truncation_tries))
        self._space.measure(0, blocked=True)
        self._ended()

    def _again(self, tries: _Tries) -> None:
        tries.blocked = False
        self.consider()

    # -- sweeping

    def sweep(
        self, dropped: tuple[tuple[int, int], ...] = (), when_done: Callable[[], None] = lambda: None
    ) -> None:
        """Have the index looked through for what is no longer needed: (lane, number) in `dropped` name
        branches that were dropped, from their first number on."""
        self._wishes.append(_Wish(dropped, when_done))
        self._sweep_due = True
        self.consider()

    def _sweep(self) -> None:
        """Begin with the next slice. One sweep comes to its end before the next begins, whatever is asked for
        meanwhile: who asks now and then would else keep it at its beginning for ever."""
        if self._running or self._closed or self._sweep_tries.blocked or self._held_by:
            return
        if not self._sweeping:
            self._sweep_due = self._sweep_begun = False
            self._swept_for, self._wishes = self._wishes, []
        keep = self._decide(self._kept.retention.horizons)
        self._sweeping = self._running = True
        self._truncations = 0
        plan = SweepPlan(begin=not self._sweep_begun, dropped=self._dropped, keep=keep)
        self._indexer.start(plan, self._swept)

    def _swept(self, error: Exception | None, figures: tuple[int, ...]) -> None:
        self._running = False
        if self._closed:
            return
        if error is not None:
            self.failures += 1
            self._sweep_tries.failed(error)
            self._after("sweep again", RETRY_S, partial(self._again, self._sweep_tries))
            self._ended()
            return
        self._sweep_tries.said = ""
        self._sweep_begun = True
        if figures[2]:
            self._sweeping = False
            done, self._swept_for = self._swept_for, []
            for wish in done:
                self._group.clock.call_soon(wish.when_done)
        self._ended()

    # -- timers

    def _after(self, name: str, delay_s: float, callback: Callable[[], None]) -> None:
        """One timer of each name."""

        def run() -> None:
            del self._timers[name]
            callback()

        before = self._timers.get(name)
        if before is not None:
            before.cancel()
        self._timers[name] = self._group.clock.call_later(delay_s, run)

    def close(self) -> None:
        """Stop timers."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()


def _as_decided(retention: Retention, keep: Keep) -> bool:
    return retention.horizons == keep.horizons and retention.kept.keys() == keep.cuts
