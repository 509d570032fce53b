"""When a policy wants a backup."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.copies.schedules import DAY_S, due, has_schedule, last_slot, next_slot
from protocol.cut_text import NS_PER_S
from protocol.events import NO_POLICY, PolicySet

HOURLY = replace(NO_POLICY, every_s=3600)
AT_TWO = replace(NO_POLICY, at_minute=120)
NOON = (20_000 * DAY_S + 43_200) * NS_PER_S
HOUR = 3600 * NS_PER_S


def test_without_a_schedule_there_is_no_slot() -> None:
    assert last_slot(NO_POLICY, NOON) is None
    assert next_slot(NO_POLICY, NOON) is None
    assert due(NO_POLICY, 0, 0, NOON) is None
    assert not has_schedule(NO_POLICY)
    for policy in (HOURLY, AT_TWO, replace(NO_POLICY, cron="0 4 * * *", zone="UTC")):
        assert has_schedule(policy)


def test_slots_are_of_the_clock_not_of_the_last_backup() -> None:
    assert last_slot(HOURLY, NOON + 5) == NOON
    assert next_slot(HOURLY, NOON + 5) == NOON + HOUR
    assert last_slot(AT_TWO, NOON) == NOON - 10 * HOUR
    assert next_slot(AT_TWO, NOON) == NOON + 14 * HOUR
    assert last_slot(AT_TWO, NOON - 11 * HOUR) == NOON - 34 * HOUR


def test_missed_slots_are_made_up_once() -> None:
    """Down for five hours: one backup, for the newest slot."""
    assert due(HOURLY, 1, NOON - 5 * HOUR, NOON + 9) == NOON
    assert due(HOURLY, 1, NOON + 9, NOON + 10) is None
    assert due(HOURLY, 1, NOON + 9, NOON + HOUR) == NOON + HOUR


def test_a_clock_that_went_back_does_not_end_the_schedule() -> None:
    """The clock jumped a day ahead and back: what was taken meanwhile, and since, has a time yet to come."""
    tomorrow = NOON + 24 * HOUR
    assert due(HOURLY, 1, tomorrow, NOON + 9) == NOON
    assert due(HOURLY, tomorrow, 0, NOON + 9) == NOON
    assert due(HOURLY, 1, tomorrow, tomorrow + 9) is None


def test_slots_before_the_policy_was_set_are_not_made_up() -> None:
    assert due(AT_TWO, NOON, 0, NOON + HOUR) is None
    assert due(AT_TWO, NOON, 0, NOON + 14 * HOUR) == NOON + 14 * HOUR


@given(
    st.one_of(
        st.integers(1, 400_000).map(lambda every_s: replace(NO_POLICY, every_s=every_s)),
        st.integers(0, 1439).map(lambda minute: replace(NO_POLICY, at_minute=minute)),
    ),
    st.integers(10 * DAY_S * NS_PER_S, 1 << 62),
)
def test_now_lies_between_two_slots(policy: PolicySet, now_ns: int) -> None:
    last_ns, next_ns = last_slot(policy, now_ns), next_slot(policy, now_ns)
    assert last_ns is not None
    assert next_ns is not None
    assert last_ns <= now_ns < next_ns
    assert next_slot(policy, last_ns) == next_ns
