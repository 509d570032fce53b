"""What a site asks its peers about groups' past: a connection for each group and peer, kept for a while."""

from __future__ import annotations

import random
from collections.abc import Mapping

from daemon.peers import PeerBook
from engine.group.compartment import attempt
from engine.group.group import Group
from engine.group.site_state import SiteState
from engine.peering.peer_requests import PeerRequests
from engine.ports.clock import Clock
from engine.ports.transport import Transport
from protocol.errors import WrongState


class SiteRequests:
    """One connection for each group that asks its peer. `groups` are those that are open."""

    def __init__(
        self,
        *,
        groups: Mapping[str, Group],
        state: SiteState,
        peers: PeerBook,
        transport: Transport,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._groups = groups
        self._state = state
        self._peers = peers
        self._transport = transport
        self._clock = clock
        self._rng = rng
        self._asked: dict[tuple[str, str], PeerRequests] = {}

    def ask(self, group: str) -> PeerRequests:
        """Ask a group's peer. WrongState without a peer."""
        pair = self._state.pair(group)
        if pair is None:
            raise WrongState(
                f"group {group} has no pair: there is no other site to ask",
                subject=group,
                next_step=f"`farshore pair create {group} --with PEER`",
            )
        address = self._peers.get(pair.peer).address
        found = self._asked.get((group, pair.peer))
        if found is None or found.address != address:
            found = self._asked[group, pair.peer] = PeerRequests(
                group=group,
                group_id=self._state.group(group).group_id,
                address=address,
                transport=self._transport,
                clock=self._groups[group].clock if group in self._groups else self._clock,
                rng=self._rng,
            )
        return found

    def group_stopped(self, name: str) -> None:
        """Nothing is asked about it any more."""
        for (group, _), requests in self._asked.items():
            if group == name:
                attempt("group.defect", requests.close)

    def close(self) -> None:
        """Ask nothing any more."""
        for requests in self._asked.values():
            requests.close()
