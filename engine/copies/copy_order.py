"""Which copies exist on one lineage, in order, kept up to date as the journal says more.

A site has tens of thousands of backups and is asked for one of them, for a page of them, or for the newest.
Whoever went through all of them each time would hold up hosts; so the answer to "which are there?" is worked
out once for a lineage and then changed by each record.

A copy is there unless a deletion on the lineage counts against it. One that was ever locked stays in the rows
even then: whether its lock still holds depends on the time, and is asked when it is listed (`doubtful`).

Pure: no I/O, no clock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from engine.history.timelines import Places, Span
from protocol.positions import POSITION_MAX, Cut

Place = tuple[int, int]  # timeline, position of an event
Row = tuple[int, int]  # position, timeline: positions order a lineage


class Taken(Protocol):
    """What is asked of a copy."""

    @property
    def volumes(self) -> tuple[int, ...]:
        """Their ids."""

    @property
    def cut(self) -> Cut:
        """What it shows."""

    @property
    def utc_ns(self) -> int:
        """When it was taken."""

    @property
    def label(self) -> str:
        """Empty if it has none."""

    @property
    def by_schedule(self) -> bool:
        """Whether it looks like one that a schedule took."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the journal says of one copy: where it was deleted, and whether it was ever locked."""

    deletions: Collection[Place]
    was_locked: bool


class LineageCopies:
    """Rows of one lineage. `open`: nothing that is known of its last timeline lies past the end that was
    asked for, so what comes next on that timeline belongs to it."""

    def __init__(self, spans: list[Span], last_known: int) -> None:
        """`last_known`: the position of the last record on the last span's timeline."""
        self.spans = list(spans)
        if spans and spans[-1].end > last_known:
            last = spans[-1]
            self.spans[-1] = Span(last.timeline, last.lane, last.start, POSITION_MAX)
        self.places = Places(self.spans)
        self.rows: list[Row] = []
        self.unlabelled: list[Row] = []
        self.doubtful: set[Place] = set()
        # Deleted copies, of any lineage, of which it is not known that their cuts were given up for good.
        self.pending: set[Place] = set()
        self.durable = 0
        # What must stay readable of it (`CopyTable.retained`), and what that was worked out of.
        self.retained: tuple[tuple[object, ...], frozenset[Cut]] = ((), frozenset())
        self._by_schedule: dict[tuple[int, ...], list[Row]] = {}

    def is_of(self, spans: list[Span], last_known: int) -> bool:
        """Whether these spans hold the same records."""
        mine = self.spans
        if len(spans) != len(mine) or spans[:-1] != mine[:-1]:
            return False
        if not spans:
            return True
        one, other = mine[-1], spans[-1]
        if (one.timeline, one.start) != (other.timeline, other.start):
            return False
        return one.end == other.end or min(one.end, other.end) > last_known

    def fill(self, copies: Iterable[tuple[Place, Taken, Standing]]) -> None:
        """Take in all copies that are known: once, in their order, where `put` looks for each one's place."""
        for place, copy, standing in copies:
            if self._judge(place, standing):
                for rows in self._lists_of(copy):
                    rows.append(place[::-1])
        for rows in (self.rows, self.unlabelled, *self._by_schedule.values()):
            rows.sort()

    def put(self, place: Place, copy: Taken, standing: Standing) -> None:
        """Say again of one copy whether it is there."""
        there, row = self._judge(place, standing), place[::-1]
        for rows in self._lists_of(copy):
            at = bisect_left(rows, row)
            was = at < len(rows) and rows[at] == row
            if there and not was:
                rows.insert(at, row)
            elif was and not there:
                del rows[at]

    def _lists_of(self, copy: Taken) -> Iterator[list[Row]]:
        """Those that a copy's row is in."""
        yield self.rows
        if not copy.label:
            yield self.unlabelled
        if copy.by_schedule:
            yield self._by_schedule.setdefault(copy.volumes, [])

    def _judge(self, place: Place, standing: Standing) -> bool:
        """Whether a copy has a row."""
        here = place in self.places
        deleted = here and any(each in self.places for each in standing.deletions)
        if deleted and standing.was_locked:
            self.doubtful.add(place)
            return True
        self.doubtful.discard(place)
        return here and not deleted

    def __contains__(self, place: Place) -> bool:
        row = place[::-1]
        found = bisect_left(self.rows, row)
        return found < len(self.rows) and self.rows[found] == row

    def before(self, position: int) -> list[Row]:
        """Rows of copies whose marks lie before a position."""
        return self.rows[: bisect_left(self.rows, (position,))]

    def taken_before(self, copies: Mapping[Place, Taken], utc_ns: int, position: int) -> list[Row]:
        """Rows of copies taken before a time, or at it and before a position. Times never go back along a
        lineage, so they order it as positions do."""

        def when(row: Row) -> tuple[int, int]:
            return copies[row[::-1]].utc_ns, row[0]

        return self.rows[: bisect_left(self.rows, (utc_ns, position), key=when)]

    def last_by_schedule(
        self, copies: Mapping[Place, Taken], volumes: Iterable[int], hidden: Callable[[Place], bool]
    ) -> list[Place]:
        """Of each set of volumes that is backed up the newest copy that is not `hidden` and has all of
        `volumes` that were there at its cut: a volume's id is the position at which it began."""
        wanted, found = set(volumes), []
        for held, rows in self._by_schedule.items():
            # A copy from before the first volume that it lacks is whole.
            until = min(wanted.difference(held), default=POSITION_MAX)
            at = bisect_right(rows, until, key=lambda row: copies[row[::-1]].cut.position)
            found += next(([row[::-1]] for row in reversed(rows[:at]) if not hidden(row[::-1])), [])
        return found
