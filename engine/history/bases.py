"""Bases: what a site holds of a group where the journal between two cuts never came to it.

A base says: at cut B this site's knowledge is what lane X holds, on top of what was visible here at cut A, or
on nothing. X's blocks are data frames in a timeline of their own that is on no lineage, with positions from
0 and a digest chain of its own. A site gets a base as its initial copy, or when a resync finds that the
journal does not reach back to where it is.

So a lineage with a base on it is held in pieces: from B on, and up to A. Cuts between them are trimmed here.

    position   0 ......... A - - - - - - - - - B ............ end
    frames     here        never came          here
    visible    as ever     Trimmed             [B, end), lane X, then as at A

Lanes of bases are numbered from `FIRST_BASE_LANE` on, so that the next lane of a timeline is never one that a
base, installed or half received, has rows in.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from engine.history.timelines import Base, Span, TimelineTable, holds_cut
from protocol.errors import Trimmed
from protocol.frames import NO_DIGEST
from protocol.positions import POSITION_MAX, Cut

FIRST_BASE_LANE = 1 << 31
HeldBelow = Callable[[TimelineTable, Base], Cut | None]


def base_on(table: TimelineTable, spans: list[Span]) -> Base | None:
    """The newest base whose cut lies on a lineage; None if there is none."""
    if not table.bases:
        return None
    found = [base for base in table.bases if holds_cut(spans, base.cut)]
    return max(found, key=lambda base: base.cut.position, default=None)


def base_at(table: TimelineTable, cut: Cut) -> Base | None:
    """The base installed at exactly this cut."""
    return next((base for base in table.bases if base.cut == cut), None)


def spans_from_base(table: TimelineTable, head: int, end: int = POSITION_MAX) -> list[Span]:
    """The part of a lineage whose frames came here one after the other: from its newest base on, or all."""
    return spans_after(table, table.lineage(head, end))[0]


def spans_after(table: TimelineTable, spans: list[Span]) -> tuple[list[Span], bytes]:
    """The same of a lineage, and the digest that its first frame continues."""
    base = base_on(table, spans)
    if base is None:
        return spans, NO_DIGEST
    at = next(i for i, span in enumerate(spans) if span.timeline == base.cut.timeline)
    return [replace(spans[at], start=base.cut.position), *spans[at + 1 :]], base.digest


def bases_within(table: TimelineTable, parts: Iterable[tuple[int, int]]) -> list[Base]:
    """The bases whose cuts are in parts of timelines, each from a position on: what goes with these parts.
    The cut where a part begins is not in it: it belongs to whoever has the frames before it, unless there
    are none of this timeline."""
    starts = dict(parts)
    return [
        base
        for base in table.bases
        if (start := starts.get(base.cut.timeline)) is not None
        and (base.cut.position > start or start == table.get(base.cut.timeline).fork)
    ]


def held_before(table: TimelineTable, timeline: int, position: int) -> int:
    """Up to where frames of a timeline are held before a position, if what lies past that goes, with bases:
    to there, or to where the gap below the lowest of these bases begins."""
    past = [base for base in table.bases if base.cut.timeline == timeline and base.cut.position > position]
    lowest = min(past, key=lambda base: base.cut.position, default=None)
    if lowest is None:
        return position
    ends = [
        span.end
        for cut in (lowest.start, lowest.left)
        if cut is not None and cut.timeline in table
        for span in table.lineage(cut.timeline, cut.position)
        if span.timeline == timeline
    ]
    return min(position, max(ends, default=table.get(timeline).fork))


def gap_at(table: TimelineTable, cut: Cut) -> Base | None:
    """The base because of which a cut, or something below it that it needs, is not held here; None if all of
    it is."""
    if not table.bases:
        return None
    spans = table.lineage(cut.timeline, cut.position)
    below = base_on(table, spans)
    low = below.cut.position if below else 0
    for base in table.bases:
        if base is below or holds_cut(spans, base.cut):
            continue
        common = common_end(spans, table.lineage(base.cut.timeline, base.cut.position))
        known = 0
        if base.start is not None and base.start.timeline in table:
            known = common_end(spans, table.lineage(base.start.timeline, base.start.position))
        if base.left.timeline in table:
            # What this site had on its own before is still here, as a branch.
            known = max(known, common_end(spans, table.lineage(base.left.timeline, base.left.position)))
        if common > max(low, known):
            return base
    if below is not None and below.start is not None:
        # What it stands on may have been dropped with the branch that it is on.
        return gap_at(table, below.start) if below.start.timeline in table else below
    return None


def held_below(table: TimelineTable, base: Base) -> Cut | None:
    """Up to where this site holds the frames below a base: to the cut that it stands on, or further, if the
    journal that was here already went on from there; None if nothing on the base's lineage is here. Frames
    that lead to a branch in the end do not count: see `shared_below`."""
    lineage = table.lineage(base.cut.timeline, base.cut.position)
    held = [cut for cut in (base.start, base.left) if cut is not None and holds_cut(lineage, cut)]
    return max(held, key=lambda cut: cut.position, default=None)


def shared_below(table: TimelineTable, base: Base) -> Cut | None:
    """The same, or further: to where a branch left the base's lineage that this site was on when the base
    came. Not if it left in the gap below a base of its own."""
    held = held_below(table, base)
    if base.left.timeline not in table:
        return held
    lineage = table.lineage(base.cut.timeline, base.cut.position)
    left = common_cut(lineage, table.lineage(base.left.timeline, base.left.position))
    if left is None or gap_at(table, left) is not None:
        return held
    return max((cut for cut in (held, left) if cut), key=lambda cut: cut.position, default=None)


def left_without(table: TimelineTable, base: Base, ends: Mapping[int, int]) -> Cut:
    """What this site left for a base, once timelines are dropped, each back to where it ends then: that, or
    where it left its parent."""
    cut = base.left
    while cut.timeline in ends:
        entry, end = table.get(cut.timeline), ends[cut.timeline]
        if end > entry.fork:
            return Cut(cut.timeline, min(cut.position, end))
        cut = entry.fork_cut
    return cut


def downwards(
    table: TimelineTable, spans: list[Span], held: HeldBelow = held_below
) -> Iterator[tuple[list[Span], Base | None, Cut | None]]:
    """The pieces in which a lineage is held, newest first. Of each: the lineage up to its end, the base that
    it begins at (None: the root), and where the piece below that ends (None: there is none), as `held`
    says."""
    while True:
        base = base_on(table, spans)
        below = held(table, base) if base is not None else None
        yield spans, base, below
        if below is None or base is None or below == base.cut:
            return
        spans = table.lineage(below.timeline, below.position)


def require_held(table: TimelineTable, cut: Cut, subject: str = "") -> None:
    """Trimmed if a cut lies in the gap below a base."""
    base = gap_at(table, cut)
    if base is not None:
        raise not_held(table, base, str(cut), subject)


def not_held(table: TimelineTable, base: Base, what: str, subject: str) -> Trimmed:
    """That `what` lies in the gap below a base."""
    held = shared_below(table, base)
    since = f" after {held}" if held else ""
    return Trimmed(
        f"{what} is not held here: of what lies{since} before {base.cut}, only the outcome came to this site",
        subject=subject,
        position=str(base.cut),
        next_step="read it at the peer, or choose a cut from that position on",
    )


def common_cut(one: list[Span], other: list[Span]) -> Cut | None:
    """Up to where two lineages are the same; None if they have nothing in common."""
    found = None
    for left, right in zip(one, other, strict=False):
        if left.timeline != right.timeline:
            break
        found = Cut(left.timeline, min(left.end, right.end))
    return found


def common_end(one: list[Span], other: list[Span]) -> int:
    """The same as a position; 0 if they have nothing in common."""
    cut = common_cut(one, other)
    return cut.position if cut is not None else 0
