"""The token bucket: the rate holds over any span, bursts are bounded, and nobody starves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from site_primary.pace import BURST_S, Pace


def test_without_a_rate_nothing_waits() -> None:
    pace = Pace()
    for at in range(100):
        assert pace.wait_s(1 << 40, float(at)) == 0.0
        pace.spend(1 << 40, float(at))


def test_a_burst_goes_at_once_and_then_the_rate_holds() -> None:
    pace = Pace(1000)
    pace.spend(1000, 0.0)
    assert pace.wait_s(500, 0.0) == pytest.approx(0.5)
    assert pace.wait_s(500, 0.4) == pytest.approx(0.1)
    assert pace.wait_s(500, 0.5) == 0.0


def test_what_is_larger_than_a_burst_goes_when_the_bucket_is_full_and_is_paid_for_afterwards() -> None:
    pace = Pace(1000)
    assert pace.wait_s(5000, 0.0) == 0.0
    pace.spend(5000, 0.0)
    assert pace.wait_s(1, 0.0) == pytest.approx(4.001)
    assert pace.wait_s(5000, 0.0) == pytest.approx(5.0)


def test_idle_time_saves_no_more_than_a_burst() -> None:
    pace = Pace(1000)
    pace.spend(1000, 0.0)
    pace.spend(1000, 1e6)
    assert pace.wait_s(1, 1e6) > 0.0


def test_a_clock_that_stands_still_gives_nothing_away() -> None:
    pace = Pace(1000)
    pace.spend(1000, 5.0)
    for _ in range(10):
        assert pace.wait_s(1000, 5.0) == pytest.approx(1.0)


def test_another_rate_takes_effect_at_once() -> None:
    pace = Pace(1000)
    pace.spend(2000, 0.0)
    pace.set_rate(10_000, 0.0)
    assert pace.wait_s(1000, 0.0) == pytest.approx(0.2)
    pace.set_rate(0, 0.1)
    assert pace.wait_s(1 << 30, 0.1) == 0.0
    pace.set_rate(500, 9.0)
    assert pace.wait_s(500, 9.0) == 0.0
    assert pace.rate_bytes_s == 500


@given(
    st.integers(64, 1 << 20),
    st.lists(st.tuples(st.integers(1, 1 << 21), st.floats(0.0, 3.0)), min_size=1, max_size=60),
)
def test_never_above_the_rate_by_more_than_a_burst_and_a_message(
    rate: int, messages: list[tuple[int, float]]
) -> None:
    pace, now_s, sent = Pace(rate), 0.0, 0
    for size, idle_s in messages:
        now_s += idle_s
        wait_s = pace.wait_s(size, now_s)
        # As long as it says, and no longer: a sender that comes back then is let through.
        now_s += wait_s
        assert pace.wait_s(size, now_s) <= 1e-6 * (1.0 + now_s)
        pace.spend(size, now_s)
        sent += size
        assert sent <= rate * (now_s + BURST_S) + size + 1.0
