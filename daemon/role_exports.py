"""Exports that a change of role closes and opens.

closed by this site's operator (switchover, resync)   opened when the writing comes back here
closed because a peer wrote by a newer authority      opened by an operator, one by one or with a takeover
                                                      here: it was the peer's word, and hosts hold caches
closed by an operator                                 opened by an operator
"""

from __future__ import annotations

from daemon.exports import SiteExports
from engine.group import Emit, Group
from engine.site_state import SiteState

CLOSED_BY_ROLE = "written at "
FENCED = "fenced: a newer authority wrote at "


class RoleExports:
    """See the module's docstring."""

    def __init__(self, state: SiteState, exports: SiteExports, emit: Emit) -> None:
        self._state = state
        self._exports = exports
        self._emit = emit

    def close(self, group: Group, peer: str, *, fenced: bool = False) -> None:
        """Send every host away, and keep them out (invariant 10). Those that an operator had closed stay
        closed as they are."""
        volumes = list(group.volumes.at(group.spans()).values())
        for volume in volumes:
            self._exports.shut(group, volume)
        open_ = [v.id for v in volumes if self._state.closed(group.name, v.id) is None]
        self._state.set_closed(group.name, open_, f"{FENCED if fenced else CLOSED_BY_ROLE}{peer}")

    def open(self, group: Group, *, fenced_too: bool = False) -> None:
        """Those that only this site's own role moves had closed; with `fenced_too` also those that a peer's
        word had."""
        fenced = []
        for volume in group.volumes.at(group.spans()).values():
            reason = self._state.closed(group.name, volume.id) or ""
            if reason.startswith(CLOSED_BY_ROLE) or (fenced_too and reason.startswith(FENCED)):
                self._state.set_closed(group.name, [volume.id], None)
            elif reason.startswith(FENCED):
                fenced.append(volume.name)
        if fenced:
            paths = " ".join(f"{group.name}/{name}" for name in sorted(fenced))
            self._emit(
                "group.not_online",
                group=group.name,
                error=f"fenced, offline until `farshore volume online`: {paths}",
            )

    def connected(self, group: Group) -> int:
        """Hosts at the group's live volumes."""
        return sum(len(self._exports.clients(group, v)) for v in group.volumes.at(group.spans()).values())

    def say_cut_off(self, group: Group, peer: str, hosts: int, why: str) -> None:
        """What a peer did to `hosts` of them, a person must know."""
        if hosts:
            fields = {"group": group.name, "object": peer, "position": str(group.end)}
            self._emit("hosts.cut_off", **fields, hosts=hosts, reason=why)
