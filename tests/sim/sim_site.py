"""One site of the simulator: a machine with what survives on it, and the process that runs there.

The process is `daemon.site.Site`, whole, over simulated parts; `SimProcess` adds what the laws want to know
of it. What is modelled: the data directory (the site's disk and state, one group's disk and index), the
indexer as another process on the same machine, SIGKILL, power loss and a clean stop.
"""

from __future__ import annotations

import contextlib
import pathlib
import random
from dataclasses import dataclass
from typing import Any, Protocol

from daemon.config import SiteConfig
from daemon.data_directory import Identity, Keys
from daemon.parts import GroupParts, HostDoor, SiteParts
from daemon.peers import Peer, PeerBook, PeerOptions
from daemon.site import Site
from engine.group.compartment import Compartment
from engine.group.group import Group
from engine.group.settings import GroupSettings
from engine.group.site_state import SITE_TABLES, Role
from engine.index.versions import TABLES
from protocol.errors import FarshoreError, RemoteProtocolError
from protocol.limits import HEARTBEAT_TIMEOUT_S
from protocol.messages import SUPERSEDED, Hello, Refused, decode_message
from site_primary.nbd.server import ExportOpener
from tests.sim.mortal import Fuse, MortalDisk, MortalStoreFile
from tests.sim.sim_disk import SYNC_DELAY_S, DiskImage
from tests.sim.sim_indexer import SimIndexer
from tests.sim.sim_loop import SimLoop
from tests.sim.sim_network import SimNetwork, SimTransport
from tests.sim.sim_parts import NoSockets, Overheard, Reported, SwitchedOff
from tests.sim.sim_store import SimStore, Tables
from tests.sim.world import SimClock, SimWorld

GROUP = "g"
GROUP_ID = "00000000000000a1"


class Watcher(Protocol):
    """Who watches a site."""

    def opened(self, site: SimSite, group: Group) -> None:
        """A group is open; nobody has asked for it yet."""

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
    """What an operator may change between two runs; `options` are how this site sends to its peer."""

    settings: GroupSettings
    indexer_delay_s: tuple[float, float]
    options: PeerOptions
    sync_delay_s: tuple[float, float] = SYNC_DELAY_S


@dataclass(frozen=True, slots=True)
class SiteCopy:
    """All that survives of a site, at a moment at which it did not run. `unsure`: the end of its journal may
    be gone, as after a power loss."""

    disk: DiskImage
    group_disk: DiskImage
    state: Tables
    index: Tables
    unsure: bool


class SimSite:
    """A machine. `process` is None while nothing runs on it; `disk` is the group's directory, which faults
    are about, and `site_disk` the rest of the data directory."""

    def __init__(
        self,
        world: SimWorld,
        network: SimNetwork,
        name: str,
        peer: str,
        knobs: SiteKnobs,
        watcher: Watcher,
    ) -> None:
        self.world = world
        self.network = network
        self.name = name
        self.peer = peer
        self.knobs = knobs
        self.watcher = watcher
        self.fuse = Fuse(name, world)
        self.site_disk = MortalDisk(world, self.fuse)
        self.disk = MortalDisk(world, self.fuse)
        self.disk.sync_delay_s = knobs.sync_delay_s
        self.state_file = MortalStoreFile(self.fuse)
        self.index_file = MortalStoreFile(self.fuse)
        self.wall_offset_s = 0.0
        self.process: SimProcess | None = None
        self.starting = False
        self.down_since_power = False
        self.syncs_failed_before = 0
        peers = PeerBook(self.site_disk)
        peers.add(peer_of_name(peer))
        peers.set_options(peer, knobs.options)

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
        """Start the process. It has opened what it can on return, and serves once it has asked its peer; it
        may have ended at once, as the disk failed."""
        self.starting = True
        try:
            self.process = process = SimProcess(self)
        except OSError as error:
            self._not_started(error)
        else:
            process.sim_loop.begin(self._start(process))

    async def _start(self, process: SimProcess) -> None:
        """As `daemon.service.run_site`."""
        try:
            await process.start()
        except (FarshoreError, OSError) as error:
            await process.stop()
            self._not_started(error)
        else:
            self.starting = False

    def _not_started(self, error: Exception) -> None:
        self.world.note(self.name, "start failed", str(error))
        self.end(power=False)

    def stop(self) -> None:
        """Stop the process cleanly."""
        process = self.process
        if process is not None:
            process.stopping = True
            process.sim_loop.begin(self._stop(process))

    async def _stop(self, process: SimProcess) -> None:
        await process.stop()
        self.end(power=False)

    def opened(self, group: Group) -> None:
        """The process has opened the group."""
        self.watcher.opened(self, group)
        self.down_since_power, self.syncs_failed_before = False, self.disk.failed_syncs

    def end(self, *, power: bool) -> None:
        """The process ends here and now, with the machine or alone."""
        self.fuse.put_out()
        process, self.process, self.starting = self.process, None, False
        if process is not None:
            process.die()
        for disk in (self.site_disk, self.disk):
            if power:
                disk.crash()
            else:
                disk.kill()
        self.down_since_power = self.down_since_power or power
        self.state_file.crash()
        self.index_file.crash()
        self.world.note(self.name, "ended", power)
        self.watcher.gone(self)

    def copy(self) -> SiteCopy:
        """A copy of the data directory of a site that does not run."""
        return SiteCopy(
            self.site_disk.image(),
            self.disk.image(),
            self.state_file.tables,
            self.index_file.tables,
            self.down_since_power or self.sync_failed,
        )

    def put_back(self, copy: SiteCopy) -> None:
        """An operator puts an old copy of the data directory in place; nothing runs."""
        self.site_disk.put_back(copy.disk)
        self.disk.put_back(copy.group_disk)
        self.state_file.put_back(copy.state)
        self.index_file.put_back(copy.index)
        self.down_since_power = copy.unsure
        self.syncs_failed_before = self.disk.failed_syncs

    def jump(self, seconds: float) -> None:
        """Set the wall clock."""
        self.wall_offset_s += seconds
        if self.process is not None:
            self.process.sim_clock.jump(seconds)

    def mend(self) -> None:
        """No more faults."""
        self.fuse.put_out()
        self.disk.mend()
        self.state_file.mend()
        self.index_file.mend()


