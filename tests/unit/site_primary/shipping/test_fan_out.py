"""One group at three sites: shipped to two followers, or by a follower to a third."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.group.site_state import Role
from engine.peering.link_pool import LinkPool
from engine.peering.pair_states import PairState
from engine.ports.disk import Buffer
from engine.ports.transport import Caller, PeerAddress
from protocol.limits import SYNC_TIMEOUT_S
from protocol.messages import decode_message
from site_primary.shipping.rate_limit import SendQueue
from site_primary.shipping.session import PeerTraffic, Session
from site_primary.shipping.shipper import Shipper
from site_primary.sync_gate import SyncGate
from site_secondary.receiver import Receiver
from tests.sim.sim_network import SimNetwork, SimTransport
from tests.sim.world import SimWorld
from tests.unit.engine.group_rig import GROUP_ID, GroupRig

BLOCKS = 64


class Place:
    """A site that follows `source`, if it has one, and ships to any number of others."""

    receiver: Receiver

    def __init__(self, directory: Path, network: SimNetwork, name: str, source: str = "") -> None:
        self.name = name
        self.rig = GroupRig(directory / name, site=name, world=network.world, seed=len(name))
        self.shippers: dict[str, Shipper] = {}
        self.rig.open()
        self.transport = SimTransport(network, name, f"tcp://{name}:1", f"key of {name}")
        if source:
            self.rig.group.state.set_role("g", Role.SECONDARY)
            self.transport.allow({source: f"key of {source}"})
            self.receiver = Receiver(self.rig.group, source)
            self.transport.listen(self._on_message)

    def _on_message(self, caller: Caller, header: bytes, payload: Buffer | None) -> None:
        self.receiver.on_message(caller, decode_message(header), payload)

    def ship_to(self, peer: str) -> Shipper:
        group = self.rig.group
        gate = SyncGate(group, SYNC_TIMEOUT_S)
        address = PeerAddress(name=peer, endpoint=f"tcp://{peer}:1", public_key=f"key of {peer}")
        rng, traffic = random.Random(peer), PeerTraffic(SendQueue(group.clock))
        session = Session(
            links=LinkPool(self.transport), address=address, clock=group.clock, rng=rng, traffic=traffic
        )
        shipper = self.shippers[peer] = Shipper(
            group=group,
            group_id=GROUP_ID,
            session=session,
            rng=rng,
            gate=gate,
            on_change=lambda: None,
        )
        shipper.start()
        return shipper


class Sites:
    """`lon` writes; `par` and `rom` hold copies."""

    def __init__(self, directory: Path, source_of_rom: str) -> None:
        self.world = SimWorld(7)
        self.network = SimNetwork(self.world)
        self.lon = Place(directory, self.network, "lon")
        self.par = Place(directory, self.network, "par", "lon")
        self.rom = Place(directory, self.network, "rom", source_of_rom)
        self.volume = self.lon.rig.create("root", BLOCKS)

    @property
    def shippers(self) -> list[Shipper]:
        return [shipper for place in (self.lon, self.par) for shipper in place.shippers.values()]

    def write(self, frames: int) -> None:
        rng = self.world.random
        for _ in range(frames):
            self.lon.rig.write(self.volume, rng.randrange(BLOCKS), rng.randbytes(9))

    def until(self, condition: Callable[[], bool]) -> None:
        assert self.world.run_until(condition, 60.0), [(s.peer, s.state, s.reason) for s in self.shippers]

    def until_equal(self) -> None:
        """Paired everywhere, with one journal and one content."""
        places = (self.lon, self.par, self.rom)
        self.until(
            lambda: (
                all(shipper.state is PairState.PAIRED for shipper in self.shippers)
                and all(place.rig.end == self.lon.rig.end for place in places)
            )
        )
        assert len({place.rig.group.head.digest for place in places}) == 1
        assert len({place.rig.read("root") for place in places}) == 1

    def close(self) -> None:
        for place in (self.lon, self.par, self.rom):
            place.rig.drop()


@pytest.fixture
def make_sites(directory: Path) -> Iterator[Callable[[str], Sites]]:
    made: list[Sites] = []

    def make(source_of_rom: str) -> Sites:
        made.append(Sites(directory, source_of_rom))
        return made[-1]

    yield make
    for sites in made:
        sites.close()


def test_two_followers_each_at_its_own_pace(make_sites: Callable[[str], Sites]) -> None:
    """A follower that is away holds neither the hosts nor the other one up."""
    sites = make_sites("lon")
    to_par, to_rom = sites.lon.ship_to("par"), sites.lon.ship_to("rom")
    sites.write(30)
    sites.until_equal()
    sites.network.part("lon", "rom")
    sites.write(30)
    sites.until(lambda: to_rom.state is PairState.SUSPENDED)
    assert to_par.state is PairState.PAIRED
    assert (to_par.lag_bytes, to_rom.lag_bytes > 0) == (0, True)
    holders = sites.lon.rig.group.space.slots
    assert {"par", "rom"} <= holders.keys()
    assert sites.lon.rig.group.space.limit() <= to_rom.marks.remote_written
    sites.network.heal("lon", "rom")
    sites.write(5)
    sites.until_equal()


def test_a_follower_ships_on(make_sites: Callable[[str], Sites]) -> None:
    """The third site gets what the second has, whether the writing site can be reached or not; and it is
    told no time up to which it has everything that the second does not know itself."""
    sites = make_sites("par")
    sites.lon.ship_to("par")
    onward = sites.par.ship_to("rom")
    sites.write(30)
    sites.until_equal()
    sites.network.part("par", "rom")
    sites.write(30)
    sites.until(lambda: onward.state is PairState.SUSPENDED)
    sites.network.heal("par", "rom")
    sites.until_equal()
    assert not sites.par.rig.group.head.sealed, "where the head ends is for its writer to say"

    sites.network.part("lon", "par")
    sites.world.run_for(3.0)
    sites.write(30)
    written_ns = sites.lon.rig.group.head.utc_ns
    sites.world.run_for(5.0)
    assert onward.state is PairState.PAIRED
    assert sites.rom.rig.end == sites.par.rig.end != sites.lon.rig.end
    assert sites.rom.receiver.complete_until_ns < written_ns
    sites.network.heal("lon", "par")
    sites.until_equal()
