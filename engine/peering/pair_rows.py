"""The durable state of a site's pairs, and the order in which it and what the site does change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from engine.group.site_state import SiteState
from engine.peering.pair_states import Mode, PairState
from engine.retention.journal_space import lease_of
from protocol.errors import FarshoreError, RemoteProtocolError


def remember(store: SiteState, group: str, state: PairState, mode: Mode | None = None) -> None:
    """Put the state of a group's pair, and its mode if one is given. FarshoreError or OSError: it is as it
    was, or may be the new one after a restart."""
    row = store.pair(group)
    if row is not None and (row.state is not state or mode not in (None, row.mode)):
        store.put_pair(replace(row, state=state, mode=mode or row.mode))


def once_remembered(store: SiteState, group: str, state: PairState, act: Callable[[], None]) -> None:
    """Act once the new state is durable: what an operator is told did not happen must not have happened."""
    row = store.pair(group)
    remember(store, group, state)
    try:
        act()
    except (FarshoreError, OSError):
        if row is not None:
            remember(store, group, row.state)
        raise


def rename_peer(store: SiteState, peer: str, new: str) -> None:
    """Let every pair with a peer, and what is kept for it, go by its new name. What an earlier attempt did is
    done. OSError: some of it may be."""
    for row in store.groups():
        name, pair = row.name, store.pair(row.name)
        if pair is not None and pair.peer == peer:
            try:
                kept = store.leases(name).get(lease_of(peer))
            except (RemoteProtocolError, ValueError):
                kept = None  # the group stays closed for that (engine.group.stored_rows)
            if kept is not None:
                store.put_lease(name, lease_of(new), kept)
            store.put_pair(replace(pair, peer=new))
            if kept is not None:
                store.remove_leases(name, [lease_of(peer)])
