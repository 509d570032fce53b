"""The pairs of one site: who ships which group to whom, and who receives it.

How roles move is the engine's (engine.peering.role_moves), which reaches this site's shippers and receivers
here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial

from daemon.exports import SiteExports
from engine.group.compartment import attempt
from engine.group.group import Group
from engine.group.holds import Holder
from engine.group.listeners import Emit
from engine.group.site_state import PairRow, SiteState
from engine.peering.link_pool import LinkPool
from engine.peering.pair_rows import once_remembered
from engine.peering.pair_states import Mode, PairState, PairVerb, next_state
from engine.peering.pair_timers import Due, PairTimers
from engine.peering.peer_clocks import PeerClocks
from engine.peering.role_moves import RoleMoves
from engine.ports.transport import PeerAddress, Transport
from engine.retention.journal_space import lease_of
from protocol.errors import FarshoreError, NotAllowed, WrongState
from protocol.events import StrictMode
from site_primary.shipping.comparison import Choice
from site_primary.shipping.session import PeerTraffic, Session
from site_primary.shipping.shipper import Shipper
from site_primary.shipping.yielding import check_yield, given_away
from site_secondary.base_seeds import BaseSeedUse
from site_secondary.receiver import Receiver, ReceiverChange

PairEnd = Shipper | Receiver


class SitePairs:
    """The shippers and receivers of one site. `address_of` gives a peer's address, `site_id_of` its id,
    `traffic_of` how it is sent to; `seeds_of` what a group has for a copy that comes."""

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
        seeds_of: Callable[[Group], BaseSeedUse | None] = lambda _: None,
    ) -> None:
        self.shippers: dict[str, Shipper] = {}
        self.receivers: dict[str, Receiver] = {}
        self.clocks = PeerClocks(emit)
        self._watched: set[str] = set()
        self._timers = PairTimers()
        self._state = state
        self._exports = exports
        self._links = LinkPool(transport)
        self._rng = rng
        self._emit = emit
        self._notify = notify
        self._address_of = address_of
        self._site_id_of = site_id_of
        self._traffic_of = traffic_of
        self._yields_to_takeover = yields_to_takeover
        self._seeds_of = seeds_of
        self._moves = RoleMoves(
            state=state, exports=exports, ends=self, timers=self._timers, emit=emit, notify=notify
        )
        self.take_over, self.detach = self._moves.take_over, self._moves.detach

    # -- start and stop

    def resume(self, group: Group) -> None:
        """Go on with a group's pair, after a start of the site."""
        pair = self._state.pair(group.name)
        receives = pair is not None and not group.primary
        if not receives:
            group.remains.drop()
        if pair is None:
            return
        if receives:
            self.make_receiver(group, pair.peer)
            return
        # Of another site's timeline this one cannot know where it ends there.
        own = group.head.timeline == 0 or group.timelines.get(group.head.timeline).writer == group.site
        group.head.sealed = own and self._state.shipped(group.name) != group.head.timeline

        def ask() -> None:
            if pair.state is not PairState.SPLIT and group.head:
                group.holds.put(Holder.START, f"asks {pair.peer} for what it may lack")
            self._ship(group, pair)

        self._moves.begin(group, pair, ask)

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
        for _, end in self.ends():
            attempt("pair.close_failed", end.close)

    def ends(self) -> Iterator[tuple[str, PairEnd]]:
        """This site's end of every pair, with the group's name."""
        yield from self.shippers.items()
        yield from self.receivers.items()

    def readdress(self, peer: str, name: str, *, anew: bool = False) -> None:
        """The peer has that name from now on (the same, perhaps), and its address is to be asked for again.
        `anew`: another site has taken its place. What is the peer's in the site's state is so already."""
        for group, shipper in list(self.shippers.items()):
            if shipper.peer == peer:
                shipper.session.address = self._address_of(name)
                defect = attempt("pair.not_readdressed", partial(shipper.readdressed, anew=anew))
                if defect is not None:
                    self._emit("pair.not_readdressed", group=group, object=name, error=str(defect))
        for group, receiver in list(self.receivers.items()):
            if receiver.peer == peer and (anew or name != peer):
                self.make_receiver(self._exports.group(group), name)

    # -- both ends

    def _ship(self, group: Group, pair: PairRow) -> Shipper:
        self._stop_shipping(group)  # of a group that is taken back after a hand-over there is one
        gate = self._exports.gate(group)
        address, traffic = self._address_of(pair.peer), self._traffic_of(pair.peer)
        session = Session(
            links=self._links,
            address=address,
            clock=group.clock,
            rng=self._rng,
            traffic=traffic,
            peer_clock=self.clocks.of(pair.peer),
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
            ask_durable=shipper.window.ask_durable,
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
        self.stop_receiving(group)
        group.head.sealed = False

        def changed(change: ReceiverChange) -> None:
            self._receiver_changed(group, change)

        def look() -> None:
            if group.handed_to:
                self._moves.hand_over_arrives(group)

        receiver = self.receivers[group.name] = Receiver(
            group, peer, changed, self.clocks.of(peer), self._seeds_of(group)
        )
        if group.name not in self._watched:
            self._watched.add(group.name)
            group.listeners.durable.append(look)
        look()
        return receiver

    def _receiver_changed(self, group: Group, change: ReceiverChange) -> None:
        receiver = self.receivers[group.name]
        if change is ReceiverChange.ENGAGED:
            self._moves.engaged(group, receiver.peer)
        else:
            state = PairState.SPLIT if receiver.state is PairState.SPLIT else PairState.COPYING
            self._moves.remember_peers(group, mode=receiver.mode, state=state)
            if group.handed_to == group.site:  # with a base there is nothing more to become durable
                self._moves.hand_over_arrives(group)
        self._notify()

    # -- `PairEnds`

    def ship(self, group: Group, pair: PairRow) -> None:
        """See `PairEnds.ship`."""
        self._ship(group, pair).hosts.serve()

    def stop_shipping(self, group: Group) -> None:
        """See `PairEnds.stop_shipping`."""
        self._stop_shipping(group)
        self._exports.gate(group).stop()

    def receive(self, group: Group, peer: str) -> None:
        """See `PairEnds.receive`."""
        self.make_receiver(group, peer)

    def receives(self, group: Group) -> bool:
        """See `PairEnds.receives`."""
        return group.name in self.receivers

    def stop_receiving(self, group: Group) -> None:
        """See `PairEnds.stop_receiving`."""
        self._timers.stop(group, Due.HAND_OVER)
        receiver = self.receivers.pop(group.name, None)
        if receiver is not None:
            receiver.close()

    def _stop_shipping(self, group: Group) -> None:
        self._timers.stop(group, Due.STRICT)
        shipper = self.shippers.pop(group.name, None)
        if shipper is not None:
            shipper.close()

    # -- verbs

    def create(self, group: Group, peer: str, mode: Mode) -> None:
        """Attach a group that this site writes to a peer, in place of the one that it had."""
        self._forget_peer(group)
        row = PairRow(
            group=group.name,
            peer=peer,
            mode=mode,
            state=PairState.COPYING,
            reason="",
            fallen_back=mode is not Mode.ASYNC,
        )
        self._state.put_pair(row)
        self.ship(group, row)

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
                self._moves.peer_chosen(group, shipper.peer)
            shipper.resync(choice)

        once_remembered(self._state, group.name, PairState.COPYING, begin)

    def delete(self, group: Group) -> None:
        """End the pair at this site. A secondary keeps its copy and can then be taken over."""
        self._forget_peer(group)
        self._state.delete_pair(group.name)
        self.stop_receiving(group)
        group.remains.drop()
        self._moves.no_longer_begins(group)
        self._exports.gate(group).stop()
        self._emit("pair.deleted", group=group.name)

    def _forget_peer(self, group: Group) -> None:
        """What was kept for the group's peer is not any more."""
        shipper = self.shippers.get(group.name)
        if shipper is not None:
            self.stop_shipping(group)
            group.kept.leases.release(lease_of(shipper.peer))

    def forget(self, group: str) -> None:
        """Another group may come by its name."""
        self._watched.discard(group)

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
        self._moves.hand_over(group, shipper.peer, self._site_id_of(shipper.peer))

    def superseded(self, group: Group, by: str, generation: int = 0) -> None:
        """The peer writes the group by a newer authority, of that generation if it is known: stop serving at
        once and follow it. NotAllowed: this site does not yield to it (shipping.yielding). Another
        FarshoreError or OSError: nobody is served all the same, and it is tried again with the peer's next
        word."""
        shipper = self.shippers.get(group.name)
        try:
            check_yield(group, shipper, by, to_takeover=self._yields_to_takeover)
        except NotAllowed as error:
            fields = {"group": group.name, "object": by, "position": str(group.end)}
            self._emit("peer.claim_refused", **fields, generation=generation, reason=str(error))
            raise
        self._moves.superseded(group, by, generation, given=given_away(group, shipper))

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
