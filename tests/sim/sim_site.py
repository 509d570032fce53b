"""One site of the simulator: a machine with what survives on it, and the process that runs there.

`SimProcess` wires production code as `daemon.site.Site` does, over simulated ports. Modelled: the data
directory (a group's disk, index, the site's state), the indexer as a process, SIGKILL, power loss, a stop.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from daemon.exports import SiteExports
from daemon.pairs import SitePairs
from engine.group.group import Group
from engine.group.recovery import recover_group
from engine.group.settings import GroupSettings
from engine.group.site_state import SITE_TABLES, GroupRow, Role, SiteState
from engine.index.versions import TABLES
from engine.ports.transport import Caller, Link, OnLinkMessage, OnServerMessage, PeerAddress
from protocol.errors import FarshoreError, RemoteProtocolError
from protocol.limits import HEARTBEAT_TIMEOUT_S
from protocol.messages import SUPERSEDED, Hello, Refused, decode_message
from site_primary.carrier import PeerTraffic
from site_secondary.peer_door import PeerDoor
from tests.sim.mortal import Fuse, MortalDisk, MortalStoreFile
from tests.sim.sim_disk import DiskImage
from tests.sim.sim_indexer import SimIndexer
from tests.sim.sim_network import SimNetwork, SimTransport
from tests.sim.sim_store import SimStore, Tables
from tests.sim.world import SimClock, SimWorld

GROUP = "g"
GROUP_ID = "00000000000000a1"
STOP_POLL_S = 0.01
START_WAIT_S = 3.0
STOP_TIMEOUT_S = 10.0


class Witness(Protocol):
    """Who watches a site."""

    def opened(self, site: SimSite, group: Group) -> None:
        """A group is open; nothing else listens to it yet."""

    def emitted(self, site: SimSite, event: str, fields: dict[str, Any]) -> None:
        """The site reports an event."""

    def changed(self, site: SimSite) -> None:
        """A pair's state or marks, or what is durable."""

    def settled(self, site: SimSite) -> None:
        """The site has done with a message, whatever came of it."""

    def gone(self, site: SimSite) -> None:
        """The site's process ended."""


@dataclass(slots=True)
class SiteKnobs:
    """What an operator may change between two runs."""

    settings: GroupSettings
    indexer_delay_s: tuple[float, float]
    traffic: Callable[[SimClock], PeerTraffic]


@dataclass(frozen=True, slots=True)
class SiteCopy:
    """All that survives of a site, at a moment at which it did not run. `unsure`: the end of its journal may
    be gone, as after a power loss."""

    disk: DiskImage
    state: Tables
    index: Tables
    unsure: bool


class SimSite:
    """A machine. `process` is None while nothing runs on it."""

    def __init__(
        self,
        world: SimWorld,
        network: SimNetwork,
        name: str,
        peer: str,
        knobs: SiteKnobs,
        witness: Witness,
    ) -> None:
        self.world = world
        self.network = network
        self.name = name
        self.peer = peer
        self.knobs = knobs
        self.witness = witness
        self.fuse = Fuse(name, world)
        self.disk = MortalDisk(world, self.fuse)
        self.state_file = MortalStoreFile(self.fuse)
        self.index_file = MortalStoreFile(self.fuse)
        self.wall_offset_s = 0.0
        self.process: SimProcess | None = None
        self.starting = False
        self.down_since_power = False
        self.syncs_failed_before = 0

    @property
    def group(self) -> Group | None:
        """The group, if it is open."""
        return self.process.groups.get(GROUP) if self.process is not None else None

    @property
    def serving(self) -> bool:
        """Whether hosts and the operator find somebody."""
        return self.process is not None and not self.starting and not self.process.stopping

    @property
    def sync_failed(self) -> bool:
        """Whether a sync failed since the last recovery: then a kill may take what a power loss may."""
        return self.disk.failed_syncs > self.syncs_failed_before

    def start(self) -> None:
        """Start the process. OSError if it ended at once: the disk failed."""
        self.starting = True
        self.process = SimProcess(self)
        try:
            self.process.start()
        except OSError:
            self.end(power=False)
            raise
        self.starting = False

    def end(self, *, power: bool) -> None:
        """The process ends here and now, with the machine or alone."""
        self.fuse.put_out()
        process, self.process, self.starting = self.process, None, False
        if process is not None:
            process.indexer_outlives()
            process.clock.stop()
            process.transport.crash()
        if power:
            self.disk.crash()
            self.down_since_power = True
        else:
            self.disk.kill()
        self.state_file.crash()
        self.index_file.crash()
        self.world.note(self.name, "ended", power)
        self.witness.gone(self)

    def copy(self) -> SiteCopy:
        """A copy of the data directory of a site that does not run."""
        unsure = self.down_since_power or self.sync_failed
        return SiteCopy(self.disk.image(), self.state_file.tables, self.index_file.tables, unsure)

    def put_back(self, copy: SiteCopy) -> None:
        """An operator puts an old copy of the data directory in place; nothing runs."""
        self.disk.put_back(copy.disk)
        self.state_file.put_back(copy.state)
        self.index_file.put_back(copy.index)
        self.down_since_power = copy.unsure
        self.syncs_failed_before = self.disk.failed_syncs

    def jump(self, seconds: float) -> None:
        """Set the wall clock."""
        self.wall_offset_s += seconds
        if self.process is not None:
            self.process.clock.jump(seconds)

    def mend(self) -> None:
        """No more faults."""
        self.fuse.put_out()
        self.disk.mend()
        self.state_file.mend()
        self.index_file.mend()


