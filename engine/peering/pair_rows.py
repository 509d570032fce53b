"""The durable state of a site's pairs, and the order in which it and what the site does change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from engine.group.site_state import SiteState
from engine.peering.pair_states import Mode, PairState
from protocol.errors import FarshoreError


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
