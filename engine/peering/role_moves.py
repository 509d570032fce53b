"""How the writing of a group moves between the two sites of its pair, as one of them does it.

Every change of role is durable before the first message or write that depends on it (invariant 9), and
exports that it closed stay closed until an operator opens them, or a role move brings the writing back here.

    takeover, or a hand-over that arrived      secondary → primary, by a timeline that outranks all others
    the peer writes by a newer authority       primary → secondary: hosts go at once
    opened while the pair is split             secondary → detached, until the peer's next session

What ships and receives is reached through `PairEnds`, hosts' exports through `LiveExports`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from engine.group.group import Group
from engine.group.head_moves import begin_timeline, hand_over
from engine.group.holds import Holder
from engine.group.listeners import Emit
from engine.group.serving import took_over
from engine.group.site_state import PairRow, Role, SiteState
from engine.peering.pair_rows import remember
from engine.peering.pair_states import Mode, PairState
from engine.peering.pair_timers import Due, PairTimers
from engine.peering.role_exports import ClosedBy, LiveExports, RoleExports
from protocol.errors import Busy, FarshoreError
from protocol.events import StrictMode


class PairEnds(Protocol):
    """This site's ends of its pairs: at most one of the two for a group."""

    def ship(self, group: Group, pair: PairRow) -> None:
        """Ship the group to its peer, in place of what may have done so, and serve its hosts."""

    def stop_shipping(self, group: Group) -> None:
        """Nothing is shipped any more, and hosts wait for no peer."""

    def receive(self, group: Group, peer: str) -> None:
        """Take the group's journal from a peer."""

    def receives(self, group: Group) -> bool:
        """Whether it is taken from one."""

    def stop_receiving(self, group: Group) -> None:
        """Nothing is taken any more."""


