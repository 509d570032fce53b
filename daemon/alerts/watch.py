"""Looks at a site once a second, and makes an event of what has become wrong, or is well again.

Groups are looked at in turn, a bounded number of them at a time, some of them between two looks at all else:
nothing here grows with a site's groups. After the process itself stood still, peers get a while to be heard
before they are called silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from itertools import chain

from daemon.alerts.conditions import (
    CERTIFICATE,
    COPIES,
    DISK,
    PAIR,
    PEERS,
    Condition,
    certificate_conditions,
    copy_conditions,
    disk_conditions,
    group_of,
    pair_conditions,
    peer_conditions,
    scope_of,
)
from daemon.alerts.figures import (
    NS_PER_S,
    certificate_left_days,
    copy_figures,
    pair_figures,
    peer_figures,
)
from daemon.alerts.lost_pairs import LostPairs
from daemon.alerts.peer_news import PeerNews
from daemon.alerts.standing import Change, Standing, clocks_left_wrong, left_standing
from daemon.alerts.told_drills import hear_of_drill
from daemon.event_log import level_of
from daemon.site import Site
from engine.group.compartment import attempt, attempt_async
from engine.group.group import Group
from engine.peering.peer_clocks import CLOCK_SKEW
from engine.peering.peer_requests import PeerRequests
from protocol.errors import FarshoreError

# Each look is at so many groups: of more, there are looks at groups alone in between, up to a bound.
LOOK_EVERY_S = 1.0
LOOKS_MAX = 4
GROUPS_A_LOOK = 25
ASK_EVERY_S = 2.0
STOOD_STILL_S = 3.0
# Backups and drills are looked up in tables: less often.
COPIES_EVERY_S = 30.0
NEXT_STEPS = {
    "peer.silent": "does the peer's daemon run, is the link up? `farshore status` at both; if the site is "
    "lost, `farshore takeover --from PEER`",
    "pair.suspended": "`farshore pair show GROUP` names the reason",
    "pair.diverged": "`farshore branch list GROUP`, then `farshore pair resync GROUP --source local` or "
    "`--source remote`",
    "backup.missed": "`farshore schedule list` says what failed",
    "drill.missed": "`farshore drill due` runs it, by root: is farshore-drill@SITE.timer, or cron, still on?",
    **dict.fromkeys(
        ("cert.ends", "cert.ends_soon"), "`farshore site cert init` renews it; hosts stay connected"
    ),
    "disk.filling": "make room, or lower `window_s` or `journal_limit_bytes`",
}


class AlertWatch:
    """One site's. `start` on its loop; `close` before the site stops."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._standing = Standing()
        self._take_up()
        self._news = PeerNews(
            site.events,
            site.clock,
            site.state,
            lambda peer: site.peers.get(peer).site_id,
            partial(hear_of_drill, site),
        )
        self._lost = LostPairs(site)
        self._tasks: list[asyncio.Task[None]] = []
        self._silent: frozenset[str] = frozenset()
        self._waiting_since: dict[str, float] = {}  # by peer, monotonic: since it was first looked at
        self._looked_s = site.clock.monotonic()
        self._turn = 0  # of groups
        self._copies_at: dict[str, float] = {}  # by group, monotonic

    def _take_up(self) -> None:
        """What the last run said and did not take back."""
        site = self._site
        now_s, now_ns, events = site.clock.monotonic(), site.clock.utc_ns(), site.events.newer(0)
        for scope, condition, stood_s in left_standing(events, now_ns / NS_PER_S):
            self._standing.take_up(scope, condition, stood_s, now_s)
        site.pairs.clocks.take_up(clocks_left_wrong(events))

    def start(self) -> None:
        """Begin to look, and to ask peers."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._run(), name="alerts"),
            loop.create_task(self._hear(), name="alerts of peers"),
        ]

    def standing(self) -> list[Condition]:
        """What is wrong now."""
        site = self._site
        paired = {end.peer for _, end in site.pairs.ends()}
        wrong = [peer for peer in site.pairs.clocks.wrong() if peer in paired]
        return [*self._standing.said(), *(Condition(kind=CLOCK_SKEW, subject=peer) for peer in wrong)]

    def well(self) -> bool:
        """Whether nothing stands that a person must look at now."""
        site = self._site
        broken = bool(site.damaged or site.hooks.stuck()) or any(
            group.failed for group in site.groups.values()
        )
        return not broken and not any(level_of(each.kind, {}) == "error" for each in self._standing.said())

    async def close(self) -> None:
        """Stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            looks = max(1, min(-(-len(self._site.groups) // GROUPS_A_LOOK), LOOKS_MAX))
            for each in range(looks):
                attempt("alerts.defect", self.look_at_groups if each else self.look)
                await asyncio.sleep(LOOK_EVERY_S / looks)

    async def _hear(self) -> None:
        while True:
            await attempt_async("alerts.defect", self._news.ask(self._askable()))
            await attempt_async("alerts.defect", self._lost.ask())
            await asyncio.sleep(ASK_EVERY_S)

    def _askable(self) -> dict[str, PeerRequests]:
        """Peers that are heard, each with a group to ask through. One that only dials cannot be asked."""
        site, found = self._site, dict[str, PeerRequests]()
        for name, end in site.pairs.ends():
            if end.peer not in found and end.peer not in self._silent and end.heard_at is not None:
                with suppress(FarshoreError):
                    if site.peers.get(end.peer).endpoint:
                        found[end.peer] = site.ask_peer(name)
        return found

    def look(self) -> None:
        """Once, at the site and at the next groups."""
        if self._goes_on():
            self._look_at_site()
            self._look_at_next()

    def look_at_groups(self) -> None:
        """Once, at the next groups alone."""
        if self._goes_on():
            self._look_at_next()

    def _goes_on(self) -> bool:
        """False if the process stood still: what peers said meanwhile is read after this."""
        now_s = self._site.clock.monotonic()
        late_s, self._looked_s = now_s - self._looked_s, now_s
        return late_s <= STOOD_STILL_S

    def _look_at_next(self) -> None:
        now_s, groups = self._site.clock.monotonic(), self._site.groups
        for name in self._in_turn(sorted(groups)):
            if not (group := groups[name]).failed:
                attempt("alerts.defect", self._look_at, group, self._silent, now_s)

    def _look_at_site(self) -> None:
        """At its peers, and at what it has one of."""
        site = self._site
        now_s = site.clock.monotonic()
        peers = peer_figures(site, self._waiting_since)
        for peer in peers:
            self._waiting_since.setdefault(peer.peer, now_s)
        found = {peer.peer: list(peer_conditions(peer)) for peer in peers}
        self._say(PEERS, chain.from_iterable(found.values()))
        silent = frozenset(name for name, conditions in found.items() if conditions)
        for name in self._silent - silent:
            self._news.heard_again(name)
        self._silent = silent
        reserve_bytes = max((group.settings.reserve_bytes for group in site.groups.values()), default=0)
        self._say(DISK, disk_conditions(site.disk.free_bytes(), reserve_bytes))
        self._say(CERTIFICATE, certificate_conditions(certificate_left_days(site)))
        self._tell(self._standing.keep(self._is_there, now_s))

    def _is_there(self, scope: str) -> bool:
        name = group_of(scope)
        return not name or name in self._site.groups

    def _look_at(self, group: Group, silent: frozenset[str], now_s: float) -> None:
        site, limits, name = self._site, self._site.config.alerts, group.name
        self._say(scope_of(PAIR, name), pair_conditions(pair_figures(site, group, silent), limits))
        if now_s >= self._copies_at.get(name, 0.0):
            self._copies_at[name] = now_s + COPIES_EVERY_S
            self._say(scope_of(COPIES, name), copy_conditions(copy_figures(site, group), limits))

    def _in_turn(self, names: list[str]) -> list[str]:
        """The next ones, round and round."""
        begin = self._turn if self._turn < len(names) else 0
        self._turn = begin + GROUPS_A_LOOK
        return names[begin : self._turn]

    def _say(self, scope: str, found: Iterable[Condition]) -> None:
        self._tell(self._standing.look(scope, found, self._site.clock.monotonic()))

    def _tell(self, changes: Iterable[Change]) -> None:
        for change in changes:
            condition = change.condition
            fields: dict[str, object] = {}
            if condition.group:
                fields["group"] = condition.group
            if condition.subject:
                fields["object"] = condition.subject
            if change.over:
                fields |= {"resolved": True, "lasted_s": round(change.lasted_s, 1)}
            else:
                fields |= condition.fields
                said = NEXT_STEPS.get(condition.kind, "")
                said = said.replace("GROUP", condition.group or "GROUP")
                fields["next"] = said.replace("PEER", condition.subject or "PEER")
            self._site.events.emit(condition.kind, **fields)
