"""What a peer needs of this site's journal: every frame from the last cut that it is known to have.

Held until the journal fills up and the peer is the slowest to need it (`engine.retention.journal_space`);
then the peer is sent what changed since that cut, which stays readable.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.group.group import Group
from engine.retention.journal_space import ReplicationSlot, lease_of
from engine.retention.pressure import Stage
from protocol.positions import Cut


class JournalLease:
    """`remote_durable` gives the position up to which the peer has everything, over a loss of its power too;
    0 while that is not known.
    `on_filling` is told of every stage of pressure: whether the journal fills up, and a word for it."""

    def __init__(
        self,
        group: Group,
        peer: str,
        remote_durable: Callable[[], int],
        on_filling: Callable[[bool, str], None],
    ) -> None:
        self._group = group
        self._peer = peer
        self._remote_durable = remote_durable
        self._on_filling = on_filling
        self._said_head = group.state.shipped(group.name)
        group.space.on_stage.append(self._on_stage)

    @property
    def filling(self) -> bool:
        """Whether the journal fills up."""
        return self._group.space.pressure.stage is not Stage.NORMAL

    def _on_stage(self, stage: Stage) -> None:
        self._on_filling(stage is not Stage.NORMAL, f"journal pressure: {stage.value}")

    def hold(self) -> None:
        """Keep, from now on, what the peer lacks; but not if the journal does not lead it on any more."""
        known, group = self.last_confirmed, self._group
        if known is not None and not group.kept.journal_reaches(known) and self._confirmed() is None:
            return
        group.space.hold(self._peer, ReplicationSlot(confirmed=self._confirmed, detach=lambda: None))

    def close(self) -> None:
        """The peer is none any more; twice is fine."""
        self.let_go()
        if self._on_stage in self._group.space.on_stage:
            self._group.space.on_stage.remove(self._on_stage)

    def renamed(self, peer: str) -> None:
        """The peer has that name, also in the site's state."""
        self._group.space.renamed(self._peer, peer)
        self._peer = peer

    def let_go(self) -> None:
        """It needs no frames for now."""
        self._group.space.release(self._peer)

    def note_head(self) -> None:
        """Remember, before frames of it go, that the peer may hold the head. OSError: it could not be."""
        if self._said_head != self._group.head.timeline:
            self._group.state.set_shipped(self._group.name, self._group.head.timeline)
            self._said_head = self._group.head.timeline

    @property
    def last_confirmed(self) -> Cut | None:
        """The cut that was last written down as the peer's; readable here."""
        return self._group.kept.leases.get(lease_of(self._peer))

    def _confirmed(self) -> Cut | None:
        return self._group.space.cut_at(self._remote_durable())
