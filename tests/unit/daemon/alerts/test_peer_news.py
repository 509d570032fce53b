"""What a site tells its peer, and what it believes of what it is told."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.alerts.peer_news import FIRST_S, NewsDesk, PeerNews
from daemon.event_log import EventLog
from engine.group.site_state import SITE_TABLES, SiteState
from engine.ports.clock import Uptime
from protocol.errors import RemoteProtocolError, Unreachable
from protocol.limits import NEWS_ROWS_MAX, NEWS_TEXT_CHARS_MAX
from protocol.peer_requests import AskNews, News, NewsRow, news_payload, read_news
from tests.sim.sim_store import SimStore, StoreFile
from tests.unit.daemon.test_control import in_loop

TIME = "2026-07-03T00:45:00Z"
ABOUT: dict[str, Any] = {"session": 7, "group": "g", "group_id": "0" * 16}


class Clock:
    """Time that the test moves; nothing is called back."""

    now_s = 0.0

    def utc_ns(self) -> int:
        return int(self.now_s * 1e9)

    def monotonic(self) -> float:
        return self.now_s

    def uptime(self) -> Uptime:
        return Uptime("boot", 0)

    def call_soon(self, callback: Any) -> Any:
        raise NotImplementedError

    def call_later(self, delay_s: float, callback: Any) -> Any:
        return None


def told(desk: NewsDesk, run: int, since: int, peer: str = "b") -> tuple[News, tuple[NewsRow, ...]]:
    news, payload = desk.answer(peer, AskNews(**ABOUT, run=run, since=since))
    return news, read_news(payload)


@pytest.fixture
def log() -> EventLog:
    return EventLog(Clock())


def desk_of(log: EventLog) -> NewsDesk:
    return NewsDesk(log, 99, lambda group, peer: (group, peer) == ("g", "b"))


def test_a_peer_is_told_what_is_wrong_with_what_it_shares_and_nothing_else(log: EventLog) -> None:
    desk = desk_of(log)
    first, nothing = told(desk, 0, 0)
    assert (first.run, first.next, nothing) == (99, 0, ())
    log.emit("damage.found", group="g", object="g/v", places=3)
    log.emit("damage.found", group="other", places=1)
    log.emit("backup.created", group="g")
    log.emit("hook.thaw_failed", object="db")
    log.emit("peer.silent", object="b")
    log.emit("row.set_aside", object="x")
    log.emit("disk.filling", free_bytes=5)
    log.emit("journal.filling", group="g", resolved=True)
    log.emit("group.fenced", group="g", site="b")
    news, rows = told(desk, 99, first.next)
    assert [row[1] for row in rows] == ["damage.found", "hook.thaw_failed", "disk.filling", "journal.filling"]
    assert ("places", 3) in rows[0][-1]
    assert told(desk, 99, news.next)[1] == ()


def test_one_that_heard_an_earlier_start_is_told_what_it_has_not_heard(log: EventLog) -> None:
    for kind in ("group.damaged", "hosts.cut_off"):  # kept from before
        log.emit(kind, group="g")
    desk = desk_of(log)
    log.emit("group.fenced", group="g")
    assert [row[1] for row in told(desk, 12345, 1)[1]] == ["hosts.cut_off", "group.fenced"]
    assert [row[1] for row in told(desk, 12345, 2)[1]] == ["group.fenced"]
    # A number that this site has never given: its events are gone, and the count began anew.
    assert [row[1] for row in told(desk, 12345, 800)[1]] == ["group.fenced"]


def test_one_that_never_asked_is_told_what_has_just_happened() -> None:
    clock = Clock()
    log = EventLog(clock)
    desk = desk_of(log)
    clock.now_s = 1000.0
    log.emit("group.fenced", group="g")
    clock.now_s += FIRST_S
    log.emit("drill.old", group="g")
    clock.now_s += FIRST_S / 2
    news, rows = told(desk, 0, 0)
    assert (news.next, [row[1] for row in rows]) == (2, ["drill.old"])
    clock.now_s += FIRST_S
    assert told(desk, 0, 0)[1] == ()


def test_what_is_not_told_holds_nothing_up(log: EventLog) -> None:
    desk = desk_of(log)
    for _ in range(10 * NEWS_ROWS_MAX):
        log.emit("command.done", group="g")
    log.emit("group.fenced", group="g")
    news, rows = told(desk, 99, 0)
    assert (news.next, [row[1] for row in rows]) == (log.last, ["group.fenced"])


@in_loop
async def test_how_far_a_peer_was_heard_outlasts_a_restart(log: EventLog) -> None:
    state = SiteState(SimStore(StoreFile(), SITE_TABLES))
    row: NewsRow = (TIME, "group.fenced", "g", "", "", ())
    await news_of(log, state=state).ask({"b": Asked(row)})  # type: ignore[dict-item]
    again = Asked()
    await news_of(log, state=state).ask({"b": again})  # type: ignore[dict-item]
    assert again.calls == [(5, 40)]


def test_a_great_deal_comes_in_pieces(log: EventLog) -> None:
    desk = desk_of(log)
    for number in range(NEWS_ROWS_MAX + 1):
        log.emit("damage.found", group="g", object="x" * 9000, places=number)
    news, rows = told(desk, 99, 0)
    assert len(rows) == NEWS_ROWS_MAX
    assert len(rows[0][3]) == NEWS_TEXT_CHARS_MAX
    assert len(told(desk, 99, news.next)[1]) == 1
    with pytest.raises(RemoteProtocolError):
        read_news(news_payload([*rows, rows[0]]))


class Asked:
    """A peer's answers."""

    def __init__(self, *rows: NewsRow) -> None:
        self.rows = rows
        self.calls: list[tuple[int, int]] = []
        self.mute = False

    async def news(self, run: int, since: int) -> tuple[News, tuple[NewsRow, ...]]:
        self.calls.append((run, since))
        if self.mute:
            raise Unreachable("b does not answer")
        return News(session=1, run=5, next=40), self.rows


