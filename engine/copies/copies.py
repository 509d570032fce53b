"""The copy management table: one row a backup, derived from events of the journal (the method's figure 3).

A copy names a cut; its bytes are the journal's, and later the index's, and cost nothing more until they
change. `Mark` makes it, `CopyPinned` and `CopyDeleted` change what is to be done with it. As all records they
count on the lineages that they lie on: a branch still has a backup that was deleted elsewhere. `CopyLocked`
counts everywhere: while a lock holds, and each site says by its own clock how long that is, no deletion does.

A deleted copy keeps its label: labels never change what they mean, at a site that lags behind neither. So
its row stays for ever, and nothing that is asked often may go through all rows: a copy is found by label, id
or cut in a dictionary, and what is there on a lineage is kept in order (engine.copies.copy_order).

Pure: no I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import assert_never

from engine.copies.copy_locks import NO_LOCK, CopyLock
from engine.copies.copy_order import LineageCopies, Place, Row, Standing
from engine.history.timelines import Places, Span, holds
from protocol.errors import NotFound, Refused
from protocol.events import Consistency, CopyDeleted, CopyLocked, CopyPinned, CopyRecord, Mark
from protocol.positions import POSITION_MAX, Cut

# Lineages that are asked of in turn: the head's, and those of branches and past cuts.
LINEAGES_KEPT = 4
_HEX_DIGITS = frozenset("0123456789abcdef")


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

    @property
    def by_schedule(self) -> bool:
        """Whether it looks like one that a schedule took: labelled by nobody, and of no earlier cut."""
        return not self.label and not self.retroactive


class CopyTable:
    """Every copy that this site knows of in one group."""

    def __init__(self) -> None:
        self.lock: CopyLock = NO_LOCK
        self.revision = 0  # counts what changed which copies there are, or which may be given up
        self._locks: dict[int, dict[Place, int]] = {}  # by copy: seconds, by the event that says so
        self._pins: dict[int, dict[Place, bool]] = {}
        self._deletions: dict[int, set[Place]] = {}
        self._begin({})

    def _begin(self, copies: dict[Place, Copy]) -> None:
        """With these rows, and what the journal says of them."""
        self.revision += 1
        # Of whatever timeline: what is durable past it gives up nothing more.
        self._last_deletion = max((at for each in self._deletions.values() for _, at in each), default=0)
        self._copies: dict[Place, Copy] = {}
        self._by_id: dict[int, set[Place]] = {}
        self._by_label: dict[str, set[Place]] = {}
        self._by_cut: dict[Cut, set[Place]] = {}
        self._deleted: set[Place] = set()  # on any lineage
        # By cut, how many copies that were never deleted show it. A set made of a plain dictionary takes the
        # hashes that it has; a cut's own is worked out in Python.
        self._undeleted: dict[Cut, int] = {}
        self._last: dict[int, int] = {}  # by timeline, the position of its last record
        self._lineages: list[LineageCopies] = []
        for place, copy in copies.items():
            self._add_row(place, copy)
        for said in (self._locks, self._pins, self._deletions):
            for places in said.values():
                for timeline, position in places:
                    self._note(timeline, position)

    def apply(
        self, timeline: int, frame_position: int, position: int, utc_ns: int, record: CopyRecord
    ) -> None:
        """Take in a record; seeing the same one again is fine."""
        place = (timeline, position)
        match record:
            case Mark():
                self._marked(place, frame_position, utc_ns, record)
            case CopyPinned():
                self._pins.setdefault(record.copy_id, {})[place] = record.pinned
            case CopyDeleted():
                self._deletions.setdefault(record.copy_id, set()).add(place)
                self._last_deletion = max(position, self._last_deletion)
            case CopyLocked():
                self._locks.setdefault(record.copy_id, {})[place] = record.lock_s
            case _:
                assert_never(record)
        self._note(timeline, position)
        if not isinstance(record, CopyPinned):
            self.revision += 1
            for each in self._by_id.get(record.copy_id, ()):
                self._changed(each)

    def _note(self, timeline: int, position: int) -> None:
        self._last[timeline] = max(position, self._last.get(timeline, 0))

    def _marked(self, place: Place, frame_position: int, utc_ns: int, event: Mark) -> None:
        timeline, position = place
        copy = Copy(
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
        if self._copies.get(place, copy) != copy:
            self._begin({**self._copies, place: copy})  # another event at the place of one that was dropped
        else:
            self._add_row(place, copy)

    def _add_row(self, place: Place, copy: Copy) -> None:
        known = place in self._copies
        self._copies[place] = copy
        self._by_id.setdefault(copy.id, set()).add(place)
        self._by_cut.setdefault(copy.cut, set()).add(place)
        if copy.label:
            self._by_label.setdefault(copy.label, set()).add(place)
        if not known:
            self._undeleted[copy.cut] = self._undeleted.get(copy.cut, 0) + 1
        self._note(*place)
        self._changed(place)

    def _changed(self, place: Place) -> None:
        """What is known of a copy is another: whatever was worked out of it follows."""
        copy = self._copies[place]
        standing = self._standing(copy)
        if standing.deletions and place not in self._deleted:
            self._deleted.add(place)
            self._undeleted[copy.cut] -= 1
            if not self._undeleted[copy.cut]:
                del self._undeleted[copy.cut]
        for lineage in self._lineages:
            lineage.put(place, copy, standing)
            if standing.deletions:
                lineage.pending.add(place)

    def _standing(self, copy: Copy) -> Standing:
        return Standing(self._deletions.get(copy.id, ()), copy.id in self._locks)

    def forget(self, timeline: int, position: int) -> None:
        """Leave out what a timeline says from a position on. A clone says nothing: then the work of all other
        copies is not done again."""
        if self._last.get(timeline, -1) < position:
            return

        def gone(place: Place) -> bool:
            return place[0] == timeline and place[1] >= position

        for copy_id, pins in self._pins.items():
            self._pins[copy_id] = {place: each for place, each in pins.items() if not gone(place)}
        for copy_id, locks in self._locks.items():
            self._locks[copy_id] = {place: each for place, each in locks.items() if not gone(place)}
        for copy_id, places in self._deletions.items():
            self._deletions[copy_id] = {place for place in places if not gone(place)}
        self._begin({place: each for place, each in self._copies.items() if not gone(place)})

    # -- on a lineage

    def at(self, spans: list[Span]) -> list[Copy]:
        """Copies on a lineage, oldest first. All of them: for what is asked often there is less below."""
        lineage = self._on(spans)
        return list(self._shown(lineage, lineage.rows))

    def count(self, spans: list[Span]) -> int:
        """How many there are."""
        lineage = self._on(spans)
        return len(lineage.rows) - sum(self._hidden(lineage, place) for place in lineage.doubtful)

    def newest(self, spans: list[Span], before: int | None = None) -> Iterator[Copy]:
        """The same as `at`, newest first, of those whose marks lie before a position. Each is looked up when
        it is asked for: whoever wants a few pays for no others."""
        lineage = self._on(spans)
        return self._shown(lineage, reversed(lineage.before(POSITION_MAX if before is None else before)))

    def unlabelled(self, spans: list[Span]) -> Iterator[Copy]:
        """Those without a label, as `newest`."""
        lineage = self._on(spans)
        return self._shown(lineage, reversed(lineage.unlabelled.copy()))

    def taken_before(self, spans: list[Span], utc_ns: int, position: int) -> Iterator[Copy]:
        """Those taken before a time, or at it and, by their marks, before a position; as `newest`."""
        lineage = self._on(spans)
        return self._shown(lineage, reversed(lineage.taken_before(self._copies, utc_ns, position)))

    def last_by_schedule(self, spans: list[Span], volumes: Iterable[int]) -> Copy | None:
        """The newest copy that counts as a run of a schedule: with all of these volumes (ids) that were there
        then, as it was, and not labelled by somebody."""
        lineage = self._on(spans)
        found = lineage.last_by_schedule(self._copies, volumes, lambda place: self._hidden(lineage, place))
        newest = max(found, key=lambda place: place[1], default=None)
        return None if newest is None else self._as_pinned(lineage.places, self._copies[newest])

    def of_cut(self, spans: list[Span], cut: Cut) -> list[Copy]:
        """Those that show exactly this cut, oldest first."""
        return self._living(spans, self._by_cut.get(cut, ()))

    def find(self, spans: list[Span], name: str, subject: str) -> Copy:
        """The copy with that label, or id as 16 hex digits; NotFound names `subject`."""
        places = set(self._by_label.get(name, ())) if name else set()
        copy_id = int(name, 16) if len(name) == 16 and set(name) <= _HEX_DIGITS else None
        if copy_id is not None:
            places |= self._by_id.get(copy_id, set())
        found = self._living(spans, places)
        if not found:
            raise NotFound(
                f"there is no backup {name!r} of {subject} here",
                subject=subject,
                next_step="`farshore backup list` shows those that exist",
            )
        return found[0]

    def require_free(self, spans: list[Span], label: str, subject: str) -> None:
        """Refused if a copy of that label was ever taken: labels never change what they mean."""
        here = Places(spans)
        taken = [place for place in self._by_label.get(label, ()) if place in here]
        if taken:
            deleted = " and was deleted" if not self._living(spans, taken) else ""
            raise Refused(
                f"a backup labelled {label!r} exists already{deleted}",
                subject=subject,
                next_step="choose another label; `farshore backup list` shows those taken",
            )

    def _on(self, spans: list[Span]) -> LineageCopies:
        """What is known of a lineage; those asked of last are kept."""
        last_known = self._last.get(spans[-1].timeline, -1) if spans else -1
        kept = self._lineages
        for at, lineage in enumerate(kept):
            if lineage.is_of(spans, last_known):
                kept.insert(0, kept.pop(at))
                return lineage
        made = LineageCopies(spans, last_known)
        made.fill((place, copy, self._standing(copy)) for place, copy in self._copies.items())
        made.pending = set(self._deleted)
        self._lineages = [made, *kept[: LINEAGES_KEPT - 1]]
        return made

    def _shown(self, lineage: LineageCopies, rows: Iterable[Row]) -> Iterator[Copy]:
        for row in rows:
            place = row[::-1]
            copy = self._copies.get(place)  # a list that is read slowly outlives a branch that is dropped
            if copy is not None and not self._hidden(lineage, place):
                yield self._as_pinned(lineage.places, copy)

    def _living(self, spans: list[Span], places: Collection[Place]) -> list[Copy]:
        if not places:
            return []
        lineage = self._on(spans)
        return list(self._shown(lineage, sorted(place[::-1] for place in places if place in lineage)))

    def _hidden(self, lineage: LineageCopies, place: Place) -> bool:
        """Whether a deletion counts against one of its rows: that of a copy whose lock has ended."""
        return place in lineage.doubtful and not self.lock.locked(self._copies[place].id)

    def is_pinned(self, spans: list[Span], copy: Copy) -> bool:
        """Whether a copy that was found on the lineage before is pinned by now."""
        return copy.id in self._pins and self._as_pinned(Places(spans), copy).pinned

    def _as_pinned(self, here: Places, copy: Copy) -> Copy:
        """With the newest word on whether it is pinned; positions grow along a lineage."""
        pins = self._pins.get(copy.id)
        if not pins:
            return copy
        said = [(place[1], pin) for place, pin in pins.items() if place in here]
        return replace(copy, pinned=max(said)[1]) if said else copy

    # -- what is kept

    def cuts(self) -> set[Cut]:
        """What every copy ever taken shows, deleted ones too."""
        return set(self._by_cut)

    def said(self, spans: list[Span], durable: int) -> tuple[object, ...]:
        """Another one as soon as `retained` or `given_up` may be, but for what the site's lock says: neither
        need be worked out of tens of thousands of copies again while nothing changed."""
        return self.revision, min(durable, self._last_deletion + 1), self._on(spans)

    def retained(self, spans: list[Span], durable: int, *, without: Collection[int] = ()) -> frozenset[Cut]:
        """The cuts that must stay readable, `without` the copies of these ids. `spans` are the head's
        lineage, `durable` how far it is: a deletion that a power loss may take gives up nothing. A copy of a
        branch stays until it is deleted there. Neither before the site's retention lock lets go of it. The
        same object as before while nothing changed."""
        lineage = self._on(spans)
        if without:
            return frozenset(self._retained(lineage, spans, durable, without))
        said = (self.revision, min(durable, self._last_deletion + 1), self.lock.moment)
        if lineage.retained[0] != said:
            lineage.retained = said, frozenset(self._retained(lineage, spans, durable, without))
        return lineage.retained[1]

    def _retained(
        self, lineage: LineageCopies, spans: list[Span], durable: int, without: Collection[int]
    ) -> set[Cut]:
        cuts = set(self._undeleted)
        if without:
            places = {place for each in without for place in self._by_id.get(each, ())} - self._deleted
            alone = Counter(self._copies[place].cut for place in places)
            cuts -= {cut for cut, count in alone.items() if count == self._undeleted[cut]}
        if durable < lineage.durable:
            lineage.pending = set(self._deleted)
        lineage.durable = durable
        # What was given up for good is not looked at again: there are more such copies with every day.
        for place in self._deleted if self.lock.waits else tuple(lineage.pending):
            copy = self._copies[place]
            deletion = None if self.lock.locked(copy.id) else self._gives_up(spans, durable, place, copy)
            if deletion is None or not self.lock.gave_up(deletion):
                if copy.id not in without:
                    cuts.add(copy.cut)
            elif not self.locks_of(copy.id):
                lineage.pending.discard(place)
        return cuts

    def given_up(self, spans: list[Span], durable: int) -> Iterator[tuple[Copy, Place]]:
        """Copies that a deletion counts against, with the place of that which does so first; as
        `retained`."""
        for place in self._deleted:
            copy = self._copies[place]
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

    def lock_times(self) -> Iterator[tuple[Place, int]]:
        """Where copies were locked, and for how many seconds."""
        for locks in self._locks.values():
            yield from locks.items()

    def ever_locked(self) -> list[int]:
        """Ids of copies that are known here and were ever locked."""
        return [copy_id for copy_id in self._locks if copy_id in self._by_id]

    def every(self) -> Iterator[Copy]:
        """Copies on any lineage, deleted ones too."""
        yield from self._copies.values()

    def was_deleted(self, copy_id: int) -> bool:
        """Whether a copy was deleted on any lineage."""
        return bool(self._deletions.get(copy_id))
