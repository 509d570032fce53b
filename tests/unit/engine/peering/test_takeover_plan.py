"""What a takeover says of losses before it is asked for."""

from __future__ import annotations

import pytest

from engine.peering.pair_states import Mode, PairState
from engine.peering.takeover_plan import (
    TakeoverPlan,
    plan_takeover,
    require_gone,
    require_loss_within,
    require_takeable,
)
from protocol.errors import NotAllowed, Unsafe, WrongState
from tests.unit.daemon.two_sites import GROUP, TwoSites


def plan_at_b(sites: TwoSites) -> TakeoverPlan:
    """Of the site that follows."""
    return plan_takeover(sites.group(sites.b), sites.process(sites.b).receivers.get(GROUP))


def test_what_came_up_to_a_time_is_not_lost() -> None:
    sites = TwoSites()
    sites.world.run_for(2.0)
    plan = plan_at_b(sites)
    assert not plan.nothing_lost
    assert plan.known_lost_bytes == 0
    assert plan.until_ns > 0
    assert plan.age_s is not None
    assert "later writes may be" in plan.statement


def test_in_the_strict_mode_nothing_is_lost() -> None:
    sites = TwoSites(Mode.SYNC_STRICT)
    sites.until(lambda: plan_at_b(sites).nothing_lost)
    assert plan_at_b(sites).statement == "nothing that was acknowledged is lost"


def test_a_longer_loss_than_is_allowed_is_refused() -> None:
    sites = TwoSites()
    sites.part()
    sites.world.run_for(20.0)
    plan, group = plan_at_b(sites), sites.group(sites.b)
    require_loss_within(plan, group, None)
    require_loss_within(plan, group, 3600.0)
    with pytest.raises(Unsafe, match="may be lost, 1 s are allowed"):
        require_loss_within(plan, group, 1.0)


def test_who_writes_already_cannot_take_over() -> None:
    sites = TwoSites()
    with pytest.raises(WrongState, match="written here already"):
        require_takeable(sites.group(sites.a), "b")
    require_takeable(sites.group(sites.b), "a")


def test_a_peer_that_writes_must_be_gone() -> None:
    sites = TwoSites()
    group = sites.group(sites.b)
    for role in ("", "secondary"):
        require_gone(group, "a", role)
    with pytest.raises(NotAllowed, match="a answers, and writes"):
        require_gone(group, "a", "primary")
    with pytest.raises(NotAllowed, match="hosts there may write") as caught:
        require_gone(group, "a", "detached")
    assert "takeover" in caught.value.next_step


def test_after_a_takeover_the_site_writes() -> None:
    sites = TwoSites()
    sites.part()
    sites.process(sites.b).pairs.take_over(sites.group(sites.b), PairState.TAKEN_OVER)
    with pytest.raises(WrongState):
        require_takeable(sites.group(sites.b), "a")
