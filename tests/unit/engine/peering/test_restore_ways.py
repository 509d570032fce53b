"""Which way a restore goes, by what this site and its peer hold of the cut."""

from __future__ import annotations

from functools import partial

import pytest

from engine.peering.restore_ways import Chosen, Way, choose_way
from protocol.errors import FarshoreError
from protocol.positions import Cut
from tests.unit.daemon.two_sites import GROUP, TwoSites

LEASE = "restore g/v"


@pytest.fixture
def sites() -> TwoSites:
    return TwoSites()


def choose(sites: TwoSites, cut: Cut) -> Chosen | FarshoreError:
    """What `a`, which writes, comes to."""
    process, group = sites.process(sites.a), sites.group(sites.a)
    found: list[Chosen | FarshoreError] = []

    async def ask() -> None:
        try:
            found.append(
                await choose_way(
                    group,
                    (group.volume("v"),),
                    cut,
                    LEASE,
                    60.0,
                    process.shippers.get(GROUP),
                    partial(process.ask_peer, GROUP),
                )
            )
        except FarshoreError as error:
            found.append(error)

    process.sim_loop.begin(ask())
    sites.until(lambda: bool(found))
    return found[0]


def test_what_both_hold_is_one_event_and_kept_at_the_peer(sites: TwoSites) -> None:
    cut = sites.write(sites.a)
    sites.until_paired(sites.a)
    chosen = choose(sites, cut)
    assert isinstance(chosen, Chosen)
    assert (chosen.way, chosen.there, chosen.common) == (Way.REVERT, True, None)
    assert any(LEASE in name for name in sites.group(sites.b).kept.leases.holders(cut))


def test_a_peer_that_is_away_is_not_waited_for(sites: TwoSites) -> None:
    cut = sites.write(sites.a)
    sites.until_paired(sites.a)
    sites.part()
    sites.until(lambda: not sites.shipper(sites.a).connected)
    began_ns = sites.world.now_ns
    chosen = choose(sites, cut)
    assert isinstance(chosen, Chosen)
    assert (chosen.way, chosen.there) == (Way.REVERT, False)
    assert sites.world.now_ns == began_ns


def test_a_cut_that_nobody_holds_is_refused(sites: TwoSites) -> None:
    sites.until_paired(sites.a)
    refused = choose(sites, Cut(4711, 4096))
    assert isinstance(refused, FarshoreError)
