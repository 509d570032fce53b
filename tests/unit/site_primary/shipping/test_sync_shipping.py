"""The synchronous modes from a write to its answer, over two groups, a shipper and a network that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.peering.pair_states import Mode, PairState
from protocol.limits import HEARTBEAT_TIMEOUT_S, SYNC_TIMEOUT_S
from site_primary.sync_gate import GatePhase
from tests.unit.site_primary.shipping.shipping_pair import ShippingPair


@dataclass
class Host:
    """Writes one block at a time, each as soon as the last one was answered, and looks at what the peer has
    whenever it is told that all is well."""

    pair: ShippingPair
    well: list[int] = field(default_factory=list)
    refused: int = 0
    missing: int = 0  # answered well although the peer did not have it
    stopped: bool = False

    def start(self) -> None:
        """Write until stopped."""
        self.pair.one.clock.call_soon(self._write)

    def _write(self) -> None:
        if self.stopped:
            return
        refusal = self.pair.gate.admit()
        if refusal is not None:
            self._answered(self.pair.one.end.position, refusal)
            return
        self.pair.write()
        position = self.pair.one.end.position
        self.pair.gate.wait(position, lambda error: self._answered(position, error))

    def _answered(self, position: int, error: OSError | None) -> None:
        if error is None:
            self.well.append(position)
            self.missing += self.pair.other.end.position < position
        else:
            self.refused += 1
        self.pair.one.clock.call_later(0.01, self._write)


MakePair = Callable[[Mode], ShippingPair]


@pytest.fixture
def make_pair(directory: Path) -> Iterator[MakePair]:
    made: list[ShippingPair] = []

    def make(mode: Mode) -> ShippingPair:
        pair = ShippingPair(directory)
        made.append(pair)
        pair.mode, pair.fallen_back = mode, True
        pair.start_one()
        pair.until_paired()
        pair.until(lambda: pair.gate.phase is GatePhase.IN_FORCE)
        return pair

    yield make
    for pair in made:
        pair.close()


@pytest.mark.parametrize("mode", [Mode.SYNC, Mode.SYNC_STRICT])
def test_what_is_answered_is_at_the_peer(make_pair: MakePair, mode: Mode) -> None:
    pair = make_pair(mode)
    host = Host(pair)
    host.start()
    pair.until(lambda: len(host.well) == 50)
    assert host.missing == host.refused == 0
    assert not pair.fallen_back


def test_a_flush_does_not_wait_for_the_peers_own_interval(make_pair: MakePair) -> None:
    pair = make_pair(Mode.SYNC)
    pair.write(5)
    position = pair.one.end.position
    began_s = pair.one.clock.monotonic()
    durable: list[int] = []
    pair.gate.wait_durable(position, lambda _: durable.append(pair.other.group.writer.durable))
    pair.until(lambda: bool(durable))
    assert durable[0] >= position
    assert pair.one.clock.monotonic() - began_s < 0.1


@pytest.mark.parametrize("fault", ["part", "blackhole", "kill"])
def test_sync_goes_on_without_a_lost_peer_and_comes_back(make_pair: MakePair, fault: str) -> None:
    pair = make_pair(Mode.SYNC)
    host = Host(pair)
    host.start()
    pair.until(lambda: len(host.well) == 5)
    lose(pair, fault)
    pair.until(lambda: pair.gate.fallen_back, 2 * SYNC_TIMEOUT_S)
    assert host.missing <= 1, "only the write that waited for the fallback"
    assert pair.fallen_back
    host.missing = 0
    before = len(host.well)
    pair.until(lambda: len(host.well) == before + 20)
    assert host.missing == 20
    assert host.refused == 0
    come_back(pair, fault)
    pair.until(lambda: not pair.gate.fallen_back)
    assert not pair.fallen_back
    host.missing = 0
    before = len(host.well)
    pair.until(lambda: len(host.well) == before + 20)
    assert host.missing == 0
    kinds = [kind for kind, _ in pair.one.events if kind in ("pair.fallback", "pair.sync_again")]
    assert kinds == ["pair.sync_again", "pair.fallback", "pair.sync_again"]
    host.stopped = True
    pair.until_paired()
    pair.assert_same()


@pytest.mark.parametrize("fault", ["part", "blackhole", "kill"])
def test_strict_refuses_and_never_answers_what_the_peer_lacks(make_pair: MakePair, fault: str) -> None:
    pair = make_pair(Mode.SYNC_STRICT)
    host = Host(pair)
    host.start()
    for _ in range(3):
        before = len(host.well)
        pair.until(lambda: len(host.well) == before + 10)  # noqa: B023
        lose(pair, fault)
        before = host.refused
        pair.until(lambda: host.refused > before)  # noqa: B023
        pair.world.run_for(2 * HEARTBEAT_TIMEOUT_S)
        end = pair.one.end
        pair.world.run_for(1)
        assert pair.one.end == end, "a refused write went into the journal"
        come_back(pair, fault)
    before = len(host.well)
    pair.until(lambda: len(host.well) == before + 10)
    assert host.missing == 0
    assert not pair.fallen_back
    host.stopped = True
    pair.until_paired()
    pair.assert_same()


def test_a_killed_strict_primary_leaves_every_answered_write_at_the_peer(make_pair: MakePair) -> None:
    pair = make_pair(Mode.SYNC_STRICT)
    host = Host(pair)
    host.start()
    pair.until(lambda: len(host.well) == 20)
    pair.stop_one()
    assert pair.other.end.position >= host.well[-1]
    pair.one.open()
    pair.start_one()
    assert pair.gate.phase is GatePhase.IN_FORCE, "the mode holds before the peer is back"
    again = Host(pair)
    again.start()
    pair.until(lambda: len(again.well) == 5)
    assert again.missing == again.refused == 0


def test_a_fallback_outlives_a_kill(make_pair: MakePair) -> None:
    pair = make_pair(Mode.SYNC)
    pair.stop_other()
    host = Host(pair)
    host.start()
    pair.until(lambda: len(host.well) == 5, 3 * SYNC_TIMEOUT_S)
    pair.stop_one()
    assert pair.fallen_back
    pair.one.open()
    pair.start_one()
    again = Host(pair)
    again.start()
    pair.world.run_for(0.1)
    assert again.well, "nobody waits for a peer that was given up already"


def test_a_split_lets_hosts_go_on_and_a_resync_brings_the_mode_back(make_pair: MakePair) -> None:
    pair = make_pair(Mode.SYNC_STRICT)
    host = Host(pair)
    host.start()
    pair.until(lambda: len(host.well) == 5)
    pair.shipper.split()
    assert pair.fallen_back
    pair.world.run_for(10)
    assert host.refused == 0
    pair.shipper.start()
    pair.until(lambda: pair.shipper.state is PairState.PAIRED and not pair.fallen_back)
    host.missing = 0
    pair.world.run_for(10)
    assert host.missing == host.refused == 0


def lose(pair: ShippingPair, fault: str) -> None:
    """The peer is away."""
    if fault == "part":
        pair.network.part("lon", "par")
    elif fault == "blackhole":
        pair.network.blackhole("par", "lon")
    else:
        pair.stop_other()


def come_back(pair: ShippingPair, fault: str) -> None:
    """It is back."""
    if fault == "kill":
        pair.other.open()
        pair.start_other()
    else:
        pair.network.heal("lon", "par")
