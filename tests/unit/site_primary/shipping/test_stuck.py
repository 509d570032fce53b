"""A peer that ends each session because of the same frame: nobody may call that paired."""

from __future__ import annotations

import pytest

from engine.group.frame_checks import FrameChecks
from engine.peering.pair_states import PairState
from protocol.errors import RemoteProtocolError
from tests.unit.site_primary.shipping.shipping_pair import ShippingPair


def test_a_peer_that_throws_the_same_frame_back_is_suspended_until_it_goes_on(
    shipping: ShippingPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipping.start_one()
    shipping.until_paired()
    events = shipping.one.events

    def refuses(*_: object, **__: object) -> object:
        raise RemoteProtocolError("event kind 99 is not known to this version")

    with monkeypatch.context() as patched:
        patched.setattr(FrameChecks, "followed", refuses)
        shipping.one.write(shipping.volume, 1, b"x")
        shipping.until(lambda: shipping.shipper.state is PairState.SUSPENDED)
        assert "event kind 99 is not known" in shipping.shipper.reason
        states = len([kind for kind, _ in events if kind == "pair.state"])
        # Tried again, it stays what it is called, and hosts' writes go on.
        shipping.one.write(shipping.volume, 2, b"y")
        shipping.world.run_for(120.0)
        assert shipping.shipper.state is PairState.SUSPENDED
        assert len([kind for kind, _ in events if kind == "pair.state"]) == states
        assert len([kind for kind, _ in events if kind == "pair.reset"]) > 4
    shipping.until_paired()
