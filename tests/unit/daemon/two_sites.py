"""Two whole sites over simulated ports, moved by hand: no seed, no chance but the network's delays.

All that decides is production's: `SitePairs`, shippers, receivers, exports and groups. A test asks for the
faults that it wants at the moment at which it wants them.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from daemon.peers import PeerOptions
from engine.group.group import Group
from engine.group.settings import GroupSettings
from engine.group.site_state import Role
from engine.peering.pair_states import Mode, PairState
from engine.peering.role_exports import open_volumes
from protocol.errors import FarshoreError
from protocol.events import WRITE, VolumeCreated
from protocol.limits import BLOCK_BYTES
from protocol.positions import POSITION_MAX, Cut
from site_primary.shipping.shipper import Shipper
from tests.sim.sim_network import SimNetwork
from tests.sim.sim_site import GROUP, GROUP_ID, SimProcess, SimSite, SiteKnobs
from tests.sim.world import SimWorld

SETTINGS = GroupSettings(journal_limit_bytes=POSITION_MAX, reserve_bytes=0)


class Guest:
    """A host's connection to the live volume, as the export sees it."""

    def __init__(self, client: str = "guest") -> None:
        self.client = client
        self.connected = True

    def shut(self) -> None:
        """It is sent away."""
        self.connected = False

    def resume(self) -> None:
        """It may read on."""

    def resized(self, size_bytes: int) -> None:
        """The volume has another size."""


class TwoSites:
    """`a` writes `g/v`, paired with `b`. Events of both are kept with the site's name in front."""

    def __init__(self, mode: Mode = Mode.ASYNC) -> None:
        self.world = SimWorld(1)
        self.network = SimNetwork(self.world)
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self.heard = {"a": 0, "b": 0}  # messages that each has done with
        knobs = SiteKnobs(SETTINGS, (0.001, 0.002), PeerOptions())
        self.a = SimSite(self.world, self.network, "a", "b", knobs, self)
        self.b = SimSite(self.world, self.network, "b", "a", knobs, self)
        for site in (self.a, self.b):
            site.start()
        process = self.process(self.a)
        group = process.create_group(GROUP, GROUP_ID, Role.PRIMARY)
        group.begin_writing()
        group.append_records([VolumeCreated(name="v", size_bytes=64 * BLOCK_BYTES)])
        process.pairs.create(group, "b", mode)
        self.until_paired(self.a)

    # `Watcher`

    def opened(self, site: SimSite, group: Group) -> None:
        """See `Watcher.opened`."""

    def emitted(self, site: SimSite, event: str, fields: dict[str, Any]) -> None:
        """See `Watcher.emitted`."""
        self.events.append((site.name, event, fields))

    def changed(self, site: SimSite) -> None:
        """See `Watcher.changed`."""

    def settled(self, site: SimSite) -> None:
        """See `Watcher.settled`."""
        self.heard[site.name] += 1

    def gone(self, site: SimSite) -> None:
        """See `Watcher.gone`."""

    # What tests ask

    def process(self, site: SimSite) -> SimProcess:
        """The one that runs there."""
        assert site.process is not None
        return site.process

    def group(self, site: SimSite) -> Group:
        """The group, open there."""
        assert site.group is not None
        return site.group

    def shipper(self, site: SimSite) -> Shipper:
        """That ships from there."""
        return self.process(site).shippers[GROUP]

    def role(self, site: SimSite) -> Role:
        """What the site's state says."""
        return self.process(site).role

    def said(self, event: str) -> list[str]:
        """The sites that reported it."""
        return [site for site, kind, _ in self.events if kind == event]

    def commit_fails_next(self, site: SimSite) -> None:
        """The next commit of the site's state fails."""
        site.state_file.fail_next_commit(errno.EIO)

    # What tests do

    def write(self, site: SimSite, block: int = 0) -> Cut:
        """One block, as a host's batch does."""
        group = self.group(site)
        volume = group.volume("v").id
        group.append([(WRITE, volume, block, 1)], [b"x" * BLOCK_BYTES], BLOCK_BYTES)
        return group.end

    def attach(self, site: SimSite, volume: str = "v") -> Guest:
        """A host connects to the live volume; FarshoreError if it is refused."""
        exports = self.process(site).exports
        export = exports.open(exports.find(f"{GROUP}/{volume}"))
        guest = Guest()
        export.connections[guest] = None
        return guest

    def leave(self, site: SimSite, guest: Guest, volume: str = "v") -> None:
        """The host closes its connection."""
        export = self.process(site).exports.live[GROUP, self.group(site).volume(volume).id]
        del export.connections[guest]
        guest.connected = False

    def refused(self, site: SimSite, volume: str = "v") -> bool:
        """Whether a host that comes now is refused."""
        with suppress(FarshoreError):
            self.attach(site, volume)
            return False
        return True

    def online(self, site: SimSite, volume: str = "v") -> None:
        """An operator opens the volume."""
        group = self.group(site)
        open_volumes(self.process(site).state, group, [group.volume(volume).id])

    def part(self) -> None:
        """Nothing gets through."""
        self.network.part("a", "b")

    def heal(self) -> None:
        """All does again."""
        self.network.heal("a", "b")

    def restart(self, site: SimSite, *, power: bool = False) -> None:
        """Kill the process, or the machine, and start it."""
        site.end(power=power)
        site.start()

    def until(self, condition: Callable[[], bool], limit_s: float = 30.0) -> None:
        """Let time pass."""
        assert self.world.run_until(condition, limit_s), self.events[-5:]

    def until_paired(self, site: SimSite) -> None:
        """In sync, everything durable at both."""

        def paired() -> bool:
            shipper, group = self.shipper(site), self.group(site)
            same = shipper.marks.remote_durable == group.writer.written == group.writer.durable
            return shipper.state is PairState.PAIRED and same

        group = self.group(site)
        group.when_durable(lambda _: None)
        self.until(paired)

    def diverge(self) -> None:
        """Both write, unknown to each other: `b` was opened to hosts while the pair was split."""
        self.process(self.a).pairs.split(GROUP)
        self.until(lambda: self.process(self.b).receivers[GROUP].state is PairState.SPLIT)
        self.process(self.b).pairs.detach(self.group(self.b))
        self.write(self.a, 1)
        self.write(self.b, 2)
