"""What one site of a pair tells the other of its events, so that a person who looks at either knows.

Each asks the other, every few seconds and off the data path, for what is new about the groups they share.
Told are warnings, errors and their ends; not what both sites see by themselves, nor what was told by a peer.
A peer is believed no more than a wire is: only kinds that are known here are taken in, they are counted like
everything that a peer can cause, and their level is this site's.

How far a peer was heard is kept in the site's state, and numbers of events go on over restarts: whichever of
the two restarts, or is away meanwhile, each event is told once. What was taken in just before a kill may come
twice.

    news    site id    row (random number of that site's start, number of the event heard last)

A site of an earlier version does not answer: it is asked again later and later, at last every `MUTE_MAX_S`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import suppress

from daemon.event_log import ERRORS, FROM_OUTSIDE, WARNINGS, EventLog
from engine.group.site_state import SiteState
from engine.peering.peer_requests import PeerRequests
from engine.ports.clock import Clock
from protocol.commands.event import EventInfo
from protocol.errors import FarshoreError
from protocol.limits import NEWS_FIELDS_MAX, NEWS_ROWS_MAX, NEWS_TEXT_CHARS_MAX
from protocol.peer_requests import AskNews, News, NewsRow, news_payload
from protocol.positions import POSITION_MAX
from protocol.rows import pack_row
from protocol.wire import RowType

TABLE = "news"
ASK_S = 3.0
# What began as the pair was made, before the first question.
FIRST_S = 60.0
MUTE_S = 10.0
MUTE_MAX_S = 600.0
SEEN_BY_BOTH = FROM_OUTSIDE | {
    "backup.missed",
    "pair.diverged",
    "pair.state",
    "pair.suspended",
    "peer.silent",
}
# Seen by both, each by limits of its own: told are those that the other does not say itself.
BY_LIMITS = frozenset({"backup.old", "pair.lagging"})
# Of the site, not of a group: a full disk is about to concern the peer; a hook that is not thawed holds hosts
# still, whichever group it was for; and a site that cannot tell people needs another one that does.
TOLD_OF_SITE = frozenset({"disk.filling", "hook.thaw_failed", "notify.failing"})
# Not wrong, but what a person at the other site waits for.
TOLD_TOO = frozenset(
    {"damage.mended", "drill.ok", "group.came_back", "group.mended", "pair.accepting", "pair.sync_again"}
)
KNOWN = (ERRORS | WARNINGS | TOLD_TOO) - SEEN_BY_BOTH
_HEARD = RowType(tuple[int, int])
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
_TAKEN = frozenset({"kind", "self", "event", "level", "timestamp", "group", "object", "position", "site"})


def check_row(key: bytes, value: bytes) -> None:
    """Whether it is one of how far a peer was heard. RemoteProtocolError or ValueError."""
    key.decode()
    if not all(0 <= each <= POSITION_MAX for each in _HEARD.decode(value)):
        raise ValueError("no number of a start, or of an event")


def is_told(event: EventInfo) -> bool:
    """Whether the peer is to know."""
    if event.site or event.kind not in KNOWN or not (event.group or event.kind in TOLD_OF_SITE):
        return False
    return event.level != "info" or event.resolved or event.kind in TOLD_TOO


# What else is done with an event that was taken in: peer, kind, fields.
TakeIn = Callable[[str, str, Mapping[str, object]], None]


def nothing_more(_peer: str, _kind: str, _fields: Mapping[str, object]) -> None:
    """It is an event, and that is all."""


class NewsDesk:
    """Answers peers. `run` is a random number of this start; `shares` says whether a group is paired with a
    peer."""

    def __init__(self, events: EventLog, run: int, shares: Callable[[str, str], bool]) -> None:
        self._events = events
        self._run = run
        self._first = events.last
        self._shares = shares

    def answer(self, peer: str, ask: AskNews) -> tuple[News, bytes]:
        """What is new since the peer asked last; for one that never did, what has just happened."""
        last = self._events.last
        rows: list[NewsRow] = []
        for event in self._events.newer(self._since(ask)):
            if is_told(event) and (not event.group or self._shares(event.group, peer)):
                rows.append(_row(event))
                if len(rows) == NEWS_ROWS_MAX:
                    last = event.seq
                    break
        return News(session=ask.session, run=self._run, next=last), news_payload(rows)

    def _since(self, ask: AskNews) -> int:
        if not ask.run:
            return self._events.before(FIRST_S)
        if ask.run == self._run or ask.since <= self._first:
            return ask.since
        return self._first  # this site's events were lost, and with them the count


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
    """Asks peers. `site_id_of` a peer by its name: what was heard is kept by that, as names change. `take_in`
    is told of each event."""

    def __init__(
        self,
        events: EventLog,
        clock: Clock,
        state: SiteState,
        site_id_of: Callable[[str], str],
        take_in: TakeIn = nothing_more,
    ) -> None:
        self._more = take_in
        self._events = events
        self._clock = clock
        self._state = state
        self._site_id_of = site_id_of
        self._heard = {key.decode(): _HEARD.decode(value) for key, value in state.notes(TABLE).items()}
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
        site_id = self._site_id_of(peer)
        run, since = self._heard.get(site_id, (0, 0))
        try:
            async with asyncio.timeout(ASK_S):
                news, rows = await requests.news(run, since)
        except (FarshoreError, TimeoutError):
            for_s = min(4 * self._mute[peer][0], MUTE_MAX_S) if peer in self._mute else MUTE_S
            self._mute[peer] = for_s, self._clock.monotonic() + for_s
            return
        self._mute.pop(peer, None)
        self._heard[site_id] = news.run, news.next
        for row in rows:
            self._take_in(peer, row)
        if rows or news.run != run:
            self._keep(site_id)

    def _keep(self, site_id: str) -> None:
        with suppress(OSError):  # a full disk: after a restart some is told again
            self._state.put_notes(TABLE, {site_id.encode(): pack_row(self._heard[site_id])})

    def heard_again(self, peer: str) -> None:
        """It was silent, so perhaps it was another version: ask it at once."""
        self._mute.pop(peer, None)

    def _take_in(self, peer: str, row: NewsRow) -> None:
        time, kind, group, subject, position, told = row
        if kind not in KNOWN or (kind in BY_LIMITS and self._is_known(peer, kind, group, dict(told))):
            return
        named = {"group": group, "object": subject, "position": position}
        fields: dict[str, object] = {key: value for key, value in named.items() if value}
        fields |= {key: value for key, value in told if _FIELD.fullmatch(key) and key not in _TAKEN}
        fields["happened"] = time
        self._more(peer, kind, fields)
        self._events.emit(kind, site=peer, **fields)

    def _is_known(self, peer: str, kind: str, group: str, told: Mapping[str, object]) -> bool:
        """Whether this site says so itself, or was not told of what is over."""
        if told.get("resolved") is True:
            return not self._events.stands(kind, group, peer)
        return self._events.stands(kind, group, None)
