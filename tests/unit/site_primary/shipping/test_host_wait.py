"""When hosts wait for a peer's history, and when an operator's choice of one is carried out."""

from __future__ import annotations

import pytest

from engine.peering.pair_states import PairState
from protocol.messages import Fetch, Hello
from site_primary.shipping.comparison import Choice
from tests.unit.engine.retention.test_reclaim import truncate
from tests.unit.site_primary.shipping.shipping_pair import ShippingPair


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


@pytest.mark.usefixtures("tiny_segments")
def test_what_the_peer_cannot_give_is_diverged_and_not_asked_for_again(shipping: ShippingPair) -> None:
    """Its journal does not lead on from the fork any more: an operator hears so once, and chooses anew."""
    shipping.start_one()
    shipping.until_paired()
    shipping.shipper.split()
    shipping.world.run_for(2.0)
    for _ in range(60):
        shipping.other.write(shipping.volume, 1, b"h")
        shipping.other.sync()
    shipping.one.write(shipping.volume, 0, b"o")
    shipping.receiver.close()
    truncate(shipping.other)
    floor = shipping.other.group.kept.horizon()
    assert floor is not None
    assert floor.timeline == shipping.other.group.head.timeline
    shipping.restart_other()
    shipping.shipper.resync(Choice.REMOTE)
    shipping.until(lambda: shipping.shipper.state is PairState.DIVERGED)
    assert "only the outcome is here" in shipping.shipper.reason
    shipping.one.events.clear()
    fetches = len([message for _, message, _ in shipping.heard if isinstance(message, Fetch)])
    shipping.world.run_for(60.0)
    assert shipping.shipper.state is PairState.DIVERGED
    assert [kind for kind, _ in shipping.one.events if kind == "pair.state"] == []
    assert len([message for _, message, _ in shipping.heard if isinstance(message, Fetch)]) == fetches
    assert shipping.one.group.holds, "hosts wait until an operator says otherwise"
    shipping.shipper.resync(Choice.LOCAL)
    shipping.until_paired()
    shipping.assert_same()
    assert not shipping.one.group.holds
