"""Whether this site holds less of a group than it once called durable: an old copy of its directory was put
back, or its machine was turned back to a snapshot.

    found        the site's witness (daemon.witness) names a cut that is not here. Hosts wait, and nothing is
                 shipped, until the peer gave that cut back or an operator says that what is here stays
    suspected    the peer has what this site wrote and does not know. Hosts that are served go on: who tells
                 of it is another site, which must not be able to send them away. The pair is diverged

It decides nothing else: what a comparison with the peer leads to is `site_primary.shipping.comparison`'s.
"""

from __future__ import annotations

from engine.group.core import GroupCore
from engine.group.holds import Holder
from protocol.errors import NotFound, Unsafe
from protocol.positions import Cut


class TurnedBack:
    """`lost`: the newest cut known to have been durable here that is not here; None if there is none."""

    def __init__(self, group: GroupCore) -> None:
        self.lost: Cut | None = None
        self._group = group
        self._suspected: set[int] = set()

    def found(self, cut: Cut, source: str) -> None:
        """A cut of this group was durable at this site, as `source` says. Nothing happens if it still is."""
        group = self._group
        if holds_durably(group, cut):
            return
        self.lost = cut
        text = f"is older here than it was: {cut} was durable at this site and is not here"
        group.holds.put(Holder.OLDER, f"{text}; hosts wait until its peer gives it back")
        group.emit(
            "group.turned_back",
            group=group.name,
            position=str(cut),
            reason=f"{text}, as {source} says",
            next=self._next_step(),
        )
        group.listeners.durable.append(self._look)

    def suspected(self, cut: Cut, peer_has: str) -> None:
        """The peer holds, up to `cut`, what this site cannot have lost by a power failure. Said once in a run
        for each timeline."""
        group = self._group
        if cut.timeline in self._suspected:
            return
        self._suspected.add(cut.timeline)
        group.emit(
            "timeline.turned_back",
            group=group.name,
            position=str(cut),
            reason=f"the peer holds {peer_has}: this site is an old copy of itself, or another daemon runs "
            "with its identity",
            next=f"`farshore pair resync {group.name} --source local` or `--source remote` says whose "
            "history stays",
        )

    def require_whole(self) -> None:
        """Unsafe while something is known to be missing: nobody may build on what is here unasked."""
        if self.lost is not None:
            raise Unsafe(
                f"group {self._group.name} {self._group.holds.reason}",
                subject=self._group.name,
                position=str(self.lost),
                next_step=self._next_step(),
            )

    def accept(self) -> None:
        """An operator's word: what is here stays, and what is missing is given up."""
        if self.lost is not None:
            self._over("group.accepted")

    def _look(self) -> None:
        if self.lost is not None and holds_durably(self._group, self.lost):
            # Not at once: the journal's writer is in the middle of telling that it is durable.
            self._group.clock.call_soon(self._came_back)

    def _came_back(self) -> None:
        if self.lost is not None and holds_durably(self._group, self.lost):
            self._over("group.came_back")

    def _over(self, event: str) -> None:
        lost, self.lost = self.lost, None
        self._group.listeners.durable.remove(self._look)
        self._group.emit(event, group=self._group.name, position=str(lost))
        self._group.holds.lift(Holder.OLDER)

    def _next_step(self) -> str:
        name = self._group.name
        return (
            f"let the peer come back; if it has not got it either: `farshore site accept {name} "
            f"--confirm {name}`, or `farshore pair resync {name} --source local`"
        )


def holds_durably(group: GroupCore, cut: Cut) -> bool:
    """Whether everything up to a cut is durable here, on the head's lineage or on a branch."""
    if cut.timeline not in group.timelines:
        return False
    if cut.timeline == group.head.timeline:
        return group.writer.durable >= cut.position
    try:
        end = group.end_of(cut.timeline)
    except NotFound:  # below a base: what came of it is what the head has of it
        end = group.leaves(cut.timeline)
    return end >= cut.position
