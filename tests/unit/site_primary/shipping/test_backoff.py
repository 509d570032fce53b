"""Delays before the next dial: growing while sessions die young, bounded, and back once one lived."""

from __future__ import annotations

import random

import pytest

from protocol.limits import (
    RECONNECT_DELAY_MAX_S,
    RECONNECT_DELAY_S,
    REFUSED_DELAY_MAX_S,
    REFUSED_DELAY_S,
    SESSION_YOUNG_S,
)
from site_primary.shipping.backoff import FLAPS, JITTER, THROWN_BACK, THROWN_BACK_S, Backoff, Retry


class Link:
    """A `Backoff` and the time."""

    def __init__(self, seed: int = 1) -> None:
        self.backoff = Backoff(random.Random(seed))
        self.now_s = 1000.0

    def session(self, age_s: float) -> Retry:
        self.backoff.session_began(self.now_s)
        self.now_s += age_s
        return self.backoff.ended(self.now_s)


def within(delay_s: float, base_s: float) -> bool:
    return base_s <= delay_s <= base_s * (1.0 + JITTER)


def test_one_death_is_an_ordinary_restart() -> None:
    assert within(Link().session(0.1).delay_s, RECONNECT_DELAY_S)


def test_delays_double_up_to_the_bound() -> None:
    link = Link()
    delays = [link.session(1.0).delay_s for _ in range(40)]
    for at, delay_s in enumerate(delays):
        assert within(delay_s, min(RECONNECT_DELAY_S * 2.0**at, RECONNECT_DELAY_MAX_S))


def test_flapping_is_said_once() -> None:
    link = Link()
    said = [link.session(SESSION_YOUNG_S - 0.1).flapping for _ in range(3 * FLAPS)]
    assert said == [False] * (FLAPS - 1) + [True] + [False] * (2 * FLAPS)
    assert link.backoff.flapping


def test_a_session_that_lived_begins_anew() -> None:
    link = Link()
    for _ in range(2 * FLAPS):
        link.session(1.0)
    assert within(link.session(SESSION_YOUNG_S).delay_s, RECONNECT_DELAY_S)
    assert not link.backoff.flapping
    assert [link.session(1.0).flapping for _ in range(FLAPS)] == [False] * (FLAPS - 1) + [True]


def test_a_peer_that_is_away_does_not_flap() -> None:
    link = Link()
    for _ in range(100):
        link.now_s += 7.0
        retry = link.backoff.ended(link.now_s)
        assert within(retry.delay_s, RECONNECT_DELAY_S)
        assert not retry.flapping


def test_a_dial_that_fails_between_keeps_what_was_reached() -> None:
    link = Link()
    for _ in range(3):
        link.session(1.0)
    assert within(link.backoff.ended(link.now_s).delay_s, 4 * RECONNECT_DELAY_S)
    assert within(link.session(1.0).delay_s, 8 * RECONNECT_DELAY_S)


def test_an_operators_verb_begins_anew() -> None:
    link = Link()
    for _ in range(FLAPS):
        link.session(1.0)
    link.backoff.session_began(link.now_s)
    link.backoff.reset()
    assert not link.backoff.flapping
    assert within(link.backoff.ended(link.now_s).delay_s, RECONNECT_DELAY_S)


def test_the_same_refusal_comes_later_and_later() -> None:
    link = Link()
    for at in range(40):
        retry = link.backoff.ended(link.now_s, "suspended: no room")
        assert within(retry.delay_s, min(REFUSED_DELAY_S * 2.0**at, REFUSED_DELAY_MAX_S))
        assert retry.delay_s <= 30.0
        assert not retry.flapping


@pytest.mark.parametrize("what", ["another refusal", "a welcome", "an operator's verb", "peer set"])
def test_the_delay_after_a_refusal_begins_anew(what: str) -> None:
    link, refusal = Link(), "suspended: no room"
    for _ in range(5):
        link.backoff.ended(link.now_s, refusal)
    match what:
        case "another refusal":
            refusal = "diverged: no room"
        case "a welcome":
            link.session(SESSION_YOUNG_S)
        case "peer set":
            link.backoff.peer_set()
        case _:
            link.backoff.reset()
    assert within(link.backoff.ended(link.now_s, refusal).delay_s, REFUSED_DELAY_S)


def test_a_lost_connection_between_keeps_what_refusals_reached() -> None:
    link = Link()
    for _ in range(2):
        link.backoff.ended(link.now_s, "no room")
    assert within(link.backoff.ended(link.now_s).delay_s, RECONNECT_DELAY_S)
    assert within(link.backoff.ended(link.now_s, "no room").delay_s, 4 * REFUSED_DELAY_S)


@pytest.mark.parametrize("seed", range(3))
def test_two_that_fail_together_do_not_dial_in_step(seed: int) -> None:
    one, other = Link(2 * seed), Link(2 * seed + 1)
    assert one.session(1.0).delay_s != other.session(1.0).delay_s


def test_it_is_stuck_where_sessions_end_again_and_again_at_one_place() -> None:
    backoff = Backoff(random.Random(1))
    for second in range(2 * THROWN_BACK):
        backoff.thrown_back(100, second / 100)
    assert not backoff.stuck_at(100)  # a peer may not be ready for it yet
    backoff.thrown_back(100, THROWN_BACK_S)
    assert backoff.stuck_at(100)
    assert not backoff.stuck_at(101)  # it went on
    backoff.thrown_back(200, 6.0)
    assert not backoff.stuck_at(200)
    backoff.thrown_back(100, 7.0)
    backoff.thrown_back(100, 20.0)
    assert not backoff.stuck_at(100)  # twice may be chance
    backoff.thrown_back(100, 21.0)
    assert backoff.stuck_at(100)
    backoff.reset()
    assert not backoff.stuck_at(100)
