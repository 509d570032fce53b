"""Which conditions are new, and which are over: each is said once at either end.

What is looked at together is a scope: what was raised in it and is not found there again is over, and nothing
is said of scopes that were not looked at. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from daemon.alerts.conditions import HOLD_S, Condition


@dataclass(slots=True)
class _Seen:
    condition: Condition
    since_s: float
    said: bool = False


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

    def look(self, scope: str, found: Iterable[Condition], now_s: float) -> list[Change]:
        """What has changed in a scope, now that these are all that there is."""
        standing = self._seen.setdefault(scope, {})
        conditions = {each.key: each for each in found}
        changes = [
            Change(seen.condition, over=True, lasted_s=now_s - seen.since_s)
            for key in standing.keys() - conditions.keys()
            if (seen := standing.pop(key)).said
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

    def keep(self, scopes: Collection[str], now_s: float) -> list[Change]:
        """Scopes other than these are gone, and with them what stood there."""
        gone = [scope for scope in self._seen if scope not in scopes]
        return [change for scope in gone for change in self.look(scope, (), now_s)]
