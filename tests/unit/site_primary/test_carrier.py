"""Payloads on their way out: what the pace holds back, and what zstd makes of them."""

from __future__ import annotations

import random

from engine.peering.pair_states import PairState
from engine.ports.disk import Buffer
from protocol.compress import Compression, decompress
from protocol.limits import FRAME_BYTES_MAX
from protocol.messages import FrameMessage, Reset, decode_message
from site_primary.carrier import Carrier, PeerTraffic
from site_primary.pace import Pace
from site_primary.turns import Turns
from tests.sim.world import NS, SimClock, SimWorld
from tests.unit.site_primary.shipping_pair import ShippingPair

SOFT = b"soft" * 1024
HARD = random.Random(7).randbytes(4096)


class Way:
    """A carrier, and what it sends."""

    def __init__(self, rate_bytes_s: int = 0, compression: Compression = Compression.NONE) -> None:
        self.world = SimWorld(1)
        self.clock = SimClock(self.world)
        self.turns = Turns(self.clock, Pace(rate_bytes_s))
        traffic = PeerTraffic(self.turns, compression)
        self.sent: list[tuple[Compression, bytes]] = []
        self.turns_taken = 0
        self.carrier = Carrier(self.clock, traffic, self._send, self._on_turn)
        self.carrier.open(5)

    def _send(self, header: bytes, payload: Buffer) -> None:
        message = decode_message(header)
        assert isinstance(message, FrameMessage)
        assert message.session == 5
        self.sent.append((message.compression, bytes(payload)))

    def _on_turn(self) -> None:
        self.turns_taken += 1
        assert self.carrier.ready()


def test_only_what_gains_is_compressed() -> None:
    way = Way(compression=Compression.ZSTD)
    way.carrier.send_frames(SOFT)
    way.carrier.send_frames(HARD)
    (how, soft), hard = way.sent
    assert how is Compression.ZSTD
    assert decompress(soft) == SOFT
    assert hard == (Compression.NONE, HARD)
    assert way.carrier.wire_bytes == len(soft) + len(HARD)


def test_a_message_of_another_kind_says_how_its_payload_travels() -> None:
    asked: list[Compression] = []

    def header(compression: Compression) -> bytes:
        asked.append(compression)
        return Reset(session=5, reason="").encode()

    sent: list[bytes] = []
    clock = SimClock(SimWorld(1))
    traffic = PeerTraffic(Turns(clock), Compression.ZSTD)
    carrier = Carrier(clock, traffic, lambda _, payload: sent.append(bytes(payload)), sent.clear)
    carrier.send(header, SOFT)
    carrier.send(header, HARD)
    assert asked == [Compression.ZSTD, Compression.NONE]
    assert [decompress(sent[0]), sent[1]] == [SOFT, HARD]


def test_without_a_pace_it_is_always_ready() -> None:
    way = Way()
    for _ in range(100):
        way.carrier.send_frames(bytes(FRAME_BYTES_MAX))
        assert way.carrier.ready()


def test_the_pace_holds_back_and_says_when_to_go_on() -> None:
    way = Way(1 << 20)
    assert way.carrier.ready()
    way.carrier.send_frames(bytes(3 << 20))
    assert not way.carrier.ready()
    assert not way.carrier.ready()
    way.world.run_for(2.4)
    assert way.turns_taken == 0
    way.world.run_for(0.2)
    assert way.turns_taken == 1
    assert way.carrier.ready()


def test_another_pace_is_heeded_at_once() -> None:
    way = Way(64 << 10)
    way.carrier.send_frames(bytes(4 << 20))
    assert not way.carrier.ready()
    way.turns.set_rate(0)
    way.world.run_for(0.0)
    assert way.turns_taken == 1
    assert way.carrier.ready()


def test_nobody_is_told_after_the_session() -> None:
    way = Way(64 << 10)
    way.carrier.send_frames(bytes(1 << 20))
    assert not way.carrier.ready()
    way.carrier.close()
    way.world.run_for(100.0)
    assert way.turns_taken == 0


def test_a_pair_under_a_pace_converges_at_that_pace(shipping: ShippingPair) -> None:
    rate = 200_000
    shipping.write(300)
    size = shipping.one.end.position
    began_ns = shipping.world.now_ns
    shipping.start_one(PeerTraffic(Turns(shipping.one.clock, Pace(rate))))
    shipping.until_paired()
    took_s = (shipping.world.now_ns - began_ns) / NS
    assert size / rate - 2.0 < took_s < size / rate + 3.0
    shipping.assert_same()
    states = [fields["state"] for kind, fields in shipping.one.events if kind == "pair.state"]
    assert states == ["copying", "paired"], "slow is not lost"


def test_a_pair_that_compresses_is_the_same_in_the_end(shipping: ShippingPair) -> None:
    traffic = PeerTraffic(Turns(shipping.one.clock), Compression.ZSTD)
    shipping.write(50)
    shipping.start_one(traffic)
    shipping.until_paired()
    traffic.compression = Compression.NONE
    shipping.write(10)
    traffic.compression = Compression.ZSTD
    shipping.write(10)
    shipping.until_paired()
    shipping.assert_same()
    assert shipping.shipper.carrier.wire_bytes < shipping.shipper.sent_bytes // 2
    assert shipping.shipper.state is PairState.PAIRED
