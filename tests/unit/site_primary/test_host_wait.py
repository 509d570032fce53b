"""When hosts wait for a peer's history, and when an operator's choice of one is carried out."""

from __future__ import annotations

import pytest

from engine.pair_states import PairState
from protocol.messages import Hello
from site_primary.ship_start import Choice
from tests.unit.site_primary.shipping_pair import ShippingPair


@pytest.mark.parametrize("choice", [Choice.REMOTE, Choice.LOCAL])
def test_a_choice_stands_until_the_peers_hosts_are_gone(shipping: ShippingPair, choice: Choice) -> None:
    """A host of the other site writes after its WELCOME, before it is sent away."""
    shipping.start_one()
    shipping.until_paired()
    shipping.shipper.split()
    shipping.world.run_for(2.0)
    shipping.one.write(shipping.volume, 0, b"o")
    heard = len(shipping.heard)
    shipping.shipper.resync(choice)
    shipping.until(lambda: any(isinstance(message, Hello) for _, message, _ in shipping.heard[heard:]))
    shipping.other.write(shipping.volume, 1, b"h")
    theirs = shipping.other.end
    shipping.until(lambda: shipping.shipper.state is PairState.PAIRED and shipping.in_sync())
    shipping.assert_same()
    wanted = "h" if choice is Choice.REMOTE else "."
    assert shipping.one.letters("root")[1] == wanted
    assert shipping.other.letters("root", theirs)[1] == "h"
    assert shipping.shipper.hosts.choice is Choice.NONE
    assert not shipping.one.group.holds
