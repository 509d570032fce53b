"""The token bucket: the rate holds over any span, bursts are bounded, and nobody starves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from site_primary.shipping.rate_limit import BURST_S, TokenBucket


def test_without_a_rate_nothing_waits() -> None:
    bucket = TokenBucket()
    for at in range(100):
        assert bucket.wait_s(1 << 40, float(at)) == 0.0
        bucket.spend(1 << 40, float(at))


def test_a_burst_goes_at_once_and_then_the_rate_holds() -> None:
    bucket = TokenBucket(1000)
    bucket.spend(1000, 0.0)
    assert bucket.wait_s(500, 0.0) == pytest.approx(0.5)
    assert bucket.wait_s(500, 0.4) == pytest.approx(0.1)
    assert bucket.wait_s(500, 0.5) == 0.0


def test_what_is_larger_than_a_burst_goes_when_the_bucket_is_full_and_is_paid_for_afterwards() -> None:
    bucket = TokenBucket(1000)
    assert bucket.wait_s(5000, 0.0) == 0.0
    bucket.spend(5000, 0.0)
    assert bucket.wait_s(1, 0.0) == pytest.approx(4.001)
    assert bucket.wait_s(5000, 0.0) == pytest.approx(5.0)


def test_idle_time_saves_no_more_than_a_burst() -> None:
    bucket = TokenBucket(1000)
    bucket.spend(1000, 0.0)
    bucket.spend(1000, 1e6)
    assert bucket.wait_s(1, 1e6) > 0.0


def test_a_clock_that_stands_still_gives_nothing_away() -> None:
    bucket = TokenBucket(1000)
    bucket.spend(1000, 5.0)
    for _ in range(10):
        assert bucket.wait_s(1000, 5.0) == pytest.approx(1.0)


def test_another_rate_takes_effect_at_once() -> None:
    bucket = TokenBucket(1000)
    bucket.spend(2000, 0.0)
    bucket.set_rate(10_000, 0.0)
    assert bucket.wait_s(1000, 0.0) == pytest.approx(0.2)
    bucket.set_rate(0, 0.1)
    assert bucket.wait_s(1 << 30, 0.1) == 0.0
    bucket.set_rate(500, 9.0)
    assert bucket.wait_s(500, 9.0) == 0.0
    assert bucket.rate_bytes_s == 500


@given(
    st.integers(64, 1 << 20),
    st.lists(st.tuples(st.integers(1, 1 << 21), st.floats(0.0, 3.0)), min_size=1, max_size=60),
)
def test_never_above_the_rate_by_more_than_a_burst_and_a_message(
    rate: int, messages: list[tuple[int, float]]
) -> None:
    bucket, now_s, sent = TokenBucket(rate), 0.0, 0
    for size, idle_s in messages:
        now_s += idle_s
        wait_s = bucket.wait_s(size, now_s)
        # As long as it says, and no longer: a sender that comes back then is let through.
        now_s += wait_s
        assert bucket.wait_s(size, now_s) <= 1e-6 * (1.0 + now_s)
        bucket.spend(size, now_s)
        sent += size
        assert sent <= rate * (now_s + BURST_S) + size + 1.0