class RoleMoves:
    """Moves the roles of one site's groups. `notify` is called after a move, `timers` are the pairs'."""

    def __init__(
        self,
        *,
        state: SiteState,
        exports: LiveExports,
        ends: PairEnds,
        timers: PairTimers,
        emit: Emit,
        notify: Callable[[], None],
    ) -> None:
        self._state = state
        self._doors = RoleExports(state, exports, emit)
        self._ends = ends
        self._timers = timers
        self._emit = emit
        self._notify = notify

    # -- beginning to write

    def begin(self, group: Group, pair: PairRow | None, then: Callable[[], None]) -> None:
        """What a site that is to write does before anything else, at a takeover or at a start after one that
        was cut short. While it cannot, nobody is served, and it is tried again."""
        self.no_longer_begins(group)
        strict = pair is not None and pair.strict
        try:
            if group.handed_to in ("", group.site):  # else it was given away, and nothing may follow that
                if took_over(group):
                    begin_timeline(group, authority=True)
                if group.strict and not strict:
                    group.append_records([StrictMode(on=False)])
        except (FarshoreError, OSError) as error:
            self._begin_later(group, pair, then, error)
        else:
            then()

    def _begin_later(
        self, group: Group, pair: PairRow | None, then: Callable[[], None], error: Exception
    ) -> None:
        group.holds.put(Holder.TAKEOVER, f"cannot begin to be written here: {error}")
        self._emit("group.take_over_failed", group=group.name, error=str(error))
        self._timers.again(group, Due.BEGIN, lambda: self.begin(group, pair, then))

    def no_longer_begins(self, group: Group) -> None:
        """It has begun, or a newer authority or the end of the pair settled it."""
        self._timers.stop(group, Due.BEGIN)
        group.holds.lift(Holder.TAKEOVER)

    # -- this site writes from now on

    def take_over(self, group: Group, state: PairState) -> None:
        """This site writes the group from now on. `state` of the pair: TAKEN_OVER, or COPYING after a
        hand-over. FarshoreError or OSError: it does not, unless its role could not be set back; then it
        begins as soon as it can."""
        if Holder.INSTALL in group.holds:
            raise Busy(
                f"group {group.name} {group.holds.reason}",
                subject=group.name,
                position=str(group.end),
                next_step="try again once that is done: it takes moments, if this site has room for it",
            )
        before, pair = self._state.group(group.name).role, self._state.pair(group.name)
        row = replace(pair, state=state, fallen_back=pair.mode is not Mode.ASYNC) if pair else None
        # With the role, before anyone may write: a mode that was in force is not any more.
        self._state.set_role(group.name, Role.PRIMARY, row)
        try:
            begin_timeline(group, authority=True)
        except (FarshoreError, OSError):
            try:
                self._state.set_role(group.name, before, pair)
            except (FarshoreError, OSError) as error:
                self._ends.stop_receiving(group)
                self._begin_later(group, row, lambda: self._serve(group, row, state), error)
            raise
        self._ends.stop_receiving(group)
        group.remains.drop()
        self.begin(group, row, lambda: self._serve(group, row, state))

    def _serve(self, group: Group, pair: PairRow | None, state: PairState) -> None:
        """A takeover, or a hand-over, is done: hosts may come, and the peer is shipped to."""
        try:
            self._doors.open(group, fenced_too=state is PairState.TAKEN_OVER)
        except (FarshoreError, OSError) as error:
            self._emit("group.not_online", group=group.name, error=str(error))
        self._emit("group.taken_over", group=group.name, position=str(group.end))
        if pair is not None:
            self._ends.ship(group, pair)
        self._notify()

    def hand_over_arrives(self, group: Group) -> None:
        """The journal that comes from the peer may say that this site writes now. Looked at soon: the
        journal's writer may be in the middle of telling that it is durable."""
        self._timers.soon(group, Due.HAND_OVER, lambda: self._look_for_hand_over(group))

    def _look_for_hand_over(self, group: Group) -> None:
        """Whether it says so, durably here."""
        if not self._ends.receives(group) or group.writer.durable < group.writer.written:
            return
        if group.handed_to == group.site:
            try:
                self.take_over(group, PairState.COPYING)
            except (FarshoreError, OSError) as error:
                # Nothing more comes from the peer that would be a reason to look again.
                self._emit("group.take_over_failed", group=group.name, error=str(error))
                self._timers.again(group, Due.HAND_OVER, lambda: self._look_for_hand_over(group))

    # -- the peer does

    def hand_over(self, group: Group, peer: str, site_id: str) -> None:
        """Say in the journal that the peer writes from here on; hosts are gone before. Durable here before
        the peer sees it."""
        self._doors.close(group, peer)
        try:
            hand_over(group, site_id)
        except (FarshoreError, OSError):
            self._doors.open(group)  # nothing was handed over: hosts may come back to what they had
            raise

    def peer_chosen(self, group: Group, peer: str) -> None:
        """An operator chose the peer's history: this site's hosts must go, they see what was there."""
        self._doors.close(group, peer)

    def superseded(self, group: Group, by: str, generation: int, *, given: bool) -> None:
        """The peer writes the group by a newer authority, of that generation if it is known: stop serving at
        once and follow it. `given`: this site's operator gave it. FarshoreError or OSError: nobody is served
        all the same, and it is tried again with the peer's next word."""
        hosts, again = self._doors.connected(group), Holder.FENCED in group.holds
        # First of all, and without anything that can fail: who heard of it acknowledges no more.
        group.holds.put(Holder.FENCED, f"is written at {by} by a newer authority")
        if not again:  # else it was said, and something failed after that
            self._doors.say_cut_off(group, by, hosts, "it writes by a newer authority")
        if generation > max(self._state.heard(group.name), group.generation):
            self._state.set_heard(group.name, generation)
        self._doors.close(group, by, by=ClosedBy.OPERATOR if given else ClosedBy.AUTHORITY)
        self._state.set_role(group.name, Role.SECONDARY)
        self._ends.stop_shipping(group)
        self.remember_peers(group, mode=None, state=PairState.COPYING)
        self._ends.receive(group, by)
        self.no_longer_begins(group)
        group.holds.lift(Holder.FENCED)
        self._emit("group.fenced", group=group.name, object=by, position=str(group.end))
        self._notify()

    # -- both do, for a while

    def detach(self, group: Group) -> None:
        """Open a split pair's secondary to hosts."""
        self._state.set_role(group.name, Role.DETACHED)
        self._doors.open(group)
        self._emit("group.detached", group=group.name, position=str(group.end))

    def engaged(self, group: Group, peer: str) -> None:
        """The peer's next session: a detached site is a secondary again."""
        if self._state.group(group.name).role is Role.DETACHED:
            hosts = self._doors.connected(group)
            self._doors.say_cut_off(group, peer, hosts, "the pair goes on from there")
            # Before the role: once this is a secondary, nothing would close them any more.
            self._doors.close(group, peer, by=ClosedBy.RESYNC)
            self._state.set_role(group.name, Role.SECONDARY)

    def remember_peers(self, group: Group, *, mode: Mode | None, state: PairState) -> None:
        """Remember what the peer says of the pair. Told again with its next change; what hosts may do here
        does not hang on it."""
        try:
            remember(self._state, group.name, state, mode)
        except (FarshoreError, OSError) as error:
            self._emit("pair.not_remembered", group=group.name, error=str(error))
