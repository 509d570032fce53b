"""A base on the way between two real sites, as the shipper sends it when the journal does not lead there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.history.cuts import checked_cut
from engine.peering.pair_states import PairState
from protocol.base_messages import BaseBegin, BaseFrames, BasePart
from protocol.errors import Trimmed
from protocol.events import Revert
from protocol.limits import BLOCK_BYTES
from protocol.messages import Fetch, FrameMessage
from protocol.positions import Cut
from site_primary.shipping import comparison
from site_primary.shipping.comparison import Choice
from tests.unit.site_primary.shipping.shipping_pair import ShippingPair


@pytest.fixture
def shipping(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShippingPair]:
    """A pair for which any journal from the root is too long to be shipped whole."""
    monkeypatch.setattr(comparison, "HISTORY_SHIPPED_BYTES_MAX", 0)
    monkeypatch.setattr("site_primary.shipping.base_sender.BASE_PAYLOAD_BYTES", 4 * BLOCK_BYTES)
    monkeypatch.setattr("engine.history.base_intake.BASE_INDEX_BYTES", 16 * BLOCK_BYTES)
    made = ShippingPair(directory)
    yield made
    made.close()


def bases(shipping: ShippingPair) -> list[BaseBegin]:
    return [message for _, message, _ in shipping.heard if isinstance(message, BaseBegin)]


def test_a_new_peer_gets_a_copy_and_then_the_journal(shipping: ShippingPair) -> None:
    shipping.write(50)
    shipping.start_one()
    shipping.until_paired()
    shipping.write(20)
    shipping.until_paired()
    shipping.assert_same()
    (base,) = bases(shipping)
    assert base.start is None
    with pytest.raises(Trimmed):
        checked_cut(shipping.other.group, Cut(base.cut.timeline, base.cut.position - 1))
    shipping.restart_other()
    shipping.until_paired()
    shipping.assert_same()
    assert len(bases(shipping)) == 1


def test_hosts_write_all_the_while(shipping: ShippingPair) -> None:
    """What is written during the copy follows it; what the copy sends is what was there when it began."""
    shipping.write(100)
    shipping.start_one()
    for _ in range(200):
        shipping.write()
        shipping.world.run_for(0.002)
    shipping.until_paired()
    shipping.assert_same()
    assert len(bases(shipping)) == 1
    frames = [payload for _, message, payload in shipping.heard if isinstance(message, BaseFrames)]
    assert sum(len(payload or b"") for payload in frames) < 70 * BLOCK_BYTES


@pytest.mark.parametrize("kind", [BaseBegin, BasePart, BaseFrames, FrameMessage])
def test_a_restart_of_either_site_anywhere(
    shipping: ShippingPair, kind: type[BaseBegin | BasePart | BaseFrames | FrameMessage]
) -> None:
    for _ in range(60):
        shipping.write()
    shipping.start_one()
    for restart in (shipping.restart_other, shipping.restart_one, shipping.restart_other):
        seen = len(shipping.heard)
        shipping.until(
            lambda seen=seen: (
                any(isinstance(m, kind) for _, m, _ in shipping.heard[seen:])  # type: ignore[misc]
                or shipping.shipper.state is PairState.PAIRED
            )
        )
        restart()
        shipping.write(2)
    shipping.until_paired()
    shipping.assert_same()


def test_cut_lines_cost_little(shipping: ShippingPair) -> None:
    """A line that is lost again and again in the middle: what was received is not sent again."""
    for _ in range(60):
        shipping.write()
    shipping.start_one()
    for _ in range(5):
        shipping.world.run_for(0.01)
        shipping.network.cut("lon", "par")
        shipping.world.run_for(1.5)
    shipping.until_paired()
    shipping.assert_same()


def test_a_peer_that_has_a_base_itself_is_gone_on_with(shipping: ShippingPair) -> None:
    """Its journal begins at the base: the peer's lineage below that is known by name only."""
    shipping.write(20)
    shipping.start_one()
    shipping.until_paired()
    for _ in range(3):
        shipping.restart_one()
        shipping.write(10)
        shipping.until_paired()
    shipping.restart_other()
    shipping.write(3)
    shipping.until_paired()
    shipping.assert_same()
    assert len(bases(shipping)) == 1


def test_a_split_in_the_middle(shipping: ShippingPair) -> None:
    for _ in range(60):
        shipping.write()
    shipping.start_one()
    shipping.until(lambda: any(isinstance(m, BaseFrames) for _, m, _ in shipping.heard))
    shipping.shipper.split()
    shipping.world.run_for(5.0)
    assert shipping.shipper.state is PairState.SPLIT
    shipping.write(5)
    shipping.shipper.resync(Choice.NONE)
    shipping.until_paired()
    shipping.assert_same()


def test_a_revert_to_what_the_peer_does_not_have(shipping: ShippingPair) -> None:
    """The peer stays at its last consistent cut and gets the blocks that differ instead of the revert."""
    shipping.write(10)
    gone = shipping.one.end
    shipping.write(10)
    shipping.start_one()
    shipping.until_paired()
    shipping.write(5)
    shipping.one.group.append_records([Revert(volume=shipping.volume, cut=gone)])
    shipping.write(5)
    shipping.until_paired()
    shipping.assert_same()
    _, second = bases(shipping)
    assert second.start is not None
    shipping.restart_other()
    shipping.write(5)
    shipping.until_paired()
    shipping.assert_same()
    assert len(bases(shipping)) == 2


@pytest.mark.parametrize("serving", [False, True])
def test_an_old_copy_below_the_peers_base_goes_on_once_an_operator_chose_it(
    shipping: ShippingPair, directory: Path, serving: bool
) -> None:
    """The peer has only the outcome of what the copy lacks: it can neither give that, nor follow by the
    journal from where the copy is. The copy asked for it again after each word, or sent the journal for
    ever."""
    shipping.write(10)
    shipping.one.drop()
    old = shipping.one.copy_to(directory / "old")
    old.world = shipping.world
    shipping.one.open()
    shipping.write(10)
    shipping.start_one()
    shipping.until_paired()
    shipping.stop_one()
    shipping.one = old
    old.open()
    shipping.start_one()
    if serving:
        shipping.shipper.hosts.serve()
    shipping.until(lambda: shipping.shipper.state is PairState.DIVERGED)
    shipping.shipper.resync(Choice.LOCAL)
    sessions = len(shipping.heard)
    shipping.until_paired()
    shipping.assert_same()
    assert not old.group.holds
    assert not any(isinstance(message, Fetch) for _, message, _ in shipping.heard[sessions:])
