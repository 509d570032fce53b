"""What a journal says of who may write, and of what hosts were promised.

    HandOver(to)      the last event of its timeline: only that site writes from there on
    StrictMode(on)    from here on no write is acknowledged before the peer has it, or that has ended

Both travel in the journal, so that a site that takes over knows them exactly as far as it has the journal:
the writer relies on an end of `StrictMode` only once the peer has it.

Pure: no I/O.
"""

from __future__ import annotations

from typing import assert_never

from engine.history.timelines import Span, holds
from protocol.events import HandOver, PromiseRecord, StrictMode
from protocol.frames import NO_DIGEST, encode_frame
from protocol.positions import Cut


class Promises:
    """Every such event that this site holds of one group."""

    def __init__(self) -> None:
        # Hand-overs by where their frames end. Records are loaded by timeline, whose ids are random: none of
        # them is the newest because it came last.
        self.handed: dict[Cut, str] = {}
        self._strict: dict[tuple[int, int], bool] = {}

    def apply(self, timeline: int, frame_position: int, event: PromiseRecord) -> None:
        """Take one in; seeing the same one again is fine."""
        match event:
            case HandOver():
                self.handed[_end_of(timeline, frame_position, event)] = event.to
            case StrictMode():
                self._strict[timeline, frame_position] = event.on
            case _:
                assert_never(event)

    def handed_at(self, end: Cut) -> str:
        """The id of the site to which the last event before `end` hands the group over; or nothing."""
        return self.handed.get(end, "")

    def forget(self, timeline: int, position: int) -> None:
        """Leave out what a timeline says from a position on."""
        for place in [each for each in self._strict if each[0] == timeline and each[1] >= position]:
            del self._strict[place]
        for end in [each for each in self.handed if each.timeline == timeline and each.position > position]:
            del self.handed[end]

    def strict(self, spans: list[Span]) -> bool:
        """Whether the strict promise holds at the end of a lineage."""
        here = [place for place in self._strict if holds(spans, *place)]
        return self._strict[max(here, key=lambda place: place[1])] if here else False


def _end_of(timeline: int, frame_position: int, event: HandOver) -> Cut:
    """Where the frame ends, in which a hand-over always stands alone. The frame itself may not be here: a
    base brings the record only, and a truncation leaves no more of it."""
    frame = encode_frame(
        timeline=timeline,
        position=0,
        utc_ns=0,
        durable=0,
        previous_digest=NO_DIGEST,
        rows=[event.to_row()],
        payload=(),
        payload_bytes=0,
    )
    return Cut(timeline, frame_position + frame.prefix.frame_bytes)
