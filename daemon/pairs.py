"""The pairs of one site: who ships which group to whom, who receives it, and how roles move.

Every change of role is durable before the first message or write that depends on it (invariant 9), and
exports that it closed stay closed until an operator opens them, or a role move brings the writing back here.

    takeover, or a hand-over that arrived      secondary → primary, by a timeline that outranks all others
    the peer writes by a newer authority       primary → secondary: hosts go at once (shipping.yielding)
    opened while the pair is split             secondary → detached, until the peer's next session
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from daemon.exports import SiteExports
from daemon.pair_rows import once_remembered, remember
from daemon.pair_timers import Due, PairTimers
from daemon.role_exports import ClosedBy, RoleExports
from engine.group.compartment import attempt
from engine.group.group import Group
from engine.group.head_moves import begin_timeline, generation_of, hand_over
from engine.group.holds import Holder
from engine.group.listeners import Emit
from engine.group.serving import took_over
from engine.group.site_state import PairRow, Role, SiteState
from engine.peering.pair_states import Mode, PairState, PairVerb, next_state
from engine.ports.transport import PeerAddress, Transport
from protocol.errors import Busy, FarshoreError, NotAllowed, WrongState
from protocol.events import StrictMode
from site_primary.shipping.comparison import Choice
from site_primary.shipping.session import PeerTraffic, Session
from site_primary.shipping.shipper import Shipper
from site_primary.shipping.yielding import check_yield, given_away
from site_secondary.receiver import Receiver, ReceiverChange


class SitePairs:
    """See the module's docstring. `address_of` gives a peer's address, `site_id_of` its id, `traffic_of` how
    it is sent to."""

    def __init__(
        self,
        *,
        state: SiteState,
        exports: SiteExports,
        transport: Transport,
        rng: random.Random,
        emit: Emit,
        notify: Callable[[], None],
        address_of: Callable[[str], PeerAddress],
        site_id_of: Callable[[str], str],
        traffic_of: Callable[[str], PeerTraffic],
        yields_to_takeover: bool = True,
    ) -> None:
        self.shippers: dict[str, Shipper] = {}
        self.receivers: dict[str, Receiver] = {}
        self._watched: set[str] = set()
        self._timers = PairTimers()
        self._state = state
        self._exports = exports
        self._doors = RoleExports(state, exports, emit)
        self._transport = transport
        self._rng = rng
        self._emit = emit
        self._notify = notify
        self._address_of = address_of
        self._site_id_of = site_id_of
        self._traffic_of = traffic_of
        self._yields_to_takeover = yields_to_takeover

    # -- start and stop

    def resume(self, group: Group) -> None:
        """Go on with a group's pair, after a start of the site."""
        pair = self._state.pair(group.name)
        if pair is None:
            return
        if self._state.group(group.name).role is not Role.PRIMARY:
            self.make_receiver(group, pair.peer)
            return
        # Of another site's timeline this one cannot know where it ends there.
        own = group.head.timeline == 0 or group.timelines.get(group.head.timeline).writer == group.site
        group.head.sealed = own and self._state.shipped(group.name) != group.head.timeline

        def ask() -> None:
            if pair.state is not PairState.SPLIT and group.head:
                group.holds.put(Holder.START, f"asks {pair.peer} for what it may lack")
            self._ship(group, pair)

        self._begin(group, pair, ask)

    def _begin(self, group: Group, pair: PairRow | None, then: Callable[[], None]) -> None:
        """What a site that is to write does before anything else, at a takeover or at a start after one that
        was cut short. While it cannot, nobody is served, and it is tried again."""
        self._no_longer_begins(group)
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
        self._timers.again(group, Due.BEGIN, lambda: self._begin(group, pair, then))

    def _no_longer_begins(self, group: Group) -> None:
        """It has begun, or a newer authority or the end of the pair settled it."""
        self._timers.stop(group, Due.BEGIN)
        group.holds.lift(Holder.TAKEOVER)

    def waiting(self) -> list[Shipper]:
        """Shippers whose group may not serve before the peer was asked (invariant 5)."""
        return [shipper for shipper in self.shippers.values() if not shipper.hosts.settled]

    def serve(self) -> None:
        """Serve every group whose peer need not be waited for any longer."""
        for shipper in list(self.shippers.values()):
            if shipper.gate.in_force is Mode.SYNC_STRICT:
                continue
            # A listener of one group must not keep the others from being served.
            attempt("pair.not_served", shipper.wait_no_longer)

    def close(self) -> None:
        """Stop all of them."""
        self._timers.close()
        for shipper in self.shippers.values():
            attempt("pair.close_failed", shipper.close)
        for receiver in self.receivers.values():
            attempt("pair.close_failed", receiver.close)

    # -- both ends

    def _ship(self, group: Group, pair: PairRow) -> Shipper:
        self._stop_shipping(group)  # of a group that is taken back after a hand-over there is one
        gate = self._exports.gate(group)
        address, traffic = self._address_of(pair.peer), self._traffic_of(pair.peer)
        session = Session(
            transport=self._transport, address=address, clock=group.clock, rng=self._rng, traffic=traffic
        )
        shipper = Shipper(
            group=group,
            group_id=self._state.group(group.name).group_id,
            session=session,
            rng=self._rng,
            gate=gate,
            on_change=self._notify,
            on_superseded=lambda: self.superseded(group, pair.peer),
        )
        self.shippers[group.name] = shipper
        gate.start(
            pair.mode,
            fallen_back=pair.fallen_back,
            persist=partial(self._set_mode, group),
            ask_durable=shipper.ask_durable,
        )
        shipper.start(pair.state)
        return shipper

    def _set_mode(self, group: Group, mode: Mode, fallen_back: bool) -> None:
        """See `SyncGate.start`. The peer learns from the journal that the strict promise holds."""
        self._state.set_mode(group.name, mode, fallen_back)
        self._promise_strict(group)

    def _promise_strict(self, group: Group) -> None:
        """Say in the journal that the strict mode is in force, once its row says so. Until it could be said,
        a takeover promises less than it might; the mode itself does not hang on it."""
        pair = self._state.pair(group.name)
        if pair is None or not pair.strict or group.strict or group.name not in self.shippers:
            return
        try:
            group.append_records([StrictMode(on=True)])
        except (FarshoreError, OSError) as error:
            self._emit("pair.strict_not_said", group=group.name, error=str(error))
            self._timers.again(group, Due.STRICT, lambda: self._promise_strict(group))

    def make_receiver(self, group: Group, peer: str) -> Receiver:
        """Take the group's journal from a peer."""
        self._stop_receiving(group)
        group.head.sealed = False

        def changed(change: ReceiverChange) -> None:
            self._receiver_changed(group, change)

        def look() -> None:
            # Not at once: the journal's writer is in the middle of telling that it is durable.
            if group.handed_to:
                self._timers.soon(group, Due.HAND_OVER, lambda: self._look_for_hand_over(group))

        receiver = self.receivers[group.name] = Receiver(group, peer, changed)
        if group.name not in self._watched:
            self._watched.add(group.name)
            group.listeners.durable.append(look)
        look()
        return receiver

    def _receiver_changed(self, group: Group, change: ReceiverChange) -> None:
        receiver = self.receivers[group.name]
        if change is ReceiverChange.ENGAGED:
            if self._state.group(group.name).role is Role.DETACHED:
                hosts = self._doors.connected(group)
                self._doors.say_cut_off(group, receiver.peer, hosts, "the pair goes on from there")
                # Before the role: once this is a secondary, nothing would close them any more.
                self._doors.close(group, receiver.peer, by=ClosedBy.RESYNC)
                self._state.set_role(group.name, Role.SECONDARY)
        else:
            state = PairState.SPLIT if receiver.state is PairState.SPLIT else PairState.COPYING
            self._follow_row(group, mode=receiver.mode, state=state)
            if group.handed_to == group.site:  # with a base there is nothing more to become durable
                self._timers.soon(group, Due.HAND_OVER, lambda: self._look_for_hand_over(group))
        self._notify()

    def _follow_row(self, group: Group, *, mode: Mode | None, state: PairState) -> None:
        """Remember what the peer says of the pair. Told again with its next change; what hosts may do here
        does not hang on it."""
        try:
            remember(self._state, group.name, state, mode)
        except (FarshoreError, OSError) as error:
            self._emit("pair.not_remembered", group=group.name, error=str(error))

    # -- verbs

    def create(self, group: Group, peer: str, mode: Mode) -> None:
        """Attach a group that this site writes to a peer."""
        row = PairRow(
            group=group.name,
            peer=peer,
            mode=mode,
            state=PairState.COPYING,
            reason="",
            fallen_back=mode is not Mode.ASYNC,
        )
        self._state.put_pair(row)
        self._ship(group, row).hosts.serve()

    def split(self, name: str) -> None:
        """Pause at whatever the peer has."""
        shipper = self.shipper(name)
        next_state(shipper.state, PairVerb.SPLIT, name)
        once_remembered(self._state, name, PairState.SPLIT, shipper.split)

    def resync(self, group: Group, choice: Choice) -> None:
        """Go on, in order. With the peer's history chosen this site's hosts must go: they see what was
        there."""
        shipper = self.shipper(group.name)
        next_state(shipper.state, PairVerb.RESYNC, group.name)

        def begin() -> None:
            if choice is Choice.REMOTE:
                self._doors.close(group, shipper.peer)
            shipper.resync(choice)

        once_remembered(self._state, group.name, PairState.COPYING, begin)

    def delete(self, group: Group) -> None:
        """End the pair at this site. A secondary keeps its copy and can then be taken over."""
        self._state.delete_pair(group.name)
        self._stop_shipping(group)
        self._stop_receiving(group)
        self._no_longer_begins(group)
        self._exports.gate(group).stop()
        self._emit("pair.deleted", group=group.name)

    def hand_over(self, group: Group) -> None:
        """Say in the journal that the peer writes from here on; hosts are gone before. Durable here before
        the peer sees it."""
        shipper = self.shipper(group.name)
        if shipper.state is not PairState.PAIRED:
            raise WrongState(
                f"pair {group.name} is {shipper.state.value}: only one that is paired can be handed over",
                subject=group.name,
                position=str(group.end),
                next_step=f"`farshore wait {group.name} --state paired`",
            )
        self._doors.close(group, shipper.peer)
        try:
            hand_over(group, self._site_id_of(shipper.peer))
        except (FarshoreError, OSError):
            self._doors.open(group)  # nothing was handed over: hosts may come back to what they had
            raise

    def _look_for_hand_over(self, group: Group) -> None:
        """Whether the journal that came from the peer, durable here, says that this site writes now."""
        if group.name not in self.receivers or group.writer.durable < group.writer.written:
            return
        if group.handed_to == group.site:
            try:
                self.take_over(group, PairState.COPYING)
            except (FarshoreError, OSError) as error:
                # Nothing more comes from the peer that would be a reason to look again.
                self._emit("group.take_over_failed", group=group.name, error=str(error))
                self._timers.again(group, Due.HAND_OVER, lambda: self._look_for_hand_over(group))

    def take_over(self, group: Group, state: PairState) -> None:
        """This site writes the group from now on. `state` of the pair: TAKEN_OVER, or COPYING after a
        hand-over. FarshoreError or OSError: it does not, unless its role could not be set back; then it
        begins as soon as it can."""
        if Holder.INSTALL in group.holds:
            raise Busy(
                f"group {group.name} {group.holds.reason}",
                subject=group.name,
                position=str(group.end),
                next_step="try again once that is done: it takes moments",
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
                self._stop_receiving(group)
                self._begin_later(group, row, lambda: self._serve(group, row, state), error)
            raise
        self._stop_receiving(group)
        self._begin(group, row, lambda: self._serve(group, row, state))

    def _stop_shipping(self, group: Group) -> None:
        self._timers.stop(group, Due.STRICT)
        shipper = self.shippers.pop(group.name, None)
        if shipper is not None:
            shipper.close()

    def _stop_receiving(self, group: Group) -> None:
        self._timers.stop(group, Due.HAND_OVER)
        receiver = self.receivers.pop(group.name, None)
        if receiver is not None:
            receiver.close()

    def _serve(self, group: Group, pair: PairRow | None, state: PairState) -> None:
        """A takeover, or a hand-over, is done: hosts may come, and the peer is shipped to."""
        try:
            self._doors.open(group, fenced_too=state is PairState.TAKEN_OVER)
        except (FarshoreError, OSError) as error:
            self._emit("group.not_online", group=group.name, error=str(error))
        self._emit("group.taken_over", group=group.name, position=str(group.end))
        if pair is not None:
            self._ship(group, pair).hosts.serve()
        self._notify()

    def detach(self, group: Group) -> None:
        """Open a split pair's secondary to hosts."""
        self._state.set_role(group.name, Role.DETACHED)
        self._doors.open(group)
        self._emit("group.detached", group=group.name, position=str(group.end))

    def superseded(self, group: Group, by: str, generation: int = 0) -> None:
        """The peer writes the group by a newer authority, of that generation if it is known: stop serving at
        once and follow it. NotAllowed: this site does not yield to it (shipping.yielding). Another
        FarshoreError or OSError: nobody is served all the same, and it is tried again with the peer's next
        word."""
        try:
            check_yield(group, self.shippers.get(group.name), by, to_takeover=self._yields_to_takeover)
        except NotAllowed as error:
            fields = {"group": group.name, "object": by, "position": str(group.end)}
            self._emit("peer.claim_refused", **fields, generation=generation, reason=str(error))
            raise
        hosts, again = self._doors.connected(group), Holder.FENCED in group.holds
        # First of all, and without anything that can fail: who heard of it acknowledges no more.
        group.holds.put(Holder.FENCED, f"is written at {by} by a newer authority")
        if not again:  # else it was said, and something failed after that
            self._doors.say_cut_off(group, by, hosts, "it writes by a newer authority")
        if generation > max(self._state.heard(group.name), generation_of(group)):
            self._state.set_heard(group.name, generation)
        given = given_away(group, self.shippers.get(group.name))
        self._doors.close(group, by, by=ClosedBy.OPERATOR if given else ClosedBy.AUTHORITY)
        self._state.set_role(group.name, Role.SECONDARY)
        self._stop_shipping(group)
        self._exports.gate(group).stop()
        self._follow_row(group, mode=None, state=PairState.COPYING)
        self.make_receiver(group, by)
        self._no_longer_begins(group)
        group.holds.lift(Holder.FENCED)
        self._emit("group.fenced", group=group.name, object=by, position=str(group.end))
        self._notify()

    def shipper(self, name: str) -> Shipper:
        """The shipper of a group that this site writes; WrongState."""
        found = self.shippers.get(name)
        if found is None:
            raise WrongState(
                f"group {name} has no pair",
                subject=name,
                next_step=f"`farshore pair create {name} --with PEER`",
            )
        return found
