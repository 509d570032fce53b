"""What a site notes of one group for its retention lock, in times of its lock clock
(engine.retention.lock_clock).

    locks GROUP "\\0m"                        row of (time, timeline, position): the journal ended there then
    locks GROUP "\\0s" u64 u64                u64 time: when the event at (timeline, position), which locks or
                                              deletes a backup, was first seen here
    locks GROUP "\\0b" u64                    row (end, time): since when the timeline is a branch that ends
                                              there

A row that is lost or bad counts as never written: what it was about is noted anew, and so locked for longer.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from struct import Struct
from typing import NamedTuple

from engine.copies.copy_order import Place
from protocol.bounds import LockNs, Position, TimelineId
from protocol.errors import RemoteProtocolError
from protocol.positions import Cut
from protocol.rows import pack_row
from protocol.wire import RowType

_MARKS = b"\0m"
_SEEN = b"\0s"
_BRANCH = b"\0b"
_PLACE = Struct(">QQ")
_NUMBER = Struct(">Q")
_MARKS_ROW = RowType(tuple[tuple[LockNs, TimelineId, Position], ...])
_BRANCH_ROW = RowType(tuple[Position, LockNs])


class LockMark(NamedTuple):
    """At `ns` everything up to `cut`, and nothing else of the head's, was here."""

    ns: int
    cut: Cut


class BranchNote(NamedTuple):
    """A branch that ends at position `end` is one since `ns`, or longer."""

    end: int
    ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LockNotes:
    """`marks` oldest first."""

    marks: tuple[LockMark, ...] = ()
    seen: Mapping[Place, int] = field(default_factory=dict)
    branches: Mapping[int, BranchNote] = field(default_factory=dict)

    @property
    def newest_ns(self) -> int:
        """The latest time that is named."""
        times = [mark.ns for mark in self.marks] + [each.ns for each in self.branches.values()]
        return max([0, *times, *self.seen.values()])

    def rows(self, group: str) -> dict[bytes, bytes]:
        """As rows of the table."""
        name = group.encode()
        found = {
            name + _SEEN + _PLACE.pack(*place): _NUMBER.pack(seen_ns) for place, seen_ns in self.seen.items()
        }
        for timeline, note in self.branches.items():
            found[name + _BRANCH + _NUMBER.pack(timeline)] = pack_row(note)
        if self.marks:
            found[name + _MARKS] = pack_row(
                [(mark.ns, mark.cut.timeline, mark.cut.position) for mark in self.marks]
            )
        return found


def notes_in(group: str, rows: Mapping[bytes, bytes]) -> tuple[LockNotes, int]:
    """What a group's rows of the table say, and how many of them are bad and were left out."""
    name = group.encode()
    marks: tuple[LockMark, ...] = ()
    seen: dict[Place, int] = {}
    branches: dict[int, BranchNote] = {}
    bad = 0
    for key, value in rows.items():
        kind, rest = key[len(name) : len(name) + len(_SEEN)], key[len(name) + len(_SEEN) :]
        try:
            if kind == _MARKS and not rest:
                marks = tuple(LockMark(row[0], Cut(row[1], row[2])) for row in _MARKS_ROW.decode(value))
            elif kind == _SEEN and len(rest) == _PLACE.size and len(value) == _NUMBER.size:
                timeline, position = _PLACE.unpack(rest)
                seen[timeline, position] = _NUMBER.unpack(value)[0]
            elif kind == _BRANCH and len(rest) == _NUMBER.size:
                branches[_NUMBER.unpack(rest)[0]] = BranchNote(*_BRANCH_ROW.decode(value))
            else:
                bad += 1
        except RemoteProtocolError:
            bad += 1
    return LockNotes(marks=marks, seen=seen, branches=branches), bad
