"""A round of verification: everything that a group holds, once, in slices, over as many runs as that takes.

A round is for what was written when it began. Where it is, is durable now and then, so that the next run of a
`verify --deep`, or of the daemon, goes on there. At its end every version that a copy of that time sees was
read and compared since the round began: the copy is verified as of then, unless damage concerns it.

    state table rounds    group\\0\\1    row of the round under way
                          group\\0\\2    row (UTC ns when the last whole round began, when it ended)

It says what to check next and takes in what came of it; asking the indexer and waiting are its user's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from engine.copies.copies import Copy
from engine.history.bases import base_at
from engine.history.held_frames import held_besides, held_pieces
from engine.history.timelines import holds_cut
from engine.integrity.faults import Damage, Fault
from engine.integrity.verify import Stretch, stretches
from engine.integrity.verify_slices import IndexSlice, JournalSlice, VerifyIndex, VerifyJournal
from protocol.bounds import AnyTimeline, Count, DigestOrNone, Position, TimelineId, UtcNs
from protocol.frames import NO_DIGEST
from protocol.limits import KEY_BYTES_MAX
from protocol.positions import Cut
from protocol.rows import pack_row
from protocol.wire import RowType

if TYPE_CHECKING:
    from engine.group.group import Group

TABLE = "rounds"
SLICE_BYTES = 4 << 20
_FIRST_KEY = b"\0"
LAST = RowType(tuple[UtcNs, UtcNs])
CURRENT = RowType(
    tuple[
        UtcNs, TimelineId, Position, Position, tuple[tuple[TimelineId, Position], ...], AnyTimeline, Position,
        DigestOrNone, Annotated[bytes, Meta(max_length=KEY_BYTES_MAX)], Count, Count, Count, Count,
    ]
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class VerifyRound:
    """One round. `target` is the cut up to which it checks, `indexed` the position up to which the index
    must hold it. `finished` are stretches of the journal that are done, by timeline and end; then (timeline,
    position, digest) is where the one under way is, and `key` where the walk of the index is, empty at its
    end. A plain one, not `deep`, is never saved."""

    group: Group
    began_utc_ns: int
    target: Cut
    indexed: int
    finished: set[tuple[int, int]] = field(default_factory=set)
    timeline: int = 0
    position: int = 0
    digest: bytes | None = None
    key: bytes = _FIRST_KEY
    frames: int = 0
    journal_bytes: int = 0
    versions: int = 0
    version_bytes: int = 0
    slice_bytes: int = SLICE_BYTES
    deep: bool = True

    # -- what comes next

    def next(self) -> VerifyJournal | VerifyIndex | None:
        """The slice to ask the indexer for; None at the end of the round."""
        for stretch in self._stretches():
            place = (stretch.timeline, stretch.end)
            if place in self.finished:
                continue
            rest = self._rest(stretch)
            if rest.start < rest.end:
                return VerifyJournal(stretch=rest, bytes_max=self.slice_bytes)
            self._finish(rest)
        return VerifyIndex(start=self.key, deep=self.deep) if self.key else None

    def _stretches(self) -> list[Stretch]:
        """Every stretch of the journal that is here: of the target's lineage, of bases, and besides. Clones
        grow: of them only what is in the index is looked at."""
        group = self.group
        table = group.timelines
        pieces = held_pieces(table, table.lineage(self.target.timeline, self.target.position))
        found = []
        for spans, first in pieces:
            found += stretches(spans, first, self.indexed if self.deep else 0)
        for base in table.bases:
            found += stretches([base.span], NO_DIGEST, base.end if self.deep else 0)
        clones = group.clones.timelines()
        left = {timeline: end for timeline, end in group.head.left.items() if timeline not in clones}
        for span in held_besides(table, pieces, left):
            below = base_at(table, Cut(span.timeline, span.start))
            found += stretches([span], below.digest if below else None, 0)
        return found

    def _rest(self, stretch: Stretch) -> Stretch:
        """What is left of a stretch, from where the round is."""
        if stretch.timeline != self.timeline or not stretch.start < self.position <= stretch.end:
            return stretch.after(self.digest)
        return replace(stretch, start=self.position, digest=self.digest, chained=False)

    def _finish(self, stretch: Stretch) -> None:
        self.finished.add((stretch.timeline, stretch.end))
        self.digest = stretch.digest

    def took_journal(self, request: VerifyJournal, found: JournalSlice) -> None:
        """Take in a slice of the journal."""
        stretch = request.stretch
        self.timeline, self.position, self.digest = stretch.timeline, found.position, found.digest
        self.frames += found.frames
        self.journal_bytes += found.read_bytes
        if found.position >= stretch.end:
            self._finish(replace(stretch, digest=found.digest))

    def still_here(self, damage: Damage) -> bool:
        """Whether a stretch of the journal found damaged is not one that has gone on purpose meanwhile."""
        group = self.group
        timeline, position, end, _ = damage.place
        if damage.fault not in (Fault.FRAME, Fault.UNREAD):
            return True
        if end <= group.kept.retention.truncated_to(timeline):
            return False
        known = timeline in group.timelines or any(
            base.timeline == timeline for base in group.timelines.bases
        )
        return known and position < group.dropping.get(timeline, position + 1)

    def took_index(self, found: IndexSlice) -> None:
        """Take in a slice of the index."""
        self.key = found.following
        self.versions += found.versions
        self.version_bytes += found.read_bytes

    # -- what it means at the end

    def covers(self, copy: Copy) -> bool:
        """Whether every version that a copy sees was there when the round began."""
        spans = self.group.timelines.lineage(self.target.timeline, self.target.position)
        inside = copy.position < self.indexed and copy.cut.position <= self.indexed
        return inside and holds_cut(spans, Cut(copy.timeline, copy.position))

    # -- over restarts

    def save(self) -> None:
        """Make where it is durable."""
        row = (
            self.began_utc_ns,
            self.target.timeline,
            self.target.position,
            self.indexed,
            tuple(sorted(self.finished)),
            self.timeline,
            self.position,
            self.digest or b"",
            self.key,
            self.frames,
            self.journal_bytes,
            self.versions,
            self.version_bytes,
        )
        self.group.state.put_notes(TABLE, {_current(self.group): pack_row(row)})

    def end(self) -> None:
        """The round is over: remember when it was."""
        row = pack_row((self.began_utc_ns, self.group.clock.utc_ns()))
        self.group.state.put_notes(TABLE, {_last(self.group): row})
        self.group.state.remove_notes(TABLE, [_current(self.group)])


def _current(group: Group) -> bytes:
    return group.name.encode() + b"\0\1"


def _last(group: Group) -> bytes:
    return group.name.encode() + b"\0\2"


def load_round(group: Group) -> VerifyRound | None:
    """The round under way, if there is one and what it is for is still here."""
    value = group.state.notes(TABLE, _current(group)).get(_current(group))
    if value is None:
        return None
    (began, timeline, position, indexed, finished, at, where, digest, key, *counts) = CURRENT.decode(value)
    if timeline not in group.timelines:
        return None
    return VerifyRound(
        group=group,
        began_utc_ns=began,
        target=Cut(timeline, position),
        indexed=indexed,
        finished=set(finished),
        timeline=at,
        position=where,
        digest=digest or None,
        key=key,
        frames=counts[0],
        journal_bytes=counts[1],
        versions=counts[2],
        version_bytes=counts[3],
    )


def last_round(group: Group) -> tuple[int, int] | None:
    """When the last whole round began and ended (UTC ns); None if there was none."""
    value = group.state.notes(TABLE, _last(group)).get(_last(group))
    if value is None:
        return None
    return LAST.decode(value)
