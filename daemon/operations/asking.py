"""Asking a peer what it is to a group."""

from __future__ import annotations

import asyncio

from daemon.site import Site
from engine.group.group import Group
from protocol.errors import FarshoreError
from protocol.messages import Report

ASK_TIMEOUT_S = 3.0


async def ask_report(site: Site, group: Group) -> Report | None:
    """The peer's answer; None if there is none in time, or no way to ask."""
    try:
        return await asyncio.wait_for(site.ask_peer(group.name).report(), ASK_TIMEOUT_S)
    except (FarshoreError, TimeoutError):
        return None
