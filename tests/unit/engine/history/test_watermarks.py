"""What a peer acknowledges is taken in only where it can be true."""

from __future__ import annotations

import pytest

from engine.history.watermarks import PeerMarks


def test_acknowledgements_move_both_marks() -> None:
    marks = PeerMarks(shipped=100)
    assert marks.acknowledge(50, 20)
    assert marks.acknowledge(100, 100)
    assert (marks.remote_written, marks.remote_durable) == (100, 100)


@pytest.mark.parametrize(
    ("written", "durable"),
    [(101, 50), (60, 61), (49, 20), (60, 19), (-1, -1)],
    ids=["more than was shipped", "durable past written", "written back", "durable back", "negative"],
)
def test_what_cannot_be_changes_nothing(written: int, durable: int) -> None:
    marks = PeerMarks(shipped=100, remote_written=50, remote_durable=20)
    assert not marks.acknowledge(written, durable)
    assert marks == PeerMarks(shipped=100, remote_written=50, remote_durable=20)
