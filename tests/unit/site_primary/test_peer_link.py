"""Links that are bad in one way or another, and what both ends make of them."""

from __future__ import annotations

from engine.peering.pair_states import PairState
from protocol.limits import HEARTBEAT_TIMEOUT_S, RECONNECT_DELAY_MAX_S
from tests.sim.world import NS
from tests.unit.site_primary.shipping_pair import ShippingPair


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
