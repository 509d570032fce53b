"""C11: events have numbers and bounds, and nobody can push out what matters."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

import pytest
import structlog

from daemon.event_log import ENDS, ERRORS, WARNINGS, EventLog, weight_of
from daemon.logs import LineLimit
from engine.ports.clock import SystemClock, Uptime
from protocol.limits import (
    EVENTS_KEPT_MAX,
    EVENTS_OF_A_KIND_MIN,
    EVENTS_REPEATED_MAX,
    EVENTS_REPEATED_SPAN_S,
    LOG_KINDS_MAX,
    LOG_LINES_OF_A_KIND_MAX,
    LOG_LINES_SPAN_S,
)


class Clock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def utc_ns(self) -> int:
        return int(self.now_s * 1e9)

    def monotonic(self) -> float:
        return self.now_s

    def uptime(self) -> Uptime:
        return Uptime("boot", int(self.now_s * 1e9))

    def call_soon(self, callback: Callable[[], None]) -> Timer:
        return self.call_later(0.0, callback)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        heapq.heappush(self._due, (self.now_s + delay_s, len(self._due), callback))
        return Timer()

    def pass_s(self, span_s: float) -> None:
        self.now_s += span_s
        while self._due and self._due[0][0] <= self.now_s:
            heapq.heappop(self._due)[2]()


class Timer:
    """Never cancelled here."""

    def cancel(self) -> None:
        raise NotImplementedError


def kinds(log: EventLog) -> list[str]:
    return [event.kind for event in log.since(0, 2 * EVENTS_KEPT_MAX)[0]]


def test_ten_thousand_events_are_not_displaced_by_bad_messages() -> None:
    clock = Clock()
    log = EventLog(clock)
    for number in range(EVENTS_KEPT_MAX - 100):
        log.emit(f"kind.{number % 30}", group="g")
    for _ in range(20_000):
        log.emit("peer.bad_message", object="par", error="nonsense")
    found = kinds(log)
    assert found.count("peer.bad_message") == EVENTS_REPEATED_MAX
    assert len(found) == EVENTS_KEPT_MAX - 100 + EVENTS_REPEATED_MAX
    clock.pass_s(EVENTS_REPEATED_SPAN_S)
    last = log.since(None, 1)[0][0]
    assert last.kind == "peer.bad_message"
    assert f"and_as_many_before {20_000 - EVENTS_REPEATED_MAX - 1}" in last.message
    # Another span begins with the next one; another peer has its own.
    log.emit("peer.bad_message", object="par")
    log.emit("peer.bad_message", object="rom")
    assert kinds(log).count("peer.bad_message") == EVENTS_REPEATED_MAX + 3


def test_a_kind_that_comes_often_displaces_itself() -> None:
    log = EventLog(Clock())
    for number in range(2000):
        log.emit("rare", object=str(number))
    for number in range(3 * EVENTS_KEPT_MAX):
        log.emit("often", object=str(number))
    found = kinds(log)
    assert len(found) == EVENTS_KEPT_MAX
    assert found.count("rare") == 2000
    # A kind that has less than its share gets room from the one that has most.
    for number in range(EVENTS_OF_A_KIND_MIN):
        log.emit("new", object=str(number))
    found = kinds(log)
    assert (found.count("rare"), found.count("new")) == (2000, EVENTS_OF_A_KIND_MIN)
    assert len(found) == EVENTS_KEPT_MAX


def test_many_objects_are_counted_together_in_the_end() -> None:
    clock = Clock()
    log = EventLog(clock)
    for number in range(50_000):
        log.emit("peer.bad_message", object=f"par{number}")
    assert len(log._repeats) <= 1025
    clock.pass_s(EVENTS_REPEATED_SPAN_S)
    assert len(log._repeats) == 0


def test_who_follows_is_told_what_is_missing() -> None:
    log = EventLog(Clock())
    for number in range(EVENTS_KEPT_MAX + 10):
        log.emit("one", object=str(number))
    found, following, missed = log.since(5, 3)
    assert ([event.seq for event in found], following, missed) == ([11, 12, 13], 13, True)
    assert log.since(10, 1)[2] is False
    assert log.since(None, 2)[1] == EVENTS_KEPT_MAX + 10
    assert log.since(EVENTS_KEPT_MAX + 10, 5) == ([], EVENTS_KEPT_MAX + 10, False)


def test_lines_of_one_kind_are_limited_and_counted() -> None:
    clock = Clock()
    limit = LineLimit(clock.monotonic)

    def lines(kind: str, count: int) -> int:
        written = 0
        for _ in range(count):
            try:
                limit(None, "info", {"event": kind})
                written += 1
            except structlog.DropEvent:
                pass
        return written

    assert lines("nbd.refused", 3 * LOG_LINES_OF_A_KIND_MAX) == LOG_LINES_OF_A_KIND_MAX
    assert lines("site.ready", 1) == 1
    clock.pass_s(LOG_LINES_SPAN_S)
    assert limit(None, "info", {"event": "nbd.refused"})["left_out"] == 2 * LOG_LINES_OF_A_KIND_MAX
    assert "left_out" not in limit(None, "info", {"event": "nbd.refused"})
    assert sum(lines(f"kind {number}", 1) for number in range(2 * LOG_KINDS_MAX)) >= LOG_KINDS_MAX
    assert len(limit._spans) <= LOG_KINDS_MAX + 1


def test_the_end_of_what_a_person_was_told_is_as_important_as_that_was() -> None:
    log = EventLog(Clock())
    for kind in ENDS:
        log.emit(kind, group="g", object="x")
    log.emit("peer.silent", object="b", resolved=True)
    found, _, _ = log.since(None, 100)
    assert all((event.level, event.resolved) == ("info", True) for event in found)
    assert all(weight_of(event) != "info" for event in found)
    assert set(ENDS.values()) <= ERRORS | WARNINGS
    log.emit("damage.mended", group="g", places=1, left=2)
    assert not log.since(None, 1)[0][0].resolved


def test_who_is_stopped_as_news_comes_is_stopped() -> None:
    """`asyncio.wait_for` of Python 3.11 lost the cancellation: a site that stopped waited for its relay."""

    async def story() -> None:
        log = EventLog(SystemClock(asyncio.get_running_loop()))
        waiting = asyncio.get_running_loop().create_task(log.wait_for_news(30.0))
        await asyncio.sleep(0.01)
        log.emit("group.fenced", group="g")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(story())
