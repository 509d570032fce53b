"""One site: wires what it is made of, starts it, and takes it all down again.

Start: lock → identity → config → state → groups (recovered) → replication → pairs → hosts → control.
Stop: control → hosts → pairs → a last checkpoint of each group → close.

What touches the world is given (`daemon.parts`); decisions are made in the engine and the site packages.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import structlog

from daemon import group_moves, jobs
from daemon.alerts import peer_news
from daemon.config import SiteConfig
from daemon.configured import control_address, nbd_addresses
from daemon.data_directory import Identity, Keys
from daemon.exports import SiteExports
from daemon.group_room import GroupRoom
from daemon.hook_config import hooks_of
from daemon.jobs import Jobs
from daemon.notify.relay import Relay
from daemon.open_group import GroupMaker
from daemon.operators import Operators
from daemon.pairs import SitePairs
from daemon.parts import SiteParts
from daemon.peer_traffic import SiteTraffic
from daemon.peers import Peer, PeerBook
from daemon.site_groups import SiteGroups
from daemon.site_requests import SiteRequests
from engine.group.compartment import attempt
from engine.group.group import Group
from engine.group.site_state import Role, SiteState
from engine.group.stored_rows import ENGINE_TABLES, StoredTable, sort_out
from engine.integrity.drills import Drills
from engine.integrity.proofs import Proofs
from engine.peering.pair_rows import rename_peer
from protocol.errors import FarshoreError, machine_refused
from site_primary.quiesce import Hooks
from site_secondary.base_seeds import BaseSeedUse
from site_secondary.peer_door import PeerDoor

log = structlog.get_logger()

T = TypeVar("T")
STORED_TABLES = {
    **ENGINE_TABLES,
    jobs.TABLE: StoredTable(check=jobs.check_row, of_group=False),
    jobs.GIVERS: StoredTable(check=jobs.check_giver, of_group=False),
    peer_news.TABLE: StoredTable(check=peer_news.check_row, of_group=False),
}


class Site:
    """Everything of one site. All of it runs on one loop."""

    def __init__(
        self,
        *,
        directory: pathlib.Path,
        config: SiteConfig,
        identity: Identity,
        keys: Keys,
        parts: SiteParts,
    ) -> None:
        self.directory, self.config, self.identity, self.keys = directory, config, identity, keys
        self.operators = Operators(config.operators)
        self.clock, self.rng, self.events = parts.clock, parts.rng, parts.events
        self.disk, self.transport, self.witness = parts.disk, parts.transport, parts.witness
        self.schedule_failures: dict[str, str] = {}  # by group, of the last backup that was due
        self.rewriting: set[tuple[str, int]] = set()  # group and volume (id): being turned back by writes
        self.changed, self._tasks = asyncio.Event(), set[asyncio.Task[Any]]()
        self._parts, self.log_dropped = parts, parts.log_dropped
        self.disk.sync([], [""])  # the state file's name
        emit, self.state = self.events.emit, SiteState(parts.store)
        self._rows = sort_out(parts.store, STORED_TABLES, self.clock.utc_ns())
        endpoint = config.advertise or config.replication
        self.own = Peer(name=config.name, site_id=identity.site_id, endpoint=endpoint, public_key=keys.public)
        room = GroupRoom(self.state, parts.descriptors_left, lambda: self.config.groups_per_peer)
        self.check_pairs, self.peers = room.check_pairs, self._open_peers()
        self.drills, self.proofs = Drills(parts.store), Proofs(parts.store)
        self.jobs = Jobs(self.state, self.clock, emit)
        self.hooks = Hooks(directory, self.disk, hooks_of(config.hooks), self.clock, emit)
        self.traffic = SiteTraffic(self.clock, self.peers.options, self.transport.unread_bytes)
        self.groups: dict[str, Group] = {}
        self.exports = SiteExports(
            self.groups, self.state, self.complete_until_ns, self.peer_of, config.sync_timeout_s
        )
        maker = GroupMaker(
            parts=parts,
            site_id=identity.site_id,
            state=self.state,
            notify=self.notify,
            on_defect=self._stop_group,
        )
        self._groups = groups = SiteGroups(self.groups, maker, self.exports, room.check)
        self.damaged, self.group, self.has_group = groups.damaged, groups.get, groups.has
        self.check_room, self.is_taken = groups.check_room, groups.is_taken
        self.create_group, self.drops, self.drop_clone = groups.create, groups.drops, groups.drop_clone
        self._requests = SiteRequests(
            groups=self.groups,
            state=self.state,
            peers=self.peers,
            transport=self.transport,
            clock=self.clock,
            rng=self.rng,
        )
        self.ask_peer = self._requests.ask
        self.pairs = SitePairs(
            state=self.state,
            exports=self.exports,
            transport=self.transport,
            rng=self.rng,
            emit=emit,
            notify=self.notify,
            address_of=self.peers.address_of,
            site_id_of=lambda peer: self.peers.get(peer).site_id,
            traffic_of=self.traffic.to,
            yields_to_takeover=config.yields_to_takeover,
            seeds_of=lambda group: BaseSeedUse(self.disk, group.clock, group.name, emit),
        )
        self.shippers, self.receivers = self.pairs.shippers, self.pairs.receivers
        self.make_receiver, self.superseded = self.pairs.make_receiver, self.pairs.superseded
        self.nbd = parts.host_door(self.exports)
        self.relay = Relay(config.name, config.notify, self.events, self.clock)
        self._door = self._make_door()

    @property
    def nbd_addresses(self) -> tuple[str, ...]:
        """Where hosts connect."""
        return nbd_addresses(self.directory, self.config)

    @property
    def control_endpoint(self) -> str:
        """Where the console asks."""
        return control_address(self.directory, self.config)

    def _make_door(self) -> PeerDoor:
        run = self.rng.getrandbits(62) | 1
        desk = peer_news.NewsDesk(self.events, run, lambda group, peer: self.peer_of(group) == peer)
        traffic = self.traffic
        return PeerDoor(
            self,
            self.state,
            self.events.emit,
            self.notify,
            traffic.answer,
            traffic.unread_bytes,
            desk.answer,
        )

    # -- start and stop

    async def start(self) -> None:
        """Open everything and begin to serve. Busy if an address is taken."""
        self.hooks.thaw_leftovers()
        group_moves.finish(self.disk, self._parts.store, self.state, self._not_moved)
        for bad in self._rows.set_aside:
            said = {"error": bad.error, "instead": bad.instead}
            self.events.emit("row.set_aside", group=bad.group, object=bad.subject, **said)
        for name, error in (self.state.bad_groups() | self._rows.closed).items():
            self._groups.set_aside(name, error)
        self._groups.open_all([row for row in self.state.groups() if row.name not in self._rows.closed])
        known = [(row.name, row.group_id) for row in self.state.groups()]
        self.witness.report_missing(known, self.damaged)
        for name, aside in self.peers.set_aside:
            self.events.emit("peer.set_aside", object=name, error=aside.message, next=aside.next_step)
        self.allow_peers()
        if self.config.replication:
            self.transport.listen(self._door.on_message)
        for name, group in self.groups.items():
            self._groups.start(name, partial(self.pairs.resume, group))
        self.witness.begin(self.groups)
        await self._ask_peers()
        for address in self.nbd_addresses:
            await self.nbd.listen(address)

    async def _ask_peers(self) -> None:
        """Wait a while for peers to say what this site may lack, before hosts are served (invariant 5)."""
        deadline = self.clock.monotonic() + self.config.start_wait_s
        while self.pairs.waiting() and (left_s := deadline - self.clock.monotonic()) > 0:
            changed = self.changed
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await changed.wait()
        for shipper in self.pairs.waiting():
            self.events.emit("pair.not_asked", peer=shipper.peer, reason="no answer in time")
        self.pairs.serve()

    async def stop(self) -> None:
        """Stop serving and leave little that the next start must replay."""
        await self.jobs.close()
        await self.nbd.close()
        for task in list(self._tasks):
            task.cancel()
        self.pairs.close()
        self._requests.close()
        self.transport.close()
        self._door.close()
        self.traffic.close()
        await self._groups.close()
        self.witness.close()
        self._parts.store.close()
        self.disk.close()
        await self._parts.close()
        self.events.close()

    # -- peers

    def _open_peers(self) -> PeerBook:
        """What a loss of power cut short of a renaming is done; without room on the disk at a later start."""
        book = PeerBook(self.disk, self.own, self.state.peers_of_pairs())
        with contextlib.suppress(OSError, FarshoreError):
            book.finish_renames(partial(rename_peer, self.state))
        return book

    def peer_changed(self, peer: str, name: str, *, anew: bool = False) -> None:
        """A peer that was known by the first name is another, or elsewhere: what goes to it goes there."""
        self.traffic.rename(peer, name)
        self.allow_peers()
        self.pairs.readdress(peer, name, anew=anew)
        self.notify()

    def allow_peers(self) -> None:
        """Let those connect that are trusted now, by the keys that they have, or are to have."""
        self.transport.allow(self.peers.allowed(), self.peers.coming_keys(), self._key_came)

    def _key_came(self, name: str) -> None:
        self.peers.key_came(name)
        self.allow_peers()
        self.events.emit("peer.key_changed", object=name, public_key=self.peers.get(name).public_key)

    def rekey(self, keys: Keys) -> None:
        """Go by other keys, which are this site's on the disk already."""
        self.keys, self.own = keys, replace(self.own, public_key=keys.public)
        self.peers.own = self.own
        self.transport.rekey(keys.public, keys.secret)
        for peer in self.peers.all():
            self.pairs.readdress(peer.name, peer.name)

    # -- groups

    def _stop_group(self, name: str, defect: Exception) -> None:
        """A defect in a group: it serves nobody until the next start, and the others go on."""
        reason = f"stopped by a defect: {type(defect).__name__}: {defect}"
        if machine_refused(defect):
            reason = f"stopped: {defect}"
        if not self._groups.stop(name, reason):
            return
        for end in (self.shippers.get(name), self.receivers.get(name)):
            if end is not None:
                attempt("group.defect", end.close)
        self._forget_group(name)
        self.events.emit("group.failed", group=name, error=reason, next="restart the site's daemon")
        self.notify()

    def _not_moved(self, name: str, error: Exception) -> None:
        self.events.emit("group.not_moved", group=name, error=str(error), next="restart the site's daemon")

    async def move_group(self, group: Group, to: str | None) -> None:
        """Give a group that nobody uses another name, or remove it. OSError: a start goes on with that."""
        name = group.name
        self._forget_group(name)
        self.pairs.forget(name)
        self.schedule_failures.pop(name, None)
        await self._groups.move(group, to)
        self.notify()

    def _forget_group(self, name: str) -> None:
        """Nothing is asked or answered about it any more."""
        self._requests.group_stopped(name)
        self._door.group_stopped(name)
        self.traffic.group_stopped(name)

    async def reopen(self, name: str) -> None:
        """Open a group that was damaged, and serve it. FarshoreError if it still cannot be opened."""
        try:
            group = self._groups.open_group(self.state.group(name))
        except FarshoreError as error:
            self.damaged[name] = error
            raise
        del self.damaged[name]
        self.pairs.resume(group)
        await self._ask_peers()
        self.notify()

    # -- what others ask of it

    def peer_of(self, group: str) -> str:
        """The name of a group's peer, or nothing."""
        pair = self.state.pair(group)
        return pair.peer if pair else ""

    def name_of(self, site_id: str) -> str:
        """A site's name by its id; the id itself if it is not known."""
        if site_id == self.identity.site_id:
            return self.config.name
        return next((peer.name for peer in self.peers.all() if peer.site_id == site_id), site_id)

    def complete_until_ns(self, group: str) -> int:
        """UTC nanoseconds up to which this site holds every frame of a group."""
        receiver = self.receivers.get(group)
        if receiver is not None:
            return receiver.complete_until_ns
        if self.state.group(group).role is Role.SECONDARY:
            # Its pair is gone: more frames of that very time may be.
            return max(0, self.groups[group].head.utc_ns - 1)
        return self.clock.utc_ns()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin what goes on although nobody waits for it, until the site stops. It says itself what
        fails."""
        task = self._parts.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_log_defect)
        return task

    def notify(self) -> None:
        """Wake whoever waits for positions or states."""
        self.changed.set()
        self.changed = asyncio.Event()


def _log_defect(task: asyncio.Task[Any]) -> None:
    """What such work says itself are refusals; nobody would hear of the rest."""
    defect = None if task.cancelled() else task.exception()
    if defect is not None and not isinstance(defect, FarshoreError | OSError):
        log.error("task.defect", task=task.get_name(), exc_info=defect)
