"""The time that a copy still takes is judged by the pace of its session."""

from __future__ import annotations

import pytest

from site_primary.progress import Progress


def test_the_rest_takes_as_long_as_it_does_at_the_pace_so_far() -> None:
    progress = Progress()
    progress.begin(100.0, 1000)
    assert progress.eta_s(110.0, 3000, 500) == pytest.approx(2.5)


def test_without_a_pace_nothing_is_said() -> None:
    progress = Progress()
    progress.begin(100.0, 1000)
    assert progress.eta_s(100.5, 2000, 500) is None
    assert progress.eta_s(110.0, 1000, 500) is None


def test_nothing_left_takes_no_time() -> None:
    assert Progress().eta_s(1.0, 0, 0) == 0.0
