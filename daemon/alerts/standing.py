"""Which conditions are new, and which are over: each is said once at either end.

What is looked at together is a scope: what was raised in it and is not found there again is over, and nothing
is said of scopes that were not looked at. What the last run of the daemon said stands on (`take_up`): it is
not said again, and its end is. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from math import inf

from daemon.alerts.conditions import HOLD_S, KINDS, Condition, scope_of
from engine.peering.peer_clocks import CLOCK_RIGHT, CLOCK_SKEW
from protocol.commands.event import EventInfo

# What stood at the last stop has to be found again within: a peer is called silent after 6 s.
SETTLE_S = 20.0
_OF_CLOCKS = frozenset({CLOCK_SKEW, CLOCK_RIGHT})


@dataclass(slots=True)
class _Seen:
    condition: Condition
    since_s: float
    said: bool = False
    stays_until_s: float = -inf


@dataclass(frozen=True, slots=True)
class Change:
    """A condition that began, or that is over after `lasted_s`."""

    condition: Condition
    over: bool
    lasted_s: float


class Standing:
    """The conditions that stand."""

    def __init__(self, hold_s: Mapping[str, float] = HOLD_S) -> None:
        self._hold_s = hold_s
        self._seen: dict[str, dict[tuple[str, str, str], _Seen]] = {}  # by scope

    def take_up(self, scope: str, condition: Condition, stood_s: float, now_s: float) -> None:
        """What was said by the last run, `stood_s` ago, stands until it is not found `SETTLE_S` from now."""
        seen = _Seen(condition, now_s - stood_s, said=True, stays_until_s=now_s + SETTLE_S)
        self._seen.setdefault(scope, {})[condition.key] = seen

    def look(self, scope: str, found: Iterable[Condition], now_s: float) -> list[Change]:
        """What has changed in a scope, now that these are all that there is."""
        standing = self._seen.setdefault(scope, {})
        conditions = {each.key: each for each in found}
        changes = [
            Change(seen.condition, over=True, lasted_s=now_s - seen.since_s)
            for key in sorted(standing.keys() - conditions.keys())
            if now_s >= standing[key].stays_until_s and (seen := standing.pop(key)).said
        ]
        for key, condition in conditions.items():
            seen = standing.setdefault(key, _Seen(condition, now_s))
            if not seen.said and now_s - seen.since_s >= self._hold_s.get(condition.kind, 0.0):
                seen.said = True
                changes.append(Change(condition, over=False, lasted_s=0.0))
        if not standing:
            del self._seen[scope]
        return changes

    def said(self) -> Iterator[Condition]:
        """Those that stand and were said."""
        for standing in self._seen.values():
            yield from (seen.condition for seen in standing.values() if seen.said)

    def keep(self, is_there: Callable[[str], bool], now_s: float) -> list[Change]:
        """Scopes that are there no more are gone, and with them what stood there."""
        gone = [scope for scope in self._seen if not is_there(scope)]
        return [change for scope in gone for change in self.look(scope, (), now_s)]


def left_standing(events: Iterable[EventInfo], now_s: float) -> Iterator[tuple[str, Condition, float]]:
    """Of a site's events, oldest first, what they say is wrong and did not take back: its scope, and for how
    many seconds it stands. `now_s`: of the epoch."""
    newest: dict[tuple[str, str, str], tuple[str, Condition, float]] = {}
    for event in events:
        what = KINDS.get(event.kind)
        if what is None or event.site:
            continue
        group = event.group or ""
        condition = Condition(kind=event.kind, group=group, subject="" if group else event.object)
        newest.pop(condition.key, None)
        if not event.resolved:
            newest[condition.key] = scope_of(what, group), condition, _age_s(event, now_s)
    yield from newest.values()


def _age_s(event: EventInfo, now_s: float) -> float:
    with suppress(ValueError):  # a file that somebody wrote into
        return max(0.0, now_s - datetime.fromisoformat(event.time).timestamp())
    return 0.0


def clocks_left_wrong(events: Iterable[EventInfo]) -> set[str]:
    """The same of peers' clocks: names of peers."""
    wrong = {event.object: event.kind == CLOCK_SKEW for event in events if event.kind in _OF_CLOCKS}
    return {peer for peer, is_wrong in wrong.items() if is_wrong}