def address(site: str) -> PeerAddress:
    """Where a site listens."""
    return PeerAddress(name=site, endpoint=f"tcp://{site}:7480", public_key=f"key of {site}")


class _Overheard:
    """A process's transport: what the peer answers is looked at before production has it."""

    def __init__(self, process: SimProcess, transport: SimTransport) -> None:
        self._process = process
        self._transport = transport

    def allow(self, keys: dict[str, str]) -> None:
        """See `Transport.allow`."""
        self._transport.allow(keys)

    def listen(self, on_message: OnServerMessage) -> None:
        """See `Transport.listen`."""
        self._transport.listen(on_message)

    def dial(self, address: PeerAddress, on_message: OnLinkMessage) -> Link:
        """See `Transport.dial`."""

        def heard(header: bytes, payload: bytes | None) -> None:
            process = self._process
            process._told(header)
            on_message(header, payload)
            process.site.witness.settled(process.site)

        return self._transport.dial(address, heard)

    def close(self) -> None:
        """See `Transport.close`."""
        self._transport.close()


class SimProcess:
    """One run of a site. Also the `GroupHolder` of its peer door."""

    def __init__(self, site: SimSite) -> None:
        self.site = site
        self.rng = random.Random(site.world.random.getrandbits(64))
        self.clock = SimClock(site.world)
        self.clock.jump(site.wall_offset_s)
        here = address(site.name)
        self.transport = SimTransport(site.network, site.name, here.endpoint, here.public_key)
        self.state = SiteState(SimStore(site.state_file, SITE_TABLES))
        self.groups: dict[str, Group] = {}
        self.damaged: dict[str, FarshoreError] = {}
        traffic = site.knobs.traffic(self.clock)
        self.exports = SiteExports(self.groups, self.state, self.complete_until_ns, lambda _: site.peer)
        self.pairs = SitePairs(
            state=self.state,
            exports=self.exports,
            transport=_Overheard(self, self.transport),
            rng=self.rng,
            emit=self.emit,
            notify=self.notify,
            address_of=address,
            site_id_of=lambda name: name,
            traffic_of=lambda _: traffic,
        )
        self.shippers, self.receivers = self.pairs.shippers, self.pairs.receivers
        self.make_receiver, self.superseded = self.pairs.make_receiver, self.pairs.superseded
        self._door = PeerDoor(self, self.state, self.emit, self.notify)
        self._indexer: SimIndexer | None = None
        self.stopping = False
        self._role: tuple[int, Role] | None = None
        self.learned = 0  # the newest authority that this process was to yield to while it was the primary
        self._followed_at: float | None = None  # when the peer last answered as one that follows

    def emit(self, event: str, **fields: Any) -> None:
        """See `engine.group.group.Emit`."""
        self.site.witness.emitted(self.site, event, fields)

    def notify(self) -> None:
        """As `Site.notify`."""
        self.site.witness.changed(self.site)

    @property
    def role(self) -> Role:
        """What the site's state says, durably. Asked after every message: read again after a commit."""
        commits = self.site.state_file.commits
        if self._role is None or self._role[0] != commits:
            self._role = (commits, self.state.group(GROUP).role)
        return self._role[1]

    @property
    def generation(self) -> int:
        """That of the group's head; 0 without one."""
        group = self.groups[GROUP]
        return group.timelines.get(group.head.timeline).generation if group.head else 0

    def _heard(self, caller: Caller, header: bytes, payload: bytes | None) -> None:
        """A message for the peer door; what it says of authority is learned before it is acted on."""
        with contextlib.suppress(RemoteProtocolError):
            message = decode_message(header)
            if isinstance(message, Hello) and GROUP in self.groups and self._yields():
                self.learned = max(self.learned, message.generation)
        self._door.on_message(caller, header, payload)
        self.site.witness.settled(self.site)

    def _told(self, header: bytes) -> None:
        """An answer of the peer's; that it writes by a newer authority may count as heard."""
        with contextlib.suppress(RemoteProtocolError):
            message = decode_message(header)
            shipper = self.shippers.get(GROUP)
            if shipper is None or shipper._link.session != message.session:
                return
            if not isinstance(message, Refused):
                self._followed_at = self.clock.monotonic()
            elif message.code == SUPERSEDED and self._yields():
                self.learned = max(self.learned, self.generation + 1)

    def _yields(self) -> bool:
        """Whether a primary here gives way to a newer authority: not to a peer that has just followed."""
        group = self.groups[GROUP]
        if self.role is not Role.PRIMARY:
            return False
        if self._followed_at is None or group.handed_to not in ("", group.site):
            return True
        return self.clock.monotonic() - self._followed_at > HEARTBEAT_TIMEOUT_S

    # -- start and stop

    def start(self) -> None:
        """As `Site.start`."""
        for row in self.state.groups():
            try:
                self.open_group(row)
            except FarshoreError as error:
                self.damaged[row.name] = error
                self.emit("group.damaged", group=row.name, position=error.position, error=error.message)
        self.transport.allow({self.site.peer: address(self.site.peer).public_key})
        self.transport.listen(self._heard)
        for group in self.groups.values():
            self.pairs.resume(group)
        self.clock.call_later(START_WAIT_S, self.pairs.serve)

    def begin_stop(self, stopped: Callable[[], None]) -> None:
        """As `Site.stop`: a last checkpoint, as far as one can be made in time."""
        self.stopping = True
        self.pairs.close()
        self.transport.close()
        deadline_s = self.clock.monotonic() + STOP_TIMEOUT_S

        def poll() -> None:
            waiting = False
            for group in self.groups.values():
                if group.checkpoints.reached < group.writer.written and not group.failed:
                    group.checkpoints.begin()
                    waiting = True
            if waiting and self.clock.monotonic() < deadline_s:
                self.clock.call_later(STOP_POLL_S, poll)
                return
            for group in self.groups.values():
                group.close()
            stopped()

        poll()

    def indexer_outlives(self) -> None:
        """The daemon is gone; its indexer may commit what it was about to before it follows."""
        if self._indexer is not None:
            self._indexer.orphan()

    # -- groups

    def open_group(self, row: GroupRow) -> Group:
        """As `Site.open_group`."""
        site = self.site
        self._indexer = indexer = SimIndexer(site, self.clock)
        group = Group(
            name=row.name,
            site=site.name,
            disk=site.disk,
            clock=self.clock,
            store=SimStore(site.index_file, TABLES, readonly=True),
            indexer=indexer,
            state=self.state,
            rng=self.rng,
            settings=site.knobs.settings,
            emit=self.emit,
        )
        try:
            found = recover_group(group)
        except (FarshoreError, OSError):
            group.close()
            raise
        if found.torn_bytes:
            torn = {"bytes": found.torn_bytes, "reason": found.reason}
            self.emit("journal.torn_tail", position=found.torn_at, **torn)
        self.emit("group.recovered", position=str(group.end), frames=found.frames, removed=found.removed)
        site.witness.opened(site, group)
        site.down_since_power, site.syncs_failed_before = False, site.disk.failed_syncs
        self.groups[row.name] = group
        return group

    def has_group(self, name: str) -> bool:
        """See `GroupHolder`."""
        return name in self.groups or name in self.damaged

    def group(self, name: str) -> Group:
        """See `GroupHolder`."""
        if name in self.damaged:
            raise self.damaged[name]
        return self.exports.group(name)

    def check_room(self, name: str, peer: str = "") -> None:
        """See `GroupHolder`; there is one group."""

    def create_group(self, name: str, group_id: str, role: Role) -> Group:
        """See `GroupHolder`."""
        row = GroupRow(name=name, group_id=group_id, role=role, head=0, created_utc_ns=self.clock.utc_ns())
        self.state.put_group(row)
        return self.open_group(row)

    def complete_until_ns(self, group: str) -> int:
        """As `Site.complete_until_ns`."""
        receiver = self.receivers.get(group)
        return receiver.complete_until_ns if receiver else self.clock.utc_ns()
