"""Whether a peer that ships no more to a group here still shares it: it is asked, now and then.

A pair that is deleted at the site that writes leaves nothing but silence here, as a dead link does. Who is
asked and shares the group no more says so, whatever version it has; until then it is called silent. Its next
session takes it back (site_secondary.receiver).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from daemon.site import Site
from protocol.errors import FarshoreError
from site_secondary.receiver import Receiver

ASK_S = 3.0
AT_ONCE_MAX = 16  # questions to a peer in one round


class LostPairs:
    """Those of one site."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._asked: dict[str, int] = {}  # by group: the round in which it was asked last
        self._round = 0

    async def ask(self) -> None:
        """Each peer about groups that it ships no more, those first that were not asked about for long."""
        self._round += 1
        by_peer: dict[str, list[str]] = {}
        for name, receiver in self._site.receivers.items():
            if receiver.heard_at is not None and receiver.connected:
                self._asked.pop(name, None)
            else:
                by_peer.setdefault(receiver.peer, []).append(name)
        await asyncio.gather(*(self._ask_peer(peer, names) for peer, names in by_peer.items()))

    async def _ask_peer(self, peer: str, names: list[str]) -> None:
        """One after the other, and no further than to the first that is not answered."""
        with suppress(FarshoreError, TimeoutError):
            if not self._site.peers.get(peer).endpoint:
                return  # one that only dials cannot be asked
            for name in sorted(names, key=lambda each: self._asked.get(each, 0))[:AT_ONCE_MAX]:
                self._asked[name] = self._round
                async with asyncio.timeout(ASK_S):
                    report = await self._site.ask_peer(name).report()
                receiver: Receiver | None = self._site.receivers.get(name)
                if receiver is not None and receiver.peer == peer and not receiver.connected:
                    receiver.told_of_end(shared=bool(report.role))
