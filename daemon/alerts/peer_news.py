"""What one site of a pair tells the other of its events, so that a person who looks at either knows.

Each asks the other, every few seconds and off the data path, for what is new about the groups they share.
Told are warnings, errors and their ends; not what both sites see by themselves, nor what was told by a peer.
A peer is believed no more than a wire is: only kinds that are known here are taken in, they are counted like
everything that a peer can cause, and their level is this site's.

A site of an earlier version does not answer: it is asked again later and later, at last every `MUTE_MAX_S`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping

from daemon.event_log import ERRORS, FROM_OUTSIDE, WARNINGS, EventLog
from engine.peering.peer_requests import PeerRequests
from engine.ports.clock import Clock
from protocol.commands.event import EventInfo
from protocol.errors import FarshoreError
from protocol.limits import NEWS_FIELDS_MAX, NEWS_ROWS_MAX, NEWS_TEXT_CHARS_MAX
from protocol.peer_requests import AskNews, News, NewsRow, news_payload

ASK_S = 3.0
MUTE_S = 10.0
MUTE_MAX_S = 600.0
SEEN_BY_BOTH = FROM_OUTSIDE | {
    "backup.missed",
    "backup.old",
    "pair.diverged",
    "pair.lagging",
    "pair.state",
    "pair.suspended",
    "peer.silent",
}
# Of the site, not of a group: a full disk is about to concern the peer.
TOLD_OF_SITE = frozenset({"disk.filling"})
# Not wrong, but what a person at the other site waits for.
TOLD_TOO = frozenset(
    {"damage.mended", "group.came_back", "group.mended", "pair.accepting", "pair.sync_again"}
)
KNOWN = (ERRORS | WARNINGS | TOLD_TOO) - SEEN_BY_BOTH
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
_TAKEN = frozenset({"kind", "self", "event", "level", "timestamp", "group", "object", "position", "site"})


def is_told(event: EventInfo) -> bool:
    """Whether the peer is to know."""
    if event.site or event.kind not in KNOWN or not (event.group or event.kind in TOLD_OF_SITE):
        return False
    return event.level != "info" or event.resolved or event.kind in TOLD_TOO


class NewsDesk:
    """Answers peers. `run` is a random number of this start: event numbers begin anew with each; `shares`
    says whether a group is paired with a peer."""

    def __init__(self, events: EventLog, run: int, shares: Callable[[str, str], bool]) -> None:
        self._events = events
        self._run = run
        self._first = events.last
        self._shares = shares

    def answer(self, peer: str, ask: AskNews) -> tuple[News, bytes]:
        """What is new since the peer asked last: nothing for one that just started, everything of this start
        for one that heard an earlier one."""
        since = ask.since if ask.run == self._run else self._first if ask.run else self._events.last
        found: list[EventInfo] = []
        if since < self._events.last:
            found, since, _ = self._events.since(since, NEWS_ROWS_MAX)
        rows = [
            _row(event)
            for event in found
            if is_told(event) and (not event.group or self._shares(event.group, peer))
        ]
        return News(session=ask.session, run=self._run, next=since), news_payload(rows)


def _row(event: EventInfo) -> NewsRow:
    fields = [(key, _cut(value)) for key, value in event.fields.items()]
    return (
        event.time,
        event.kind,
        event.group or "",
        event.object[:NEWS_TEXT_CHARS_MAX],
        event.position[:NEWS_TEXT_CHARS_MAX],
        tuple(fields[:NEWS_FIELDS_MAX]),
    )


def _cut(value: str | int | float | bool | None) -> str | int | float | bool | None:
    return value[:NEWS_TEXT_CHARS_MAX] if isinstance(value, str) else value


class PeerNews:
    """Asks peers."""

    def __init__(self, events: EventLog, clock: Clock) -> None:
        self._events = events
        self._clock = clock
        self._heard: dict[str, tuple[int, int]] = {}  # by peer: its run, and the last number
        self._mute: dict[str, tuple[float, float]] = {}  # by peer: for how long, and until when

    async def ask(self, by_peer: Mapping[str, PeerRequests]) -> None:
        """Each of these peers once, through one of the groups that are shared with it."""
        now_s = self._clock.monotonic()
        await asyncio.gather(
            *(
                self._ask(peer, requests)
                for peer, requests in by_peer.items()
                if now_s >= self._mute.get(peer, (0.0, 0.0))[1]
            )
        )

    async def _ask(self, peer: str, requests: PeerRequests) -> None:
        run, since = self._heard.get(peer, (0, 0))
        try:
            news, rows = await asyncio.wait_for(requests.news(run, since), ASK_S)
        except (FarshoreError, TimeoutError):
            for_s = min(4 * self._mute[peer][0], MUTE_MAX_S) if peer in self._mute else MUTE_S
            self._mute[peer] = for_s, self._clock.monotonic() + for_s
            return
        self._mute.pop(peer, None)
        self._heard[peer] = news.run, news.next
        for row in rows:
            self._take_in(peer, row)

    def heard_again(self, peer: str) -> None:
        """It was silent, so perhaps it was another version: ask it at once."""
        self._mute.pop(peer, None)

    def _take_in(self, peer: str, row: NewsRow) -> None:
        time, kind, group, subject, position, told = row
        if kind not in KNOWN:
            return
        named = {"group": group, "object": subject, "position": position}
        fields: dict[str, object] = {key: value for key, value in named.items() if value}
        fields |= {key: value for key, value in told if _FIELD.fullmatch(key) and key not in _TAKEN}
        fields["happened"] = time
        self._events.emit(kind, site=peer, **fields)
