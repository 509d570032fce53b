"""What came of a base goes as soon as no peer can go on with it: at each move that ends the receiving, and at
a start after one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.history.base_rows import load_pending
from engine.index.base_requests import BaseOpen
from engine.journal.format import timeline_directory
from engine.peering.pair_states import PairState
from tests.sim.sim_site import GROUP
from tests.unit.daemon.two_sites import TwoSites

X = 77


def leave_a_base(sites: TwoSites) -> None:
    """`b` restarts, parted from `a`, with a base of which only the row is there yet."""
    sites.part()
    request = BaseOpen(timeline=X, cut=sites.group(sites.a).end, start=None)
    sites.group(sites.b).checkpoints.indexer.start(request, lambda _error, _figures: None)
    sites.until(lambda: is_there(sites))
    sites.restart(sites.b)
    sites.until(lambda: sites.b.group is not None)
    assert is_there(sites)


def is_there(sites: TwoSites) -> bool:
    group = sites.group(sites.b)
    with group.store.read() as transaction:
        return load_pending(transaction) is not None or group.disk.exists(timeline_directory(X))


def deleted(sites: TwoSites) -> None:
    sites.process(sites.b).pairs.delete(sites.group(sites.b))


def taken_over(sites: TwoSites) -> None:
    sites.process(sites.b).pairs.take_over(sites.group(sites.b), PairState.TAKEN_OVER)


@pytest.mark.parametrize("move", [deleted, taken_over])
def test_a_move_that_ends_the_receiving(sites: TwoSites, move: Callable[[TwoSites], None]) -> None:
    leave_a_base(sites)
    sites.world.run_for(20.0)
    assert is_there(sites), "the peer may come back and go on with it"
    move(sites)
    sites.until(lambda: not is_there(sites))


@pytest.mark.parametrize("move", [deleted, taken_over])
def test_a_start_after_it(sites: TwoSites, move: Callable[[TwoSites], None]) -> None:
    """That of a version before left it, or a crash came first."""
    sites.part()
    move(sites)
    request = BaseOpen(timeline=X, cut=sites.group(sites.a).end, start=None)
    sites.group(sites.b).checkpoints.indexer.start(request, lambda _error, _figures: None)
    sites.until(lambda: is_there(sites))
    sites.restart(sites.b)
    sites.until(lambda: sites.b.group is not None and not is_there(sites))


def test_the_journal_leads_on(sites: TwoSites) -> None:
    leave_a_base(sites)
    sites.heal()
    sites.write(sites.a)
    sites.until_paired(sites.a)
    sites.until(lambda: not is_there(sites))
    assert GROUP in sites.process(sites.b).receivers
