"""A peer's connection: what the rate holds back, what zstd makes of payloads, and links that are bad."""

from __future__ import annotations

import random

import pytest

from engine.peering.pair_states import PairState
from engine.ports.disk import Buffer
from protocol.compress import Compression, decompress
from protocol.limits import FRAME_BYTES_MAX, HEARTBEAT_TIMEOUT_S, RECONNECT_DELAY_MAX_S
from protocol.messages import FrameMessage, Reset, decode_message
from site_primary.shipping.rate_limit import SendQueue, TokenBucket
from site_primary.shipping.session import PeerTraffic
from tests.sim.world import NS, SimClock, SimWorld
from tests.unit.site_primary.shipping.lines import session_over
from tests.unit.site_primary.shipping.shipping_pair import ShippingPair

SOFT = b"soft" * 1024
HARD = random.Random(7).randbytes(4096)


class Way:
    """A session, what it sends, and one who waits for a turn."""

    def __init__(self, rate_bytes_s: int = 0, compression: Compression = Compression.NONE) -> None:
        self.world = SimWorld(1)
        self.clock = SimClock(self.world)
        self.queue = SendQueue(self.clock, TokenBucket(rate_bytes_s))
        self.sent: list[tuple[bytes, bytes]] = []
        self.turns_taken = 0
        self.session = session_over(self._send, self.clock, PeerTraffic(self.queue, compression))
        self.session.dial()

    def _send(self, header: bytes, payload: Buffer | None) -> None:
        self.sent.append((header, bytes(payload or b"")))

    def ready(self) -> bool:
        return self.session.ready(self)

    def take_turn(self) -> None:
        """See `Sender.take_turn`."""
        self.turns_taken += 1
        assert self.ready()

    def turn_failed(self, defect: Exception) -> None:
        """See `Sender.turn_failed`."""
        raise defect


def test_only_what_gains_is_compressed() -> None:
    way = Way(compression=Compression.ZSTD)
    way.session.send_frames(SOFT)
    way.session.send_frames(HARD)
    (soft_header, soft), (hard_header, hard) = way.sent
    ways = Compression.ZSTD, Compression.NONE
    for header, compression in zip((soft_header, hard_header), ways, strict=True):
        assert decode_message(header) == FrameMessage(session=way.session.id, compression=compression)
    assert (decompress(soft), hard) == (SOFT, HARD)
    assert way.session.wire_bytes == len(soft) + len(HARD)


def test_a_message_of_another_kind_says_how_its_payload_travels() -> None:
    asked: list[Compression] = []

    def header(compression: Compression) -> bytes:
        asked.append(compression)
        return Reset(session=5, reason="").encode()

    way = Way(compression=Compression.ZSTD)
    way.session.send_payload(header, SOFT)
    way.session.send_payload(header, HARD)
    assert asked == [Compression.ZSTD, Compression.NONE]
    assert [decompress(way.sent[0][1]), way.sent[1][1]] == [SOFT, HARD]


def test_without_a_rate_it_is_always_ready() -> None:
    way = Way()
    for _ in range(100):
        way.session.send_frames(bytes(FRAME_BYTES_MAX))
        assert way.ready()


def test_the_rate_holds_back_and_says_when_to_go_on() -> None:
    way = Way(1 << 20)
    assert way.ready()
    way.session.send_frames(bytes(3 << 20))
    assert not way.ready()
    assert not way.ready()
    way.world.run_for(2.4)
    assert way.turns_taken == 0
    way.world.run_for(0.2)
    assert way.turns_taken == 1
    assert way.ready()


def test_another_rate_is_heeded_at_once() -> None:
    way = Way(64 << 10)
    way.session.send_frames(bytes(4 << 20))
    assert not way.ready()
    way.queue.set_rate(0)
    way.world.run_for(0.0)
    assert way.turns_taken == 1
    assert way.ready()


def test_who_leaves_is_not_told() -> None:
    way = Way(64 << 10)
    way.session.send_frames(bytes(1 << 20))
    assert not way.ready()
    way.session.leave(way)
    way.world.run_for(100.0)
    assert way.turns_taken == 0


def test_the_rest_takes_as_long_as_it_does_at_the_pace_of_the_session() -> None:
    way = Way()
    way.session.send_frames(bytes(1000))
    way.session.dial()
    way.session.send_frames(bytes(2000))
    assert way.session.eta_s(0) == 0.0
    assert way.session.eta_s(500) is None, "too early to say"
    way.world.run_for(10.0)
    assert way.session.eta_s(500) == pytest.approx(2.5)
    way.session.dial()
    way.world.run_for(10.0)
    assert way.session.eta_s(500) is None, "this one has sent nothing"


def test_a_pair_under_a_pace_converges_at_that_pace(shipping: ShippingPair) -> None:
    rate = 200_000
    shipping.write(300)
    size = shipping.one.end.position
    began_ns = shipping.world.now_ns
    shipping.start_one(PeerTraffic(SendQueue(shipping.one.clock, TokenBucket(rate))))
    shipping.until_paired()
    took_s = (shipping.world.now_ns - began_ns) / NS
    assert size / rate - 2.0 < took_s < size / rate + 3.0
    shipping.assert_same()
    states = [fields["state"] for kind, fields in shipping.one.events if kind == "pair.state"]
    assert states == ["copying", "paired"], "slow is not lost"


def test_a_pair_that_compresses_is_the_same_in_the_end(shipping: ShippingPair) -> None:
    traffic = PeerTraffic(SendQueue(shipping.one.clock), Compression.ZSTD)
    shipping.write(50)
    shipping.start_one(traffic)
    shipping.until_paired()
    traffic.compression = Compression.NONE
    shipping.write(10)
    traffic.compression = Compression.ZSTD
    shipping.write(10)
    shipping.until_paired()
    shipping.assert_same()
    assert shipping.shipper.session.wire_bytes < shipping.shipper.sent_bytes // 2
    assert shipping.shipper.state is PairState.PAIRED


def test_a_way_back_that_is_dead_shows_at_both_ends(shipping: ShippingPair) -> None:
    """The peer hears every heartbeat and would believe in the pair until those end too."""
    shipping.start_one()
    shipping.until_paired()
    shipping.world.run_for(2 * HEARTBEAT_TIMEOUT_S)
    assert shipping.receiver.state is PairState.PAIRED
    shipping.network.blackhole("par", "lon")
    shipping.until(lambda: shipping.receiver.state is PairState.SUSPENDED, HEARTBEAT_TIMEOUT_S)
    assert shipping.receiver.connected
    assert shipping.receiver.reason == "lon does not hear this site"
    shipping.until(lambda: shipping.shipper.state is PairState.SUSPENDED, 2.0)
    shipping.network.heal("lon", "par")
    shipping.until_paired()
    shipping.until(lambda: shipping.receiver.state is PairState.PAIRED, HEARTBEAT_TIMEOUT_S)
    assert shipping.receiver.reason == ""


def test_a_link_that_flaps_is_dialled_later_and_said_once(shipping: ShippingPair) -> None:
    shipping.start_one()
    for _ in range(8):
        shipping.until_paired()
        shipping.network.cut("lon", "par")
        shipping.until(lambda: not shipping.shipper.connected)
    lost_ns = shipping.world.now_ns
    shipping.until_paired()
    assert shipping.world.now_ns - lost_ns >= RECONNECT_DELAY_MAX_S * NS
    assert [kind for kind, _ in shipping.one.events].count("pair.flapping") == 1
    shipping.assert_same()
