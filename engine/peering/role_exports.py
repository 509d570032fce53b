"""Exports that a change of role closes and opens.

closed by this site's operator (switchover, resync)   opened when the writing comes back here
closed because a peer wrote by a newer authority,     opened by an operator, one by one or with a takeover
or went on without what a detached site had written   here: it was the peer's word, and hosts hold caches
closed by an operator                                 opened by an operator

What a peer's word closes is closed by name, not only by volume: the peer writes from then on, and could end
a volume and make another of that name. The row of EVERY_VOLUME closes each one that exists by the time the
writing comes back; then each has a row of its own, and what is made here after that is open.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from typing import Protocol

from engine.group.group import Group
from engine.group.listeners import Emit
from engine.group.site_state import EVERY_VOLUME, SiteState
from engine.history.volumes import Volume

FENCED = "fenced: "


class ClosedBy(Enum):
    """Why a change of role closes exports; with the peer's name, the reason that is stored. What begins with
    FENCED is a peer's word."""

    OPERATOR = "written at "
    AUTHORITY = "fenced: a newer authority wrote at "
    RESYNC = "fenced: the pair went on from what was at "


class LiveExports(Protocol):
    """The exports of this site's live volumes."""

    def shut(self, group: Group, volume: Volume) -> None:
        """Close the connections to one."""

    def clients(self, group: Group, volume: Volume) -> list[str]:
        """Hosts connected to it."""

    def had_clients(self, group: Group, volume: Volume) -> bool:
        """Whether any host connected to it since this site started."""


class RoleExports:
    """Closed exports of one site's groups, each with who closed it."""

    def __init__(self, state: SiteState, exports: LiveExports, emit: Emit) -> None:
        self._state = state
        self._exports = exports
        self._emit = emit

    def close(self, group: Group, peer: str, *, by: ClosedBy = ClosedBy.OPERATOR) -> None:
        """Send every host away, and keep them out (invariant 10). Those that an operator had closed stay
        closed as they are."""
        volumes = list(group.volumes.at(group.spans()).values())
        for volume in volumes:
            self._exports.shut(group, volume)
        if self._state.closed(group.name, EVERY_VOLUME) is not None:
            return  # nothing was open, and what is closed for a peer's word stays so
        closed = [v.id for v in volumes if self._state.closed(group.name, v.id) is None]
        if by is not ClosedBy.OPERATOR:
            closed.append(EVERY_VOLUME)
        self._state.set_closed(group.name, closed, f"{by.value}{peer}")

    def open(self, group: Group, *, fenced_too: bool = False) -> None:
        """Those that only this site's own role moves had closed; with `fenced_too` also those that a peer's
        word had."""
        reasons = _reasons(self._state, group)
        ways = (ClosedBy.OPERATOR.value, FENCED) if fenced_too else (ClosedBy.OPERATOR.value,)
        names = {volume.id: name for name, volume in group.volumes.at(group.spans()).items()}
        open_volumes(self._state, group, [v for v in names if reasons.get(v, "").startswith(ways)])
        fenced = [names[v] for v in names if not fenced_too and reasons.get(v, "").startswith(FENCED)]
        if fenced:
            paths = " ".join(f"{group.name}/{name}" for name in sorted(fenced))
            self._emit(
                "group.not_online",
                group=group.name,
                error=f"fenced, offline until `farshore volume online G/V`: {paths}",
            )

    def connected(self, group: Group) -> int:
        """Hosts at the group's live volumes."""
        return sum(len(self._exports.clients(group, v)) for v in group.volumes.at(group.spans()).values())

    def say_cut_off(self, group: Group, peer: str, hosts: int, why: str) -> None:
        """A person must know that a peer cut hosts off; `hosts` were connected. All may be between two
        connections just then: whoever came since this site started wants to come back. Nobody is cut off
        from a volume that was closed before, or that no host ever connected to. To be called before
        `close`."""
        closed = _reasons(self._state, group)
        volumes = group.volumes.at(group.spans()).values()
        if any(v.id not in closed and self._exports.had_clients(group, v) for v in volumes):
            fields = {"group": group.name, "object": peer, "position": str(group.end)}
            self._emit("hosts.cut_off", **fields, hosts=hosts, reason=why)


def open_volumes(state: SiteState, group: Group, volumes: Collection[int]) -> None:
    """Open these (ids), by an operator's word or a role move. Others that only the row of EVERY_VOLUME closed
    have rows of their own from here on."""
    reasons: dict[int, str | None] = {**_reasons(state, group), EVERY_VOLUME: None}
    state.put_closed(group.name, reasons | dict.fromkeys(volumes))


def _reasons(state: SiteState, group: Group) -> dict[int, str]:
    """Why volumes that exist are closed, by id; without those that are open."""
    every = state.closed(group.name, EVERY_VOLUME)
    found = {}
    for volume in group.volumes.at(group.spans()).values():
        own = state.closed(group.name, volume.id)
        # A role move's row of before the peer's word is none of a volume that an operator closed.
        own_counts = own is not None and not own.startswith(ClosedBy.OPERATOR.value)
        reason = own if every is None or own_counts else every
        if reason is not None:
            found[volume.id] = reason
    return found
