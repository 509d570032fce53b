"""Two real groups, one shipping to the other over the simulator's network, in the simulator's time."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from engine.peering.link_pool import LinkPool
from engine.peering.pair_states import Mode, PairState
from engine.ports.disk import Buffer
from engine.ports.transport import Caller
from protocol.limits import SYNC_TIMEOUT_S
from protocol.messages import Message, decode_message
from protocol.positions import Cut
from site_primary.shipping.rate_limit import SendQueue
from site_primary.shipping.session import PeerTraffic, Session
from site_primary.shipping.shipper import Shipper
from site_primary.sync_gate import SyncGate
from site_secondary.receiver import Receiver
from tests.sim.sim_network import SimNetwork, SimTransport
from tests.sim.world import SimWorld
from tests.unit.engine.group_rig import GROUP_ID, GroupRig
from tests.unit.site_primary.shipping.lines import ADDRESS


class ShippingPair:
    """`one` writes and ships, `other` follows. Every message that `other` gets is kept in `heard`."""

    def __init__(self, directory: Path, seed: int = 1) -> None:
        self.directory = directory
        self.world = SimWorld(seed)
        self.network = SimNetwork(self.world)
        self.one = GroupRig(directory / "one", world=self.world, seed=seed)
        self.other = GroupRig(directory / "other", site="par", world=self.world, seed=seed + 1)
        self.one.open()
        self.other.open()
        self.heard: list[tuple[Caller, Message, Buffer | None]] = []
        self.changes = 0
        self.mode = Mode.ASYNC  # this and the next as in the pair's durable row
        self.fallen_back = False
        self.start_other()
        self.volume = self.one.create("root", 64)

    # Processes.

    def start_one(self, traffic: PeerTraffic | None = None) -> None:
        """Ship from `one`, which must be open."""
        self.gate = SyncGate(self.one.group, SYNC_TIMEOUT_S)
        self.transport_one = SimTransport(self.network, "lon", "tcp://lon:1", "L")
        rng = random.Random(self.world.seed)
        session = Session(
            links=LinkPool(self.transport_one),
            address=ADDRESS,
            clock=self.one.clock,
            rng=rng,
            traffic=traffic or PeerTraffic(SendQueue(self.one.clock)),
        )
        self.shipper = Shipper(
            group=self.one.group,
            group_id=GROUP_ID,
            session=session,
            rng=rng,
            gate=self.gate,
            on_change=self._changed,
        )
        self.gate.start(
            self.mode,
            fallen_back=self.fallen_back,
            persist=self._persist,
            ask_durable=self.shipper.window.ask_durable,
        )
        self.shipper.start()

    def start_other(self) -> None:
        """Receive at `other`, which must be open."""
        self.transport_other = SimTransport(self.network, "par", "tcp://par:1", "P")
        self.transport_other.allow({"lon": "L"})
        self.receiver = Receiver(self.other.group, "lon")
        self.transport_other.listen(self._on_message)

    def stop_one(self) -> None:
        """kill -9."""
        self.transport_one.crash()
        self.one.drop()

    def stop_other(self) -> None:
        """kill -9."""
        self.transport_other.crash()
        self.other.drop()

    def restart_one(self) -> None:
        self.stop_one()
        self.one.open()
        self.start_one()

    def restart_other(self) -> None:
        self.stop_other()
        self.other.open()
        self.start_other()

    def close(self) -> None:
        for rig in (self.one, self.other):
            rig.drop()

    def _persist(self, mode: Mode, fallen_back: bool) -> None:
        self.mode, self.fallen_back = mode, fallen_back

    def _changed(self) -> None:
        self.changes += 1

    def _on_message(self, caller: Caller, header: bytes, payload: Buffer | None) -> None:
        message = decode_message(header)
        self.heard.append((caller, message, payload))
        self.receiver.on_message(caller, message, payload)

    # What tests do.

    def write(self, frames: int = 1) -> None:
        for _ in range(frames):
            self.one.write(self.volume, self.world.random.randrange(60), self.world.random.randbytes(9))

    def until(self, condition: Callable[[], bool], limit_s: float = 60.0) -> None:
        assert self.world.run_until(condition, limit_s), (self.shipper.state, self.shipper.reason)

    def until_paired(self) -> None:
        """In sync, with everything durable at both."""
        self.until(lambda: self.shipper.state is PairState.PAIRED and self.in_sync())

    def in_sync(self) -> bool:
        end = self.one.end
        marks = self.shipper.marks
        return self.other.end == end and marks.remote_durable == marks.remote_written == end.position

    def assert_same(self) -> None:
        assert self.other.end == self.one.end
        assert self.other.group.head.digest == self.one.group.head.digest
        assert self.other.read("root") == self.one.read("root")

    def lose_tail(self, keep: Cut) -> None:
        """`one` comes back without what it wrote past `keep`: a power loss took what was not synced. Not yet
        shipping."""
        self.stop_one()
        timeline = self.one.group.timelines.get(keep.timeline)
        for path in self.one.segment_files():
            start = int(path.stem, 16)
            if path.parent.name != f"{timeline.id:016x}":
                continue
            if start >= keep.position:
                path.unlink()
            else:
                path.write_bytes(path.read_bytes()[: keep.position - start])
        self.one.open()

    def forget_everything(self) -> None:
        """`other` is replaced by an empty one."""
        self.stop_other()
        shutil.rmtree(self.other.directory)
        self.other.open()
        self.start_other()
