"""The copy management table: one row a backup, derived from events of the journal (the method's figure 3).

A copy names a cut; its bytes are the journal's, and later the index's, and cost nothing more until they
change. `Mark` makes it, `CopyPinned` and `CopyDeleted` change what is to be done with it. As all records they
count on the lineages that they lie on: a branch still has a backup that was deleted elsewhere. `CopyLocked`
counts everywhere: while a lock holds, and each site says by its own clock how long that is, no deletion does.

A deleted copy keeps its label: labels never change what they mean, at a site that lags behind neither.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from operator import attrgetter
from typing import Protocol, assert_never

from engine.history.timelines import Span, holds
from protocol.errors import NotFound, Refused
from protocol.events import Consistency, CopyDeleted, CopyLocked, CopyPinned, CopyRecord, Mark
from protocol.positions import Cut

Place = tuple[int, int]  # timeline, position of an event


class CopyState(Enum):
    """A copy at one site. PENDING: its mark is not durable there yet. VERIFIED: every byte of it was read and
    compared since. DAMAGED: some cannot be read. EXPIRED: its cut cannot be read there, as it was truncated
    before the site knew of the copy, or never came."""

    PENDING = "PENDING"
    AVAILABLE = "AVAILABLE"
    VERIFIED = "VERIFIED"
    DAMAGED = "DAMAGED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One row. `cut` is what it shows, `utc_ns` when it was taken; (timeline, position) is where its mark
    is; `retroactive`: the cut is an earlier one than that."""

    id: int
    label: str
    cut: Cut
    volumes: tuple[int, ...]
    utc_ns: int
    consistency: Consistency
    pinned: bool
    timeline: int
    position: int
    retroactive: bool

    @property
    def name(self) -> str:
        """What an operator calls it: its label, or else its id."""
        return self.label or f"{self.id:016x}"


class CopyLock(Protocol):
    """What a site's retention lock says of its copies (engine.retention.retention_lock)."""

    def locked(self, copy_id: int) -> bool:
        """Whether a copy may not be given up now, whatever was said of it."""

    def gave_up(self, deletion: Place) -> bool:
        """Whether the deletion at that place has counted for long enough to give up its copy's cut."""


class NoLock:
    """Everything may be given up at once."""

    def locked(self, copy_id: int) -> bool:
        """See `CopyLock.locked`."""
        return False

    def gave_up(self, deletion: Place) -> bool:
        """See `CopyLock.gave_up`."""
        return True


NO_LOCK = NoLock()


