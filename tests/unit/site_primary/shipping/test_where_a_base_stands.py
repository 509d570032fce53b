"""Where a base stands that is sent in place of a journal."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from protocol.positions import NO_TIMELINE, Cut
from site_primary.shipping.base_shipment import BaseShipment
from site_primary.shipping.comparison import Choice, Start, Verdict, where_to_start
from site_primary.shipping.rate_limit import SendQueue
from site_primary.shipping.session import PeerTraffic
from tests.sim.world import SimClock, SimWorld
from tests.unit.engine.group_rig import GroupRig
from tests.unit.engine.retention.test_reclaim import fill, truncate
from tests.unit.site_primary.shipping.base_pair import BasePair
from tests.unit.site_primary.shipping.lines import session_over
from tests.unit.site_primary.shipping.test_comparison import welcome


@pytest.mark.parametrize("truncated", [False, True])
def test_a_journal_that_the_peer_cannot_take_is_a_base_on_what_can_be_read(
    tmp_path: Path, truncated: bool
) -> None:
    """The journal may lead on from a cut that is not kept."""
    world = SimWorld(1)
    rig = GroupRig(tmp_path / "one", world=world, seed=1)
    rig.open()
    try:
        volume = rig.create("root", 16)
        cut = fill(rig, volume, 3)[4]
        if truncated:
            truncate(rig)
        assert rig.group.kept.readable(cut) is not truncated
        clock = SimClock(world)
        session = session_over(lambda *_: None, clock, PeerTraffic(SendQueue(clock)))
        shipment = BaseShipment(rig.group, session, random.Random(1), lambda: None, lambda _: None)
        ships = Start(verdict=Verdict.SHIP, cut=cut)
        assert shipment.judged(ships) == ships
        assert shipment.refused()
        expected = Cut(NO_TIMELINE, 0) if truncated else cut
        assert shipment.judged(ships) == Start(verdict=Verdict.BASE, cut=expected)
    finally:
        rig.drop()


def test_a_peer_in_the_gap_below_a_base_gets_one_on_nothing(pair: BasePair) -> None:
    """The site that got a base is the writer now, and an old copy of the other one is back. Nothing here says
    what the digest was there: "it cannot tell where a is", and the pair stayed suspended."""
    volume = pair.one.create("root", 8)
    pair.one.write(volume, 0, b"a")
    cut, digest = pair.one.end, pair.one.group.head.digest
    pair.one.write(volume, 1, b"b")
    pair.copy(None)
    group = pair.other.group
    assert not group.kept.journal_reaches(cut)
    start = where_to_start(group, welcome(group, cut, digest), choice=Choice.NONE, serving=True)
    assert start == Start(verdict=Verdict.BASE, cut=Cut(NO_TIMELINE, 0))
