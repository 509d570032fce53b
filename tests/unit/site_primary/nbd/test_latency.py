"""How long hosts wait, in buckets."""

from __future__ import annotations

from site_primary.nbd.latency import BUCKETS_S, Histogram


def test_requests_of_a_turn_count_together() -> None:
    histogram = Histogram()
    histogram.add(0.0001, 32)  # at an end: inside
    histogram.add(0.0002, 1)
    histogram.add(60.0, 2)
    assert histogram.counts == [32, 1, *[0] * (len(BUCKETS_S) - 2), 2]
    assert abs(histogram.sum_s - 120.0034) < 1e-9


def test_the_ends_ascend() -> None:
    assert list(BUCKETS_S) == sorted(set(BUCKETS_S))
