"""Two sites tell each other their clocks, and both say it when those differ; C35: a takeover knows."""

from __future__ import annotations

import pytest

from engine.peering.peer_clocks import PeerClock, PeerClocks, Skew
from engine.peering.takeover_plan import plan_takeover, require_loss_within
from protocol.errors import Unsafe
from protocol.limits import CLOCK_ASK_EVERY_S, CLOCK_SKEW_S
from protocol.messages import ClockTold
from tests.sim.sim_site import GROUP, SimSite
from tests.sim.world import NS, SimClock, SimWorld
from tests.unit.daemon.two_sites import TwoSites

SOME_EXCHANGES_S = 5 * CLOCK_ASK_EVERY_S


def skew(sites: TwoSites, at: SimSite, peer: str) -> Skew:
    process = sites.process(at)
    found = process.pairs.clocks.of(peer).skew(process.clock)
    assert found is not None
    return found


def test_both_sites_know_and_say_how_far_the_clocks_are_apart_and_when_they_agree_again() -> None:
    sites = TwoSites()
    sites.b.jump(-600.0)
    sites.world.run_for(SOME_EXCHANGES_S)
    at_a, at_b = skew(sites, sites.a, "b"), skew(sites, sites.b, "a")
    assert at_a.within_s < 0.1
    assert at_b.within_s < 0.1
    assert abs(at_a.ahead_s + 600.0) <= at_a.within_s + 0.001
    assert abs(at_b.ahead_s - 600.0) <= at_b.within_s + 0.001
    assert sorted(sites.said("peer.clock_skew")) == ["a", "b"]
    sites.b.jump(600.0)
    sites.world.run_for(SOME_EXCHANGES_S)
    assert sorted(sites.said("peer.clock_right")) == ["a", "b"]
    assert sorted(sites.said("peer.clock_skew")) == ["a", "b"]


def test_c35_a_takeover_at_a_clock_that_is_behind_counts_the_time_that_passed_and_names_the_skew() -> None:
    sites = TwoSites()
    sites.b.jump(-600.0)
    sites.world.run_for(SOME_EXCHANGES_S)
    sites.part()
    sites.world.run_for(60.0)
    group = sites.group(sites.b)
    plan = plan_takeover(group, sites.process(sites.b).receivers[GROUP])
    assert plan.age_s is not None
    assert 59.0 < plan.age_s < 70.0
    assert "a's clock is 600.0 s ahead of this site's" in plan.statement
    with pytest.raises(Unsafe, match=r"5 s are allowed \(a's clock is 600.0 s ahead"):
        require_loss_within(plan, group, 5.0)
    require_loss_within(plan, group, 120.0)


def test_c35_after_a_restart_a_clock_that_is_behind_says_nothing_and_is_not_taken_for_no_loss() -> None:
    sites = TwoSites()
    sites.part()
    sites.b.end(power=False)
    sites.b.jump(-600.0)
    sites.b.start()
    sites.world.run_for(60.0)
    group = sites.group(sites.b)
    plan = plan_takeover(group, sites.process(sites.b).receivers.get(GROUP))
    assert plan.age_s is None
    with pytest.raises(Unsafe, match=r"of an unknown time may be lost.*this site's clock is at least"):
        require_loss_within(plan, group, 5.0)


def test_a_step_of_this_sites_own_clock_does_not_move_what_is_known_of_the_peers() -> None:
    sites = TwoSites()
    sites.world.run_for(SOME_EXCHANGES_S)
    clock, peer = sites.process(sites.b).clock, sites.process(sites.b).pairs.clocks.of("a")
    before = peer.utc_ns(clock)
    sites.b.jump(-86_400.0)
    assert peer.utc_ns(clock) == before


def test_what_echoes_nothing_that_was_sent_says_nothing() -> None:
    world = SimWorld(1)
    clock, peer = SimClock(world), PeerClock("b")
    peer.hear(clock, ClockTold(session=1, utc_ns=5, heard_ns=7, held_ns=0))
    assert peer.speaks
    assert peer.skew(clock) is None
    sent = peer.told(clock, 1)
    world.run_for(1.0)
    # Held for longer than the round trip took: not believed.
    peer.hear(clock, ClockTold(session=1, utc_ns=5, heard_ns=sent.utc_ns, held_ns=2 * NS))
    assert peer.skew(clock) is None


def test_a_long_round_trip_alone_is_no_skew() -> None:
    said: list[str] = []

    def emit(kind: str, **_: object) -> None:
        said.append(kind)

    world = SimWorld(1)
    clock, peer = SimClock(world), PeerClock("b", emit)
    sent = peer.told(clock, 1)
    world.run_for(4 * CLOCK_SKEW_S)
    peer.hear(clock, ClockTold(session=1, utc_ns=sent.utc_ns, heard_ns=sent.utc_ns, held_ns=0))
    assert said == []
    sent = peer.told(clock, 1)
    peer.hear(clock, ClockTold(session=1, utc_ns=sent.utc_ns + 60 * NS, heard_ns=sent.utc_ns, held_ns=0))
    assert said == ["peer.clock_skew"]


def test_a_clock_that_was_wrong_before_the_restart_is_not_said_again_and_its_end_is() -> None:
    said: list[str] = []

    def emit(kind: str, **_: object) -> None:
        said.append(kind)

    world = SimWorld(1)
    clock, clocks = SimClock(world), PeerClocks(emit)
    clocks.take_up({"b"})
    assert clocks.wrong() == ["b"]
    for ahead_s, expected in (
        (60, []),
        (0, ["peer.clock_right"]),
        (60, ["peer.clock_right", "peer.clock_skew"]),
    ):
        sent = clocks.of("b").told(clock, 1)
        there_ns = sent.utc_ns + ahead_s * NS
        clocks.of("b").hear(clock, ClockTold(session=1, utc_ns=there_ns, heard_ns=sent.utc_ns, held_ns=0))
        assert said == expected
        assert clocks.wrong() == (["b"] if ahead_s else [])
