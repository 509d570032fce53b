"""A peer that refuses: asked again, later and later while it says the same."""

from __future__ import annotations

import pytest

from engine.peering.pair_states import PairState
from protocol.limits import REFUSED_DELAY_MAX_S, REFUSED_DELAY_S
from protocol.messages import Hello
from site_primary.shipping.comparison import Choice
from tests.unit.site_primary.shipping.shipping_pair import ShippingPair


def test_a_peer_that_refuses_is_asked_again_later(shipping: ShippingPair) -> None:
    shipping.other.group.failed = "the disk is gone"
    shipping.start_one()
    shipping.until(lambda: shipping.shipper.state is PairState.SUSPENDED)
    assert "the disk is gone" in shipping.shipper.reason
    shipping.other.group.failed = ""
    shipping.until_paired()


def test_the_reason_is_what_keeps_the_peer_away_now(shipping: ShippingPair) -> None:
    """It stayed the first one, such as a name that could not be looked up, whatever came after it."""
    shipping.other.group.failed = "the disk is gone"
    shipping.start_one()
    shipping.until(lambda: shipping.shipper.state is PairState.SUSPENDED)
    shipping.network.part("lon", "par")
    shipping.until(lambda: "the disk is gone" not in shipping.shipper.reason, 60.0)
    assert shipping.shipper.state is PairState.SUSPENDED
    assert shipping.shipper.reason.startswith("par: ")
    shipping.network.heal("lon", "par")
    shipping.until(lambda: "the disk is gone" in shipping.shipper.reason, 60.0)


def hellos_within(shipping: ShippingPair, span_s: float) -> int:
    """Sessions that were asked for in so long."""
    before = {message.session for _, message, _ in shipping.heard if isinstance(message, Hello)}
    shipping.world.run_for(span_s)
    return len({message.session for _, message, _ in shipping.heard if isinstance(message, Hello)} - before)


def test_a_peer_that_refuses_for_ever_is_asked_less_and_less(shipping: ShippingPair) -> None:
    shipping.other.group.failed = "the disk is gone"
    shipping.start_one()
    shipping.until(lambda: shipping.shipper.state is PairState.SUSPENDED)
    assert 2 <= hellos_within(shipping, 4.0 * REFUSED_DELAY_S) <= 3
    shipping.world.run_for(100.0)
    assert 9 <= hellos_within(shipping, 10 * 30.0) <= 300.0 / REFUSED_DELAY_MAX_S
    shipping.other.group.failed = ""
    shipping.until(lambda: shipping.shipper.state is PairState.PAIRED, 31.0)


@pytest.mark.parametrize("word", ["resync", "peer set", "welcome"])
def test_what_an_operator_does_or_the_peer_welcomes_ends_the_long_delays(
    shipping: ShippingPair, word: str
) -> None:
    shipping.other.group.failed = "the disk is gone"
    shipping.start_one()
    shipping.world.run_for(120.0)
    if word == "resync":
        shipping.shipper.resync(Choice.NONE)
    elif word == "peer set":
        shipping.shipper.session.backoff.peer_set()
        hellos = len(shipping.heard)
        shipping.until(lambda: len(shipping.heard) > hellos, 31.0)
    else:
        shipping.other.group.failed = ""
        shipping.until_paired()
        shipping.other.group.failed = "the disk is gone again"
        shipping.network.cut("lon", "par")
        shipping.until(lambda: shipping.shipper.state is PairState.SUSPENDED)
        shipping.world.run_for(1.0)
    assert hellos_within(shipping, 4.0 * REFUSED_DELAY_S) >= 2
