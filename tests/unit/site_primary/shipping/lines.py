"""A session whose messages go to a function of the test."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from engine.peering.link_pool import LinkPool
from engine.ports.clock import Clock
from engine.ports.disk import Buffer
from engine.ports.transport import Link, OnLinkMessage, OnServerMessage, PeerAddress
from engine.ports.zap import NONE_COMING
from site_primary.shipping.session import PeerTraffic, Session

ADDRESS = PeerAddress(name="par", endpoint="tcp://par:1", public_key="P")
Deliver = Callable[[bytes, Buffer | None], None]


class Line:
    """A transport and its only link."""

    connected = True
    ended = False
    refused = False
    trouble = ""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver

    def dial(self, address: PeerAddress, on_message: OnLinkMessage) -> Link:
        """See `Transport.dial`."""
        return self

    def listen(self, on_message: OnServerMessage) -> None:
        """See `Transport.listen`."""

    def allow(
        self,
        peers: Mapping[str, str],
        coming: Mapping[str, str] = NONE_COMING,
        on_coming: Callable[[str], None] = lambda _: None,
    ) -> None:
        """See `Transport.allow`."""

    def send(self, header: bytes, payload: Buffer | None = None) -> None:
        """See `Link.send`."""
        self._deliver(header, payload)

    def close(self) -> None:
        """See `Link.close`."""


def session_over(deliver: Deliver, clock: Clock, traffic: PeerTraffic) -> Session:
    """A session that is not dialled yet."""
    rng = random.Random(1)
    return Session(links=LinkPool(Line(deliver)), address=ADDRESS, clock=clock, rng=rng, traffic=traffic)