def news_of(log: EventLog, clock: Clock | None = None, state: SiteState | None = None) -> PeerNews:
    state = state or SiteState(SimStore(StoreFile(), SITE_TABLES))
    return PeerNews(log, clock or Clock(), state, lambda peer: f"id of {peer}")


@in_loop
async def test_what_is_told_is_an_event_of_the_peer_by_this_sites_level(log: EventLog) -> None:
    row: NewsRow = (
        "2026-07-03T00:45:00Z",
        "damage.found",
        "g",
        "g/v",
        "",
        (("places", 3), ("resolved", False)),
    )
    forged: NewsRow = (
        "2026-07-03T00:45:00Z",
        "group.damaged",
        "g",
        "",
        "",
        (("kind", "x"), ("event", "x"), ("UP", 1), ("ok", 1)),
    )
    unknown: NewsRow = (TIME, "made.up", "g", "", "", ())
    by_both: NewsRow = (TIME, "peer.silent", "", "b", "", ())
    asked = Asked(row, forged, unknown, by_both)
    news = news_of(log)
    await news.ask({"b": asked})  # type: ignore[dict-item]
    found, _, _ = log.since(None, 10)
    assert [(event.kind, event.level, event.site) for event in found] == [
        ("damage.found", "error", "b"),
        ("group.damaged", "error", "b"),
    ]
    assert found[0].site == "b"
    assert set(found[1].fields) == {"ok", "happened"}
    await news.ask({"b": asked})  # type: ignore[dict-item]
    assert asked.calls == [(0, 0), (5, 40)]


@in_loop
async def test_what_both_judge_by_their_own_limits_is_told_unless_it_is_said_here_too(
    log: EventLog,
) -> None:
    def row(group: str, resolved: bool) -> NewsRow:
        return (TIME, "pair.lagging", group, "", "", (("resolved", True),) if resolved else ())

    log.emit("pair.lagging", group="g")
    rows = [row(group, resolved) for resolved in (False, True) for group in ("g", "h")]
    await news_of(log).ask({"b": Asked(*rows)})  # type: ignore[dict-item]
    found, _, _ = log.since(1, 10)
    assert [(event.site, event.group, event.resolved) for event in found] == [
        ("b", "h", False),
        ("b", "h", True),
    ]


@in_loop
async def test_one_that_does_not_answer_is_asked_later_and_later(log: EventLog) -> None:
    clock, asked = Clock(), Asked()
    news, asked.mute = news_of(log, clock), True
    times = []
    for second in range(2000):
        clock.now_s = float(second)
        before = len(asked.calls)
        await news.ask({"b": asked})  # type: ignore[dict-item]
        if len(asked.calls) > before:
            times.append(second)
    assert times == [0, 10, 50, 210, 810, 1410]
    news.heard_again("b")
    await news.ask({"b": asked})  # type: ignore[dict-item]
    assert len(asked.calls) == 7


@in_loop
async def test_a_peer_cannot_push_out_what_matters(log: EventLog) -> None:
    rows: list[NewsRow] = [(TIME, "damage.found", "g", "same", "", ())] * NEWS_ROWS_MAX
    news = news_of(log)
    for _ in range(100):
        await news.ask({"b": Asked(*rows)})  # type: ignore[dict-item]
    assert log.last < 50
