"""Which frames of a group are at this site, in runs that each came one frame after the other.

A lineage with bases on it is held in pieces (engine.history.bases). What this site had on its own before a
base came, and what it left for another line, is held too, as long as it was not dropped.

    lineage of the head    0 ..... 50 - - - - - - - 300 ..... 420     pieces [300, 420) and [0, 50)
    what a base left       0 ......... 80 (a line of its own from there)  besides: [50, 80)

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from engine.history.bases import downwards, spans_after
from engine.history.timelines import Span, TimelineTable
from protocol.positions import Cut

Piece = tuple[list[Span], bytes]


def held_pieces(table: TimelineTable, spans: list[Span]) -> list[Piece]:
    """The pieces of a lineage that are held, newest first, each with the digest that its first frame
    continues."""
    return [spans_after(table, upto) for upto, _, _ in downwards(table, spans)]


def held_besides(table: TimelineTable, pieces: Iterable[Piece], left: Mapping[int, int]) -> Iterator[Span]:
    """What is held outside the pieces of a lineage, each part once. `left` are timelines by the end of what
    is held of them."""
    taken: dict[int, list[tuple[int, int]]] = {}
    for spans, _ in pieces:
        for span in spans:
            taken.setdefault(span.timeline, []).append((span.start, span.end))
    for span in [*_before_bases(table, left), *_left(table, left)]:
        known = taken.setdefault(span.timeline, [])
        for part in _without(span, known):
            known.append((part.start, part.end))
            yield part


def _before_bases(table: TimelineTable, left: Mapping[int, int]) -> Iterator[Span]:
    """What led to the places that this site was at when bases came, and to those that they stand on."""
    for base in table.bases:
        for cut in (base.start, base.left):
            if cut is None or cut.timeline not in table:
                continue
            # Its end may have been dropped since, as a branch.
            end = Cut(cut.timeline, min(cut.position, left.get(cut.timeline, cut.position)))
            for spans, _ in held_pieces(table, table.lineage(end.timeline, end.position)):
                yield from spans


def _left(table: TimelineTable, left: Mapping[int, int]) -> Iterator[Span]:
    """Of every timeline that was left what came in one go with its last frame. Not its lineage: each timeline
    of that is one that was left, and there may be thousands."""
    starts: dict[int, int] = {}
    for base in table.bases:
        at = base.cut
        starts[at.timeline] = max(at.position, starts.get(at.timeline, 0))
    for timeline, end in sorted(left.items()):
        if timeline not in table:
            continue
        entry = table.get(timeline)
        start = max(entry.fork, starts.get(timeline, 0))
        if start < end:
            yield Span(timeline, entry.lane, start, end)


def _without(span: Span, known: Iterable[tuple[int, int]]) -> list[Span]:
    """The parts of a span that lie in none of the ranges."""
    parts = [span]
    for low, high in known:
        cut = [
            (replace(part, end=min(part.end, low)), replace(part, start=max(part.start, high)))
            for part in parts
        ]
        parts = [part for pair in cut for part in pair if part.start < part.end]
    return parts
