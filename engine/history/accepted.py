"""What operators took as it is read here, although frames of its history are not understood
(engine.history.unread).

    state table accepted    group\\0u64 volume    row ((timeline, position) ...): cuts; frames on the way to
                                                 one of them are accepted for this volume
                            of an older version  row (position): frames before it, on the line that was the
                                                 head's then

Positions say nothing without their line. Example: a frame at H:400 was accepted at H:900. Then a resync takes
the head to T, which left H at 100 and has such a frame at T:500. Nobody looked at that one.

An older version's row does not say whose head it was. It was one of those lines that are here and reach as
far: so it counts for the frames that all of them have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from msgspec import Meta

from engine.group.site_state import SiteState
from engine.history.timelines import Places, Span, TimelineTable, holds_cut
from protocol.bounds import Position
from protocol.errors import NotFound
from protocol.limits import ACCEPTED_CUTS_MAX
from protocol.positions import Cut
from protocol.rows import pack_row
from protocol.wire import RowType

TABLE = "accepted"
ROW = RowType(tuple[Position | Annotated[tuple[Cut, ...], Meta(max_length=ACCEPTED_CUTS_MAX)]])

Accepts = Callable[[int, int], bool]


class Accepted:
    """Those of one group. `end_of` says up to where frames of a timeline are held here; NotFound if none
    are."""

    def __init__(
        self, group: str, state: SiteState, timelines: TimelineTable, end_of: Callable[[int], int]
    ) -> None:
        self._group = group
        self._state = state
        self._timelines = timelines
        self._end_of = end_of
        self._rows = {
            int.from_bytes(key[-8:]): ROW.decode(value)[0]
            for key, value in state.notes(TABLE, group.encode() + b"\0").items()
        }

    def of(self, volume: int) -> Accepts:
        """Whether the frame at (timeline, position) is accepted for a volume (id), to ask of many frames."""
        row = self._rows.get(volume, ())
        old = isinstance(row, int)
        ways = [
            Places(self._lineage(cut))
            for cut in (self._lines_at(row) if isinstance(row, int) else row)
            if cut.timeline in self._timelines
        ]

        def accepts(timeline: int, position: int) -> bool:
            found = [(timeline, position) in way for way in ways]
            return bool(found) and (all(found) if old else any(found))

        return accepts

    def accept(self, volume: int, cut: Cut) -> None:
        """An operator takes a volume (id) as it is read here, whatever frames before a cut say. Durable on
        return; OSError: nothing was."""
        row = self._rows.get(volume, ())
        before = self._lines_at(row) if isinstance(row, int) else row
        if isinstance(row, int) and len(before) != 1:
            before = ()  # which of these was meant is not known
        way = self._lineage(cut)
        others = [each for each in before if each.timeline in self._timelines and not holds_cut(way, each)]
        cuts = (*others, cut)[-ACCEPTED_CUTS_MAX:]
        key = self._group.encode() + b"\0" + volume.to_bytes(8)
        value = tuple((each.timeline, each.position) for each in cuts)
        self._state.put_notes(TABLE, {key: pack_row((value,))})
        self._rows[volume] = cuts

    def _lineage(self, cut: Cut) -> list[Span]:
        return self._timelines.lineage(cut.timeline, cut.position)

    def _lines_at(self, position: int) -> tuple[Cut, ...]:
        """A cut at that position on every line held here that has one."""
        return tuple(
            Cut(each.id, position)
            for each in self._timelines.all()
            if each.fork < position <= self._held_to(each.id)
        )

    def _held_to(self, timeline: int) -> int:
        try:
            return self._end_of(timeline)
        except NotFound:
            return 0
