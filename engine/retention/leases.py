"""Leases: cuts that someone needs for a while, by name (`export:7`, `peer:par`, `job:…`).

A durable lease survives a restart; it is written before `hold` returns. Others end with the daemon, as do
those who asked for them.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.group.site_state import SiteState
from protocol.positions import Cut


class Leases:
    """One group's leases. `require` raises Trimmed for a cut that cannot be read any more."""

    def __init__(self, group: str, state: SiteState, require: Callable[[Cut], None]) -> None:
        self._group = group
        self._state = state
        self._require = require
        self._cuts: dict[str, Cut] = {}
        self._durable: set[str] = set()
        self._last = 0

    def load(self) -> None:
        """Take up the durable ones."""
        self._cuts |= self._state.leases(self._group)
        self._durable = set(self._cuts)

    def hold(self, name: str, cut: Cut, *, durable: bool = False, end_utc_ns: int | None = None) -> None:
        """Keep `cut` readable under that name, in place of what the name held before. Trimmed. A durable one
        may have an end: engine.retention.timed_leases sees to it."""
        self._require(cut)
        if durable:
            self._state.put_lease(self._group, name, cut, end_utc_ns)
            self._durable.add(name)
        self._cuts[name] = cut

    def take(self, kind: str, cut: Cut) -> str:
        """Keep `cut` under a new name of a kind; returns the name. Trimmed."""
        self._last += 1
        name = f"{kind}:{self._last}"
        self.hold(name, cut)
        return name

    def release(self, *names: str) -> None:
        """Let go, of all by one commit at most; a name not held is fine. FarshoreError or OSError: a durable
        one comes back with a restart, unless it is released again before."""
        durable = self._durable.intersection(names)
        for name in names:
            self._cuts.pop(name, None)
        if durable:
            self._state.remove_leases(self._group, durable)
            self._durable -= durable

    def renamed(self, name: str, new: str) -> None:
        """A durable lease has another name in the site's state."""
        if name in self._cuts and name != new:
            self._cuts[new] = self._cuts.pop(name)
            self._durable.discard(name)
            self._durable.add(new)

    def get(self, name: str) -> Cut | None:
        """The cut held under a name."""
        return self._cuts.get(name)

    def holders(self, cut: Cut) -> list[str]:
        """Under which names a cut is held."""
        return sorted(name for name, held in self._cuts.items() if held == cut)

    def cuts(self) -> set[Cut]:
        """Every cut held."""
        return set(self._cuts.values())
