"""The room that a group's journal has, and who keeps it from being shortened.

`slots` are the users of journal frames, by name: reclaim (`engine.retention.reclaim`) stops at what the
slowest of them needs. As the journal fills, stages follow each other (`engine.retention.pressure`), each with
an event; in the last but one the slowest holder is made to let go. What it is known to have stays readable as
a lease, which follows it also while it does without, so that what changed since can be sent to it later. It
holds frames again once it has all that there was when it let go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine.group.core import GroupCore
from engine.journal.writer import READ_ONLY
from engine.ports.clock import Timer
from engine.retention.kept import KeptHistory
from engine.retention.pressure import Measure, Pressure, Stage
from engine.retention.retention_lock import RetentionLock
from protocol.errors import FarshoreError
from protocol.limits import SHIP_IN_FLIGHT_BYTES_MAX
from protocol.positions import Cut

# Hosts and the sender wait for a truncation while so many segments' room is left, or so many bytes: what they
# may have on the way.
ROOM_SEGMENTS = 2
ROOM_BYTES = SHIP_IN_FLIGHT_BYTES_MAX
ROOM_PART_MOST = 2  # of the capacity, for a journal so small that those bytes are much of it
THROTTLED_ROOM_S = 60.0
THROTTLED_BYTES_S_MIN = 256 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicationSlot:
    """A user of journal frames. `confirmed` gives the cut that it is known to have, None while that is not
    known; it needs every frame from there on. `detach` makes it do without. `remember`: what it has stays
    readable, and is known after a restart. `lets_go`: whether it may be let go before anybody has to wait."""

    confirmed: Callable[[], Cut | None]
    detach: Callable[[], None]
    remember: bool = True
    lets_go: Callable[[], bool] = lambda: False


class JournalSpace:
    """`behind`: hosts must wait, the journal is near its end and a truncation will make room. Whoever uses
    frames has a slot (`hold`, `release`); `on_stage` is told of every stage entered."""

    def __init__(
        self, group: GroupCore, kept: KeptHistory, lock: RetentionLock, consider: Callable[[], None]
    ) -> None:
        self._kept = kept
        self._lock = lock
        self._consider = consider
        self.slots: dict[str, ReplicationSlot] = {}
        self._without: dict[str, tuple[ReplicationSlot, int]] = {}  # let go, and what was written by then
        self.pressure = Pressure(throttle=group.settings.throttle)
        self.on_stage: list[Callable[[Stage], None]] = []
        self.behind = False
        self._throttled_until = 0.0
        self._throttle_timer: Timer | None = None
        self._group = group

    def hold(self, name: str, slot: ReplicationSlot) -> None:
        """From now on `slot` says what is needed under that name."""
        self._without.pop(name, None)
        self.slots[name] = slot

    def release(self, name: str) -> None:
        """Nothing is needed under that name; one that is not held is fine."""
        self._without.pop(name, None)
        self.slots.pop(name, None)

    def renamed(self, name: str, new: str) -> None:
        """A slot has another name, and its lease too."""
        if (slot := self.slots.pop(name, None)) is not None:
            self.slots[new] = slot
        if (without := self._without.pop(name, None)) is not None:
            self._without[new] = without
        self._kept.leases.renamed(lease_of(name), lease_of(new))

    def limit(self) -> int:
        """The position below which no holder needs anything."""
        return min([self._group.writer.written, *map(self._needs, self.slots)])

    def _needs(self, name: str) -> int:
        """The position of the head's lineage from which on a holder needs frames; 0 if that is not known."""
        cut = self.slots[name].confirmed() or self._kept.leases.get(lease_of(name))
        return cut.position if cut is not None and self._group.holds_cut(cut) else 0

    def cut_at(self, position: int) -> Cut | None:
        """The cut at a position of the head's lineage; None past its end and at 0."""
        spans = self._group.spans(self._group.writer.written)
        return next((Cut(s.timeline, position) for s in spans if s.start < position <= s.end), None)

    def note_confirmed(self) -> None:
        """Write down what holders have, those that do without included. OSError if the site's state cannot be
        written."""
        leases = self._kept.leases
        without = {name: slot for name, (slot, _) in self._without.items()}
        for name, slot in (without | self.slots).items():
            cut = slot.confirmed() if slot.remember else None
            if cut is not None and cut != leases.get(lease_of(name)) and self._kept.readable(cut):
                leases.hold(lease_of(name), cut, durable=True)

    def capacity(self, total_bytes: int) -> int:
        """Most that the journal can take, by its limit and by the room that there is."""
        group = self._group
        return min(group.settings.journal_limit_bytes, total_bytes + group.writer.room_bytes())

    def measure(self, reclaimable_bytes: int, *, blocked: bool) -> None:
        """See how full the journal is. `reclaimable_bytes` of it can be truncated, unless that is
        `blocked`."""
        group = self._group
        total = group.segments.total_bytes()
        capacity = self.capacity(total)
        most = min(ROOM_BYTES, capacity // ROOM_PART_MOST)
        near = capacity - total < max(most, ROOM_SEGMENTS * group.writer.segment_bytes)
        was_behind, self.behind = self.behind, near and reclaimable_bytes > 0 and not blocked
        measure = Measure(
            monotonic_s=group.clock.monotonic(),
            held_bytes=total - reclaimable_bytes,
            capacity_bytes=capacity,
            written=group.writer.written,
            lacking=group.writer.no_space not in ("", READ_ONLY) and not reclaimable_bytes,
        )
        for stage in self.pressure.step(measure):
            self._tell(stage, total, capacity)
        if self.pressure.stage in (Stage.DETACH, Stage.FULL):
            self._detach_slowest(self.slots)
        elif near and not reclaimable_bytes:
            self._detach_slowest({name: slot for name, slot in self.slots.items() if slot.lets_go()})
        elif not near:
            self._hold_again()
        # Room may come from elsewhere, or a truncation that was counted on be blocked: who waits is told.
        group.relieve(waited=was_behind)

    def confirmed(self) -> tuple[tuple[str, Cut | None], ...]:
        """What each holder is known to have."""
        return tuple((name, slot.confirmed()) for name, slot in self.slots.items())

    @property
    def calm(self) -> bool:
        """Whether there is room, nobody waits, and nobody does without."""
        return self.pressure.stage is Stage.NORMAL and not self.must_wait and not self._without

    @property
    def must_wait(self) -> bool:
        """Whether hosts and senders must wait, for a truncation or because they are slowed down."""
        return self.behind or self._throttle_timer is not None

    def spend(self, frame_bytes: int) -> None:
        """A frame was written. At the stage `throttle` hosts wait as long as it takes at a rate at which the
        room up to the next stage lasts for `THROTTLED_ROOM_S`; so they grow slower, and never stop."""
        if self.pressure.stage is not Stage.THROTTLE:
            return
        group = self._group
        now_s = group.clock.monotonic()
        rate = max(THROTTLED_BYTES_S_MIN, self.pressure.room_bytes / THROTTLED_ROOM_S)
        self._throttled_until = max(now_s, self._throttled_until) + frame_bytes / rate
        if self._throttle_timer is None:
            self._throttle_timer = group.clock.call_later(self._throttled_until - now_s, self._go_on)

    def _go_on(self) -> None:
        group = self._group
        self._throttle_timer = None
        left_s = self._throttled_until - group.clock.monotonic()
        if left_s > 0 and self.pressure.stage is Stage.THROTTLE:
            self._throttle_timer = group.clock.call_later(left_s, self._go_on)
        else:
            group.relieve()

    def close(self) -> None:
        """Stop the timer."""
        if self._throttle_timer is not None:
            self._throttle_timer.cancel()

    def _tell(self, stage: Stage, used_bytes: int, limit_bytes: int) -> None:
        left_s = self.pressure.time_to_full_s
        self._group.emit(
            "journal.pressure",
            group=self._group.name,
            stage=stage.value,
            used_bytes=used_bytes,
            limit_bytes=limit_bytes,
            time_to_full_s=None if left_s is None else round(left_s, 1),
        )
        for listener in self.on_stage:
            listener(stage)

    def _detach_slowest(self, slots: Mapping[str, ReplicationSlot]) -> None:
        group = self._group
        if not slots:
            return
        name = min(slots, key=self._needs)
        if self._needs(name) >= min(group.writer.durable, self._lock.limit()):
            return  # it would make no room: nothing more could be truncated
        try:
            self.note_confirmed()
        except (FarshoreError, OSError) as error:
            group.emit("fold.failed", group=group.name, error=str(error))
            return  # nobody lets go of what is not written down; tried again with the next look
        slot = self.slots.pop(name)
        if slot.remember:
            self._without[name] = (slot, group.writer.written)
        slot.detach()
        cut = self._kept.leases.get(lease_of(name))
        group.emit("journal.holder_detached", group=group.name, holder=name, position=str(cut or ""))
        group.clock.call_soon(self._consider)

    def _hold_again(self) -> None:
        """Let those that have caught up since hold what they need from here on."""
        for name, (slot, written) in list(self._without.items()):
            cut = slot.confirmed()
            if cut is not None and cut.position >= written and self._kept.journal_reaches(cut):
                self.hold(name, slot)


def lease_of(holder: str) -> str:
    """The name of the lease on what a holder is known to have."""
    return f"peer:{holder}"
