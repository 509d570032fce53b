"""What one site found out about its copies: that all of one was read and compared, or that some is damaged.

Kept at the site, not in the journal: the peer has bytes of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.copies.copies import CopyTable
from engine.group.site_state import CopyMark, SiteState


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
            self._state.put_copy_marks(self._group, news)

    def _known(self) -> dict[int, CopyMark]:
        if self._marks is None:
            self._marks = self._state.copy_marks(self._group)
            self.deleted(*[each for each in self._marks if self.was_deleted(each)])
        return self._marks
