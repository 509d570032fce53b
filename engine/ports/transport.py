"""Messages between sites as a port: ordered within a connection, lost with it, never twice.

A message is a small header and at most one payload (a journal frame). A `Link` is one connection made by the
side that dials; the side that listens answers through the `Caller` it is given with each message.
The real form is `engine.ports.zmq_transport` (DEALER to ROUTER, CURVE, allow-list).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from engine.ports.disk import Buffer
from engine.ports.zap import NONE_COMING


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAddress:
    """Where a peer listens and who it must be: `endpoint` (tcp://HOST:PORT; empty if it is not known, or only
    dials) and its CURVE public key (Z85). `coming_key`: the one that is to take its place; either will do."""

    name: str
    endpoint: str
    public_key: str
    coming_key: str = ""


class Caller(Protocol):
    """Who sent a message: authenticated peer name and the way back."""

    peer: str

    def send(self, header: bytes, payload: Buffer | None = None) -> None:
        """Queue a message to this caller's connection; dropped if the connection is gone."""


class Link(Protocol):
    """A dialled connection. What is sent before it is made waits for it. Once it was made and is lost, the
    link is silent for good: what the peer gets is a prefix of what was sent. Then dial again."""

    @property
    def connected(self) -> bool:
        """Whether the connection is made now."""

    @property
    def ended(self) -> bool:
        """Whether it was lost or closed. A half-open connection may not know."""

    @property
    def trouble(self) -> str:
        """For an operator: why there is no connection, as far as is known; empty if there is one."""

    @property
    def refused(self) -> bool:
        """Whether somebody is there, and the two do not accept each other's keys; `trouble` says more."""

    def send(self, header: bytes, payload: Buffer | None = None) -> None:
        """Queue a message; the sender bounds what is in flight by itself, by acknowledgements. The payload
        must not change afterwards: it may be sent without a copy."""

    def close(self) -> None:
        """Drop the connection and everything queued; twice is fine."""


class NoLink:
    """The link to a peer that cannot be dialled: it never connects. `trouble` says why."""

    connected = False
    ended = False
    refused = False

    def __init__(self, trouble: str) -> None:
        self.trouble = trouble

    def send(self, header: bytes, payload: Buffer | None = None) -> None:
        """See `Link.send`; nobody gets it."""

    def close(self) -> None:
        """See `Link.close`."""


Payload = Buffer | None  # of a message; nobody changes it any more
OnLinkMessage = Callable[[bytes, Payload], None]
OnServerMessage = Callable[[Caller, bytes, Payload], None]


class Transport(Protocol):
    """Both directions of one site's traffic with its peers."""

    def dial(self, address: PeerAddress, on_message: OnLinkMessage) -> Link:
        """Connect with a new socket. Tries go on until one succeeds or `close`; nothing tells that a peer is
        away, or that the connection was lost, but its silence. UsageError for a malformed endpoint or key."""

    def listen(self, on_message: OnServerMessage) -> None:
        """Take messages from every allowed peer; called once. Busy if the endpoint is taken."""

    def allow(
        self,
        peers: Mapping[str, str],
        coming: Mapping[str, str] = NONE_COMING,
        on_coming: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Set who may connect: peer name to CURVE public key (Z85). Others are refused in the handshake, and
        messages of those who were connected and are no longer allowed are dropped. `coming`: keys that are to
        take the place of those; `on_coming` is told the name of a peer that has proved that it uses it."""

    def close(self) -> None:
        """Stop listening and close every link."""
