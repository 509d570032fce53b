"""What one site found out about its copies: that all of one was read and compared, or that some is damaged.

Kept at the site, not in the journal: the peer has bytes of its own.

    copy_marks    name\\0u64 copy id    row (UTC ns when verified, damage)
    verified_by   name\\0u64 copy id    row (UTC ns when verified, who had it verified)

Who it was has a table of its own, so that an earlier version reads its rows as ever, and counts only for the
verification of that time: that version may have made another since.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from engine.copies.copies import CopyTable
from engine.group.site_state import U64, SiteState
from protocol.bounds import Text, UtcNs
from protocol.rows import pack_row
from protocol.wire import RowType

TABLE = "verified_by"
MARKS = "copy_marks"
ROW = RowType(tuple[UtcNs, Text])
MARK = RowType(tuple[UtcNs, Text])


class CopyMark(NamedTuple):
    """What this site found out about a copy: when all of it was last read and compared (0: never), and what
    of it is damaged (empty: nothing known)."""

    verified_utc_ns: int = 0
    damage: str = ""


def copy_marks(state: SiteState, group: str) -> dict[int, CopyMark]:
    """Of a group's copies, by their ids."""
    prefix = group.encode() + b"\0"
    rows = state.notes(MARKS, prefix).items()
    return {int(U64.unpack(key[len(prefix) :])[0]): CopyMark(*MARK.decode(value)) for key, value in rows}


def put_copy_marks(state: SiteState, group: str, marks: Mapping[int, CopyMark | None]) -> None:
    """Add or replace what is known of copies, by id, or forget it; in one transaction."""
    state.put_notes(
        MARKS, {_key(group, copy_id): mark and pack_row(tuple(mark)) for copy_id, mark in marks.items()}
    )


class GroupCopies(CopyTable):
    """A group's copies, with what this site knows of each. Every note is durable on return."""

    def __init__(self, group: str, state: SiteState) -> None:
        super().__init__()
        self._group = group
        self._state = state
        self._marks: dict[int, CopyMark] | None = None

    def mark_of(self, copy_id: int) -> CopyMark:
        """What is known of a copy."""
        return self._known().get(copy_id, CopyMark())

    def verified_by(self, copy_id: int) -> str:
        """Who had it verified the last time; empty if nobody knows, or it never was."""
        key = _key(self._group, copy_id)
        value = self._state.notes(TABLE, key).get(key)
        utc_ns, by = ROW.decode(value) if value is not None else (0, "")
        return by if utc_ns == self.mark_of(copy_id).verified_utc_ns else ""

    def note_giver(self, copy_ids: Collection[int], utc_ns: int, by: str) -> None:
        """Who had copies verified at that time. To be noted before the copies are: of a verification that
        nobody is known for, a power loss between the two leaves the one before."""
        if by and copy_ids:
            row = pack_row((utc_ns, by))
            self._state.put_notes(TABLE, {_key(self._group, copy_id): row for copy_id in copy_ids})

    def verified(self, copy_id: int, utc_ns: int) -> None:
        """All of it was read and compared, at that time: it is whole, whatever was known before."""
        self.note({copy_id: CopyMark(utc_ns, "")})

    def damaged(self, copy_id: int, why: str) -> None:
        """Some of it cannot be read; `why` says which range. Stays until it is verified."""
        self.note({copy_id: CopyMark(self.mark_of(copy_id).verified_utc_ns, why or "damaged")})

    def mended(self, copy_id: int) -> None:
        """What was damaged is whole again: it is what it was before."""
        self.note({copy_id: CopyMark(self.mark_of(copy_id).verified_utc_ns, "")})

    def deleted(self, *copy_ids: int) -> None:
        """They are gone: nothing more needs to be known of them."""
        self.note(dict.fromkeys(copy_ids))

    def note(self, marks: Mapping[int, CopyMark | None]) -> None:
        """What is known of copies from now on, None of one that is gone; all in one commit, which is a sync
        of the disk on the hosts' loop."""
        known = self._known()
        news = {copy_id: mark for copy_id, mark in marks.items() if known.get(copy_id) != mark}
        for copy_id, mark in news.items():
            if mark is None:
                del known[copy_id]
            else:
                known[copy_id] = mark
        if news:
            put_copy_marks(self._state, self._group, news)
        gone = [_key(self._group, copy_id) for copy_id, mark in news.items() if mark is None]
        if gone:
            self._state.remove_notes(TABLE, gone)

    def _known(self) -> dict[int, CopyMark]:
        if self._marks is None:
            self._marks = copy_marks(self._state, self._group)
            self.deleted(*[each for each in self._marks if self.was_deleted(each)])
        return self._marks


def check_row(key: bytes, value: bytes) -> None:
    """Whether it is a row of `verified_by`, its key without the group. ValueError, struct.error,
    RemoteProtocolError."""
    U64.unpack(key)
    ROW.decode(value)


def _key(group: str, copy_id: int) -> bytes:
    return group.encode() + b"\0" + U64.pack(copy_id)
