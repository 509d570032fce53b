"""The copy management table: one row a backup, derived from `Mark` events (the method's figure 3).

A copy names a cut; its bytes are the journal's and cost nothing more. It is AVAILABLE at a site once the
mark, and so everything before the cut, is durable there (invariant 8).

Pure: no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from engine.timelines import Span, holds
from protocol.errors import NotFound, Refused
from protocol.events import Consistency, Mark
from protocol.positions import Cut


class CopyState(Enum):
    """A copy at one site."""

    PENDING = "PENDING"
    AVAILABLE = "AVAILABLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One row. `cut` is what it shows, `utc_ns` when it was taken; (timeline, position) is where its mark
    is."""

    id: int
    label: str
    cut: Cut
    volumes: tuple[int, ...]
    utc_ns: int
    consistency: Consistency
    pinned: bool
    timeline: int
    position: int


class CopyTable:
    """Every copy that this site knows of in one group."""

    def __init__(self) -> None:
        self._copies: dict[tuple[int, int], Copy] = {}

    def marked(self, timeline: int, frame_position: int, position: int, utc_ns: int, event: Mark) -> None:
        """Take in a mark; seeing the same one again is fine."""
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
        )

    def all(self) -> list[Copy]:
        """Copies on every timeline."""
        return list(self._copies.values())

    def forget(self, timeline: int, position: int) -> None:
        """Leave out the marks of a timeline from a position on."""
        for place in [each for each in self._copies if each[0] == timeline and each[1] >= position]:
            del self._copies[place]

    def at(self, spans: list[Span]) -> list[Copy]:
        """Copies on a lineage, oldest first."""
        found = [
            copy for (timeline, position), copy in self._copies.items() if holds(spans, timeline, position)
        ]
        return sorted(found, key=lambda copy: copy.position)

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
        """Refused if a copy of that label exists: labels never change what they mean."""
        if any(copy.label == label for copy in self.at(spans)):
            raise Refused(
                f"a backup labelled {label!r} exists already",
                subject=subject,
                next_step="choose another label; `farshore backup list` shows those taken",
            )
