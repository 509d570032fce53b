"""One site: the composition root. Opens what is on disk, starts the servers, and takes it all down again.

Start: lock → identity → config → state → groups (recovered) → replication → pairs → hosts → control.
Stop: control → hosts → pairs → a last checkpoint of each group → close.

It wires; decisions are made in the engine and the site packages.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import random
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

import structlog

from daemon import jobs
from daemon.config import SiteConfig, hooks_of
from daemon.data_directory import Identity, Keys
from daemon.event_log import EventLog
from daemon.exports import SiteExports
from daemon.group_room import GroupRoom
from daemon.jobs import Jobs
from daemon.new_group import make_group
from daemon.open_group import GroupMaker, OpenGroup
from daemon.pairs import SitePairs
from daemon.peer_traffic import SiteTraffic
from daemon.peers import Peer, PeerBook
from daemon.witness import Witness
from engine.group.clones import Clone
from engine.group.compartment import attempt, attempt_async
from engine.group.group import Group
from engine.group.site_state import SITE_TABLES, GroupRow, Role, SiteState
from engine.group.stored_rows import ENGINE_TABLES, StoredTable, sort_out
from engine.history.branch_drop import BranchDrops, check_droppable
from engine.integrity.drills import Drills
from engine.peering.peer_questions import PeerQuestions
from engine.ports.clock import SystemClock
from engine.ports.durable import RealDisk
from engine.ports.lmdb_store import LmdbStore
from engine.ports.zmq_transport import ZmqTransport
from protocol.errors import FarshoreError, WrongState
from protocol.limits import FRAME_BYTES_MAX
from site_primary.nbd.server import NbdServer
from site_primary.quiesce import Hooks
from site_secondary.peer_door import PeerDoor

log = structlog.get_logger()

T = TypeVar("T")
STATE_FILE = "state.mdb"
STATE_MAP_BYTES = 1 << 30
PART_BYTES_MAX = FRAME_BYTES_MAX + (64 << 10)  # of a peer's message
STORED_TABLES = {**ENGINE_TABLES, jobs.TABLE: StoredTable(check=jobs.check_row, of_group=False)}


class Site:
    """See the module's docstring. All of it runs on one loop."""

    def __init__(
        self,
        *,
        directory: pathlib.Path,
        config: SiteConfig,
        identity: Identity,
        keys: Keys,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.directory = directory
        self.config = config
        self.identity = identity
        self.keys = keys
        self.clock = SystemClock(loop)
        self.rng = random.SystemRandom()
        self.events = EventLog(self.clock)
        self.disk = RealDisk(directory, loop)
        self.groups: dict[str, Group] = {}
        self.damaged: dict[str, FarshoreError] = {}
        self.schedule_failures: dict[str, str] = {}  # by group, of the last backup that was due
        self.changed = asyncio.Event()
        self._loop = loop
        self._store = LmdbStore(directory / STATE_FILE, STATE_MAP_BYTES, SITE_TABLES)
        self.disk.sync([], [""])  # the state file's name
        self.state = SiteState(self._store)
        self._rows = sort_out(self._store, STORED_TABLES, self.clock.utc_ns())
        self.own = _own(config, identity, keys)
        self.check_room = GroupRoom(self.state).check
        self.peers = PeerBook(self.disk, self.own, self.state.peers_of_pairs())
        self.drills, self.jobs = Drills(self._store), Jobs(self.state, self.clock, self.events.emit)
        self.witness = self._read_witness()
        self._open: dict[str, OpenGroup] = {}
        self._maker = GroupMaker(
            directory=directory,
            loop=loop,
            site_id=identity.site_id,
            config=config,
            state=self.state,
            rng=self.rng,
            emit=self.events.emit,
            notify=self.notify,
            on_defect=self._stop_group,
        )
        self.transport = ZmqTransport(loop, config.replication, keys.public, keys.secret, PART_BYTES_MAX)
        self.traffic = SiteTraffic(self.clock, self.peers.options, self.transport.unread_bytes)
        self.exports = SiteExports(
            self.groups, self.state, self.complete_until_ns, self.peer_of, config.sync_timeout_s
        )
        self.nbd = NbdServer(loop, self.exports, config.nbd_connections_per_host)
        self.pairs = SitePairs(
            state=self.state,
            exports=self.exports,
            transport=self.transport,
            rng=self.rng,
            emit=self.events.emit,
            notify=self.notify,
            address_of=lambda peer: self.peers.get(peer).address,
            site_id_of=lambda peer: self.peers.get(peer).site_id,
            traffic_of=self.traffic.to,
            yields_to_takeover=config.yields_to_takeover,
        )
        self.shippers, self.receivers = self.pairs.shippers, self.pairs.receivers
        self.make_receiver, self.superseded = self.pairs.make_receiver, self.pairs.superseded
        self.rewriting: set[tuple[str, int]] = set()  # group and volume (id): being turned back by writes
        self._tasks: set[asyncio.Task[Any]] = set()
        self.hooks = Hooks(directory, hooks_of(config), self.clock, self.events.emit)
        self._questions: dict[tuple[str, str], PeerQuestions] = {}
        self._door = PeerDoor(
            self, self.state, self.events.emit, self.notify, self.traffic.answer, self.traffic.unread_bytes
        )

    def _read_witness(self) -> Witness:
        return Witness(
            chosen=self.config.witness,
            environment=os.environ,
            data_directory=self.directory,
            site_id=self.identity.site_id,
            clock=self.clock,
            disk_at=lambda root: RealDisk(root, self._loop),
            emit=self.events.emit,
        )

    @property
    def nbd_addresses(self) -> tuple[str, ...]:
        """Where hosts connect."""
        return self.config.nbd or (f"unix:{self.directory / 'nbd.sock'}",)

    @property
    def control_endpoint(self) -> str:
        """Where the console asks."""
        return self.config.control or f"ipc://{self.directory / 'control.sock'}"

    # -- start and stop

    async def start(self) -> None:
        """Open everything and begin to serve. Busy if an address is taken."""
        self.hooks.thaw_leftovers()
        for bad in self._rows.set_aside:
            said = {"error": bad.error, "instead": bad.instead}
            self.events.emit("row.set_aside", group=bad.group, object=bad.subject, **said)
        for name, error in (self.state.bad_groups() | self._rows.closed).items():
            self._set_aside(name, error)
        for row in self.state.groups():
            if row.name not in self._rows.closed:
                self._start_group(row.name, partial(self.open_group, row))
        known = [(row.name, row.group_id) for row in self.state.groups()]
        self.witness.report_missing(known, self.damaged)
        for name, aside in self.peers.set_aside:
            self.events.emit("peer.set_aside", object=name, error=aside.message, next=aside.next_step)
        self.transport.allow(self.peers.allowed())
        if self.config.replication:
            self.transport.listen(self._door.on_message)
        for name, group in self.groups.items():
            self._start_group(name, partial(self.pairs.resume, group))
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
                await asyncio.wait_for(changed.wait(), left_s)
        for shipper in self.pairs.waiting():
            self.events.emit("pair.not_asked", peer=shipper.peer, reason="no answer in time")
        self.pairs.serve()

    async def stop(self) -> None:
        """Stop serving and leave nothing that the next start must replay."""
        await self.jobs.close()
        await self.nbd.close()
        for task in list(self._tasks):
            task.cancel()
        self.pairs.close()
        for questions in self._questions.values():
            questions.close()
        self.transport.close()
        self._door.close()
        self.traffic.close()
        for made in self._open.values():
            attempt("group.close_failed", self.exports.close_gate, made.group)
            await attempt_async("group.close_failed", made.close())
        self.witness.close()
        self._store.close()
        self.disk.close()

    # -- groups

    def open_group(self, row: GroupRow) -> Group:
        """Open, and recover, a group. Corruption if what was promised is not there."""
        self.disk.make_directory(f"groups/{row.name}")
        made = self._maker.open(row)
        self.groups[row.name] = group = made.group
        self._open[row.name] = made
        self.witness.compare(group, row.group_id)
        for clone in list(group.clones):
            if clone.row.temporary:
                self.drop_clone(clone)
        return group

    def _start_group(self, name: str, begin: Callable[[], object]) -> None:
        """Take a group up; one that cannot be is set aside, and the others start."""
        damage: list[FarshoreError] = []

        def begin_or_say() -> None:
            try:
                begin()
            except FarshoreError as found:  # damage that was looked for, and no defect
                damage.append(found)

        error = attempt("group.not_started", begin_or_say) or next(iter(damage), None)
        if error is None:
            return
        if name in self._open:
            self._stop_group(name, error)
        elif isinstance(error, FarshoreError):
            self._set_aside(name, error)
        else:
            self._set_aside(name, FarshoreError(f"{name} cannot be opened: {error}", subject=name))

    def _set_aside(self, name: str, error: FarshoreError) -> None:
        self.damaged[name] = error
        self.events.emit("group.damaged", group=name, position=error.position, error=error.message)

    def _stop_group(self, name: str, defect: Exception) -> None:
        """A defect in a group: it serves nobody until the next start, and the others go on."""
        made = self._open.get(name)
        if made is None:
            return  # it is being opened: whoever does so is told
        made.compartment.broken = True
        reason = f"stopped by a defect: {type(defect).__name__}: {defect}"
        made.stop(reason)
        asked = [questions for (group, _), questions in self._questions.items() if group == name]
        for end in (self.shippers.get(name), self.receivers.get(name), *asked):
            if end is not None:
                attempt("group.defect", end.close)
        self._door.group_stopped(name)
        self.traffic.group_stopped(name)
        self.events.emit("group.failed", group=name, error=reason, next="restart the site's daemon")
        self.notify()

    async def reopen(self, name: str) -> None:
        """Open a group that was damaged, and serve it. FarshoreError if it still cannot be opened."""
        group = self.open_group(self.state.group(name))
        del self.damaged[name]
        self.pairs.resume(group)
        await self._ask_peers()
        self.notify()

    def drops(self, group: Group) -> BranchDrops:
        """Branches of a group that are being dropped."""
        return self._open[group.name].drops

    def drop_clone(self, clone: Clone) -> None:
        """Forget a clone; hosts go at once. Busy while one of its cuts is being read."""
        branch, group = clone.branch(), self.groups[clone.history.name]
        check_droppable(group, branch)
        group.clones.stop(clone)
        self.exports.shut_clone(clone)
        self.drops(group).begin(branch)
        group.clones.forget(clone)

    def create_group(self, name: str, group_id: str, role: Role) -> Group:
        """A new, empty group. Refused if there is no room for it. What keeps it from being opened is raised,
        and no row of it stays."""
        self.check_room(name)
        row = GroupRow(name=name, group_id=group_id, role=role, head=0, created_utc_ns=self.clock.utc_ns())
        group = make_group(row, self.state, self.open_group, self._set_aside)
        self.events.emit("group.created", group=name, role=role.value)
        return group

    def has_group(self, name: str) -> bool:
        """Whether a group is here, damaged or not."""
        return name in self.groups or name in self.damaged

    def group(self, name: str) -> Group:
        """An open group; the damage that keeps it closed, or NotFound."""
        damage = self.damaged.get(name)
        if damage is not None:
            raise damage
        return self.exports.group(name)

    # -- pairs

    def ask_peer(self, group: str) -> PeerQuestions:
        """Ask a group's peer about its past. WrongState without a peer; the connection is kept for a
        while."""
        peer = self.peer_of(group)
        if not peer:
            raise WrongState(
                f"group {group} has no pair: there is no other site to ask",
                subject=group,
                next_step=f"`farshore pair create {group} --with PEER`",
            )
        address = self.peers.get(peer).address
        found = self._questions.get((group, peer))
        if found is None or found.address != address:
            found = self._questions[group, peer] = PeerQuestions(
                group=group,
                group_id=self.state.group(group).group_id,
                address=address,
                transport=self.transport,
                clock=self.groups[group].clock if group in self.groups else self.clock,
                rng=self.rng,
            )
        return found

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
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_log_defect)
        return task

    def notify(self) -> None:
        """Wake whoever waits for positions or states."""
        self.changed.set()
        self.changed = asyncio.Event()


def _own(config: SiteConfig, identity: Identity, keys: Keys) -> Peer:
    """This site as its token describes it."""
    endpoint = config.advertise or config.replication
    return Peer(name=config.name, site_id=identity.site_id, endpoint=endpoint, public_key=keys.public)


def _log_defect(task: asyncio.Task[Any]) -> None:
    """What such work says itself are refusals; nobody would hear of the rest."""
    defect = None if task.cancelled() else task.exception()
    if defect is not None and not isinstance(defect, FarshoreError | OSError):
        log.error("task.defect", task=task.get_name(), exc_info=defect)
