"""Groups that share a peer's rate, with real journals: frames in order, whole messages, none starved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.history.watermarks import PeerMarks
from engine.ports.disk import Buffer
from protocol.frames import Frame, frames_in
from protocol.limits import BLOCK_BYTES, SHIP_MESSAGE_BYTES
from protocol.positions import Cut
from site_primary.shipping.journal_lease import JournalLease
from site_primary.shipping.rate_limit import SendQueue, TokenBucket
from site_primary.shipping.send_window import SendWindow
from site_primary.shipping.session import PeerTraffic
from tests.sim.world import SimClock, SimWorld
from tests.unit.engine.group_rig import GroupRig
from tests.unit.site_primary.shipping.lines import session_over

RATE = 1 << 20


class Ship:
    """One group's way to the peer, who answers everything at once."""

    def __init__(self, rig: GroupRig, traffic: PeerTraffic) -> None:
        self.rig = rig
        self.volume = rig.create("root", 1024)
        self.begun = rig.end
        self.messages: list[bytes] = []
        self.marks = PeerMarks()
        session = session_over(self._send, rig.clock, traffic)
        session.dial()
        lease = JournalLease(rig.group, "par", lambda: self.marks.remote_written, lambda *_: None)
        self.window = SendWindow(rig.group, session, lease, pytest.fail)
        self.window.start(self.begun, self.marks)

    def _send(self, _: bytes, payload: Buffer | None) -> None:
        self.messages.append(bytes(payload or b""))
        shipped = self.marks.shipped
        self.rig.world.schedule(0.001, lambda: self._answer(shipped))

    def _answer(self, position: int) -> None:
        self.window.acknowledged(position)
        self.window.pump()

    def write(self, frames: int, blocks: int = 1) -> None:
        for _ in range(frames):
            self.rig.write(self.volume, 0, *(self.rig.world.random.randbytes(1) for _ in range(blocks)))

    @property
    def frames(self) -> list[Frame]:
        return [frame for payload in self.messages for frame in frames_in(payload)]

    def assert_in_order(self) -> None:
        at = self.begun.position
        for frame in self.frames:
            assert frame.prefix.position == at
            at = frame.prefix.end


class Fleet:
    def __init__(self, directory: Path) -> None:
        self.world = SimWorld(1)
        self.clock = SimClock(self.world)
        self.queue = SendQueue(self.clock, TokenBucket(RATE))
        self.traffic = PeerTraffic(self.queue)
        self.rigs: list[GroupRig] = []
        self._directory = directory

    def ship(self) -> Ship:
        rig = GroupRig(self._directory / f"g{len(self.rigs)}", world=self.world, seed=len(self.rigs))
        rig.open()
        self.rigs.append(rig)
        return Ship(rig, self.traffic)

    def close(self) -> None:
        for rig in self.rigs:
            rig.drop()


@pytest.fixture
def fleet(directory: Path) -> Iterator[Fleet]:
    made = Fleet(directory)
    yield made
    made.close()


def test_groups_of_large_and_small_frames_each_have_their_turn(fleet: Fleet) -> None:
    large, small = [fleet.ship() for _ in range(2)], [fleet.ship() for _ in range(2)]
    for ship in large:
        ship.write(12, 256)
    for ship in small:
        ship.write(600)
    fleet.world.run_for(9.0)
    for ship in large + small:
        assert len(ship.messages) >= 2
        ship.assert_in_order()
    sent = sum(len(payload) for ship in large + small for payload in ship.messages)
    assert sent <= RATE * 10 + (2 << 20)
    # Backlogs go in whole messages, which is what makes a turn worth as much to them as to the others.
    assert all(len(payload) >= SHIP_MESSAGE_BYTES for ship in small for payload in ship.messages[2:])


def test_what_is_written_while_a_message_waits_goes_with_it(fleet: Fleet) -> None:
    busy, calm = fleet.ship(), fleet.ship()
    busy.write(8, 256)
    calm.write(1)
    assert calm.messages == []
    for _ in range(5):
        calm.write(1)
    fleet.world.run_until(lambda: bool(calm.messages), 30.0)
    assert len(list(frames_in(calm.messages[0]))) == 6


def test_a_frame_that_does_not_fit_comes_after_what_waits(fleet: Fleet) -> None:
    busy, ship = fleet.ship(), fleet.ship()
    busy.write(8, 256)
    ship.write(100)
    ship.write(1, 1000)
    ship.write(3)
    end = ship.rig.end
    fleet.world.run_for(40.0)
    ship.assert_in_order()
    assert Cut(end.timeline, ship.frames[-1].prefix.end) == end


def test_a_rate_that_is_lifted_lets_everything_go(fleet: Fleet) -> None:
    ships = [fleet.ship() for _ in range(3)]
    for ship in ships:
        ship.write(10, 256)
    fleet.queue.set_rate(0)
    fleet.world.run_for(0.5)
    for ship in ships:
        ship.assert_in_order()
        assert len(ship.frames) == 10


def test_a_group_whose_session_ends_leaves_its_place(fleet: Fleet) -> None:
    gone, there = fleet.ship(), fleet.ship()
    gone.write(10, 256)
    there.write(10, 256)
    before = len(gone.messages)
    gone.window.stop()
    fleet.world.run_for(12.0)
    assert len(gone.messages) == before
    assert len(there.frames) == 10


def test_small_frames_alone_keep_up_with_the_rate(fleet: Fleet) -> None:
    ship = fleet.ship()
    ship.write(1000)
    fleet.world.run_for(4.5)
    sent = sum(len(payload) for payload in ship.messages)
    assert sent >= min(RATE * 4, 1000 * BLOCK_BYTES)
    ship.assert_in_order()