class CopyTable:
    """Every copy that this site knows of in one group."""

    def __init__(self) -> None:
        self.lock: CopyLock = NO_LOCK
        self._locks: dict[int, dict[Place, int]] = {}  # by copy: seconds, by the event that says so
        self._copies: dict[Place, Copy] = {}
        self._pins: dict[int, dict[Place, bool]] = {}
        self._deletions: dict[int, set[Place]] = {}

    def apply(
        self, timeline: int, frame_position: int, position: int, utc_ns: int, record: CopyRecord
    ) -> None:
        """Take in a record; seeing the same one again is fine."""
        match record:
            case Mark():
                self._marked(timeline, frame_position, position, utc_ns, record)
            case CopyPinned():
                self._pins.setdefault(record.copy_id, {})[timeline, position] = record.pinned
            case CopyDeleted():
                self._deletions.setdefault(record.copy_id, set()).add((timeline, position))
            case CopyLocked():
                self._locks.setdefault(record.copy_id, {})[timeline, position] = record.lock_s
            case _:
                assert_never(record)

    def _marked(self, timeline: int, frame_position: int, position: int, utc_ns: int, event: Mark) -> None:
        self._copies[timeline, position] = Copy(
            id=event.copy_id,
            label=event.label,
            cut=event.cut or Cut(timeline, frame_position),
            volumes=event.volumes,
            utc_ns=utc_ns,
            consistency=event.consistency,
            pinned=event.pinned,
            timeline=timeline,
            position=position,
            retroactive=event.cut is not None,
        )

    def forget(self, timeline: int, position: int) -> None:
        """Leave out what a timeline says from a position on."""

        def gone(place: Place) -> bool:
            return place[0] == timeline and place[1] >= position

        self._copies = {place: each for place, each in self._copies.items() if not gone(place)}
        for copy_id, pins in self._pins.items():
            self._pins[copy_id] = {place: each for place, each in pins.items() if not gone(place)}
        for copy_id, locks in self._locks.items():
            self._locks[copy_id] = {place: each for place, each in locks.items() if not gone(place)}
        for copy_id, places in self._deletions.items():
            self._deletions[copy_id] = {place for place in places if not gone(place)}

    def at(self, spans: list[Span]) -> list[Copy]:
        """Copies on a lineage, oldest first."""
        found = [copy for copy in self._on(spans) if not self._deleted(spans, copy)]
        return [self._as_pinned(spans, copy) for copy in found]

    def cuts(self) -> set[Cut]:
        """What every copy ever taken shows, deleted ones too."""
        return {copy.cut for copy in self._copies.values()}

    def retained(self, spans: list[Span], durable: int, *, without: int = 0) -> set[Cut]:
        """The cuts that must stay readable, `without` the copy of that id. `spans` are the head's lineage,
        `durable` how far it is: a deletion that a power loss may take gives up nothing. A copy of a branch
        stays until it is deleted there. Neither before the site's retention lock lets go of it."""

        def kept(place: Place, copy: Copy) -> bool:
            if copy.id == without:
                return False
            if self.lock.locked(copy.id):
                return True
            deletion = self._gives_up(spans, durable, place, copy)
            return deletion is None or not self.lock.gave_up(deletion)

        return {copy.cut for place, copy in self._copies.items() if kept(place, copy)}

    def given_up(self, spans: list[Span], durable: int) -> Iterator[tuple[Copy, Place]]:
        """Copies that a deletion counts against, with the place of that which does so first; as
        `retained`."""
        for place, copy in self._copies.items():
            deletion = self._gives_up(spans, durable, place, copy)
            if deletion is not None:
                yield copy, deletion

    def _gives_up(self, spans: list[Span], durable: int, place: Place, copy: Copy) -> Place | None:
        deletions = self._deletions.get(copy.id)
        if not deletions:
            return None
        if not holds(spans, *place):
            return min(deletions)
        counting = (each for each in deletions if holds(spans, *each) and each[1] < durable)
        return min(counting, key=lambda each: each[1], default=None)

    @property
    def has_locks(self) -> bool:
        """Whether any copy was ever locked."""
        return bool(self._locks)

    def locks_of(self, copy_id: int) -> Mapping[Place, int]:
        """For how many seconds a copy was locked, by the place of the event that says so."""
        return self._locks.get(copy_id, {})

    def lock_places(self) -> Iterator[Place]:
        """Where copies were locked."""
        for locks in self._locks.values():
            yield from locks

    def every(self) -> Iterator[Copy]:
        """Copies on any lineage, deleted ones too."""
        yield from self._copies.values()

    def was_deleted(self, copy_id: int) -> bool:
        """Whether a copy was deleted on any lineage."""
        return bool(self._deletions.get(copy_id))

    def find(self, spans: list[Span], name: str, subject: str) -> Copy:
        """The copy with that label, or id as 16 hex digits; NotFound names `subject`."""
        for copy in self.at(spans):
            if name in (copy.label, f"{copy.id:016x}"):
                return copy
        raise NotFound(
            f"there is no backup {name!r} of {subject} here",
            subject=subject,
            next_step="`farshore backup list` shows those that exist",
        )

    def require_free(self, spans: list[Span], label: str, subject: str) -> None:
        """Refused if a copy of that label was ever taken: labels never change what they mean."""
        for copy in self._on(spans):
            if copy.label == label:
                deleted = " and was deleted" if self._deleted(spans, copy) else ""
                raise Refused(
                    f"a backup labelled {label!r} exists already{deleted}",
                    subject=subject,
                    next_step="choose another label; `farshore backup list` shows those taken",
                )

    def _on(self, spans: list[Span]) -> list[Copy]:
        ranges = {span.timeline: range(span.start, span.end) for span in spans}
        none = range(0)
        found = [copy for (timeline, at), copy in self._copies.items() if at in ranges.get(timeline, none)]
        return sorted(found, key=attrgetter("position"))

    def _deleted(self, spans: list[Span], copy: Copy) -> bool:
        deletions = self._deletions.get(copy.id)
        if not deletions:
            return False  # at once: a list goes through thousands of copies, beside hosts
        return any(holds(spans, *place) for place in deletions) and not self.lock.locked(copy.id)

    def _as_pinned(self, spans: list[Span], copy: Copy) -> Copy:
        """With the newest word on whether it is pinned; positions grow along a lineage."""
        pins = self._pins.get(copy.id)
        if not pins:
            return copy
        said = [(place[1], pin) for place, pin in pins.items() if holds(spans, *place)]
        return replace(copy, pinned=max(said)[1]) if said else copy