def peer_of_name(site: str) -> Peer:
    """A site as its peer knows it. Its name is its id as well."""
    return Peer(name=site, site_id=site, endpoint=f"tcp://{site}:7480", public_key=site * 40)


class SimProcess(Site):
    """One run of a site."""

    def __init__(self, machine: SimSite) -> None:
        self.machine = machine
        self.stopping = False
        self.learned = 0  # the newest authority that this process was to yield to while it was the primary
        self._role: tuple[int, Role] | None = None
        self._followed_at: float | None = None  # when the peer last answered as one that follows
        self._indexer: SimIndexer | None = None
        self.sim_clock = clock = SimClock(machine.world)
        clock.jump(machine.wall_offset_s)
        self.sim_loop = SimLoop(clock)
        here = peer_of_name(machine.name)
        self._wire = SimTransport(machine.network, here.name, here.endpoint, here.public_key)
        events = Reported(machine, clock)
        directory = pathlib.Path("/simulated", machine.name)
        parts = SiteParts(
            loop=self.sim_loop.asyncio,
            clock=clock,
            rng=random.Random(machine.world.random.getrandbits(64)),
            events=events,
            disk=machine.site_disk,
            store=SimStore(machine.state_file, SITE_TABLES),
            transport=Overheard(self, self._wire),
            witness=SwitchedOff(machine, directory, clock, events),
            host_door=self._door_of,
            open_group=self._parts_of,
            descriptors_left=lambda: True,
        )
        super().__init__(
            directory=directory,
            config=SiteConfig(name=here.name, replication=here.endpoint),
            identity=Identity(site_id=here.site_id, machine="", inode=0),
            keys=Keys(public=here.public_key, secret=""),
            parts=parts,
        )

    def _door_of(self, exports: ExportOpener) -> HostDoor:
        return NoSockets()

    def _parts_of(self, name: str, compartment: Compartment) -> GroupParts:
        machine = self.machine
        self._indexer = SimIndexer(machine, self.sim_clock)
        return GroupParts(
            disk=machine.disk,
            store=SimStore(machine.index_file, TABLES, readonly=True),
            indexer=self._indexer,
            settings=machine.knobs.settings,
        )

    def notify(self) -> None:
        """See `Site.notify`."""
        super().notify()
        self.machine.watcher.changed(self.machine)

    def die(self) -> None:
        """The process is no more; its indexer may commit what it was about to before it follows."""
        if self._indexer is not None:
            self._indexer.orphan()
        self.sim_clock.stop()
        self.sim_loop.close()
        self._wire.crash()

    # -- what the laws ask

    @property
    def role(self) -> Role:
        """What the site's state says, durably. Asked after every message: read again after a commit."""
        commits = self.machine.state_file.commits
        if self._role is None or self._role[0] != commits:
            self._role = (commits, self.state.group(GROUP).role)
        return self._role[1]

    @property
    def generation(self) -> int:
        """That of the group's head; 0 without one."""
        group = self.groups[GROUP]
        return group.timelines.get(group.head.timeline).generation if group.head else 0

    def asked(self, header: bytes) -> None:
        """A message for the peer door; what it says of authority is learned before it is acted on."""
        with contextlib.suppress(RemoteProtocolError):
            message = decode_message(header)
            if isinstance(message, Hello) and GROUP in self.groups and self._yields():
                self.learned = max(self.learned, message.generation)

    def told(self, header: bytes) -> None:
        """An answer of the peer's; that it writes by a newer authority may count as heard."""
        with contextlib.suppress(RemoteProtocolError):
            message = decode_message(header)
            shipper = self.shippers.get(GROUP)
            if shipper is None or shipper.session.id != message.session:
                return
            if not isinstance(message, Refused):
                self._followed_at = self.sim_clock.monotonic()
            elif message.code == SUPERSEDED and self._yields():
                self.learned = max(self.learned, self.generation + 1)

    def _yields(self) -> bool:
        """Whether a primary here gives way to a newer authority: not to a peer that has just followed."""
        group = self.groups[GROUP]
        if self.role is not Role.PRIMARY:
            return False
        if self._followed_at is None or group.handed_to not in ("", group.site):
            return True
        return self.sim_clock.monotonic() - self._followed_at > HEARTBEAT_TIMEOUT_S
