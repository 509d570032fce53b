"""Lines in the log: the first of a kind are said, the rest counted; one kind does not silence another."""

from __future__ import annotations

from collections.abc import Callable

from structlog.testing import capture_logs

from protocol.limits import NBD_LOG_LINES_MAX
from site_primary.nbd.log_budget import LogBudget


def test_a_flood_becomes_a_count() -> None:
    timers: list[Callable[[], None]] = []
    budget = LogBudget(lambda _, callback: timers.append(callback))
    with capture_logs() as lines:
        for at in range(10_000):
            budget.warning("nbd.garbage", client=str(at))
        budget.info("nbd.connected", client="c")
        assert len(lines) == NBD_LOG_LINES_MAX + 1
        assert lines[-1] == {"event": "nbd.connected", "client": "c", "log_level": "info"}
        assert len(timers) == 2
        for timer in timers:
            timer()
        assert lines[-1]["event"] == "nbd.not_logged"
        assert (lines[-1]["of"], lines[-1]["times"]) == ("nbd.garbage", 10_000 - NBD_LOG_LINES_MAX)
        budget.info("nbd.garbage", client="later")
    assert lines[-1]["client"] == "later"
