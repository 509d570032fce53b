"""What a peer needs of this site's journal: every frame from the last cut that it is known to have.

Held until the journal fills up and the peer is the slowest to need it (`engine.journal_space`); then the peer
is sent what changed since that cut, which stays readable.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.group import Group
from engine.journal_space import JournalHolder, lease_of
from protocol.positions import Cut


class JournalHold:
    """`remote_written` gives the position up to which the peer has everything; 0 while that is not known."""

    def __init__(self, group: Group, peer: str, remote_written: Callable[[], int]) -> None:
        self._group = group
        self._peer = peer
        self._remote_written = remote_written

    def hold(self) -> None:
        """Keep, from now on, what the peer lacks; but not if the journal does not lead it on any more."""
        known, folding = self.last_confirmed, self._group.folding
        if known is not None and not folding.journal_reaches(known) and self._confirmed() is None:
            return
        holder = JournalHolder(confirmed=self._confirmed, detach=lambda: None)
        folding.space.holders[self._peer] = holder

    def let_go(self) -> None:
        """The peer is none any more."""
        self._group.folding.space.holders.pop(self._peer, None)

    @property
    def last_confirmed(self) -> Cut | None:
        """The cut that was last written down as the peer's; readable here."""
        return self._group.folding.leases.get(lease_of(self._peer))

    def _confirmed(self) -> Cut | None:
        position = self._remote_written()
        spans = self._group.spans(self._group.writer.written)
        return next((Cut(s.timeline, position) for s in spans if s.start < position <= s.end), None)
