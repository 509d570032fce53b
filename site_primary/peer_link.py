"""One session's connection to a peer: made anew for every session, silent once lost.

Messages of another session than the present one are dropped here, so that what a dead connection still
delivers changes nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from engine.ports.clock import Clock
from engine.ports.disk import Buffer
from engine.ports.transport import Link, PeerAddress, Transport
from protocol.errors import RemoteProtocolError
from protocol.messages import Message, decode_message
from site_primary.reconnect import Reconnect


class PeerLink:
    """`on_message` is given what decodes, `on_noise` why something did not. `heard_at` is monotonic.
    `reconnect` says when to dial again."""

    def __init__(
        self,
        *,
        transport: Transport,
        address: PeerAddress,
        clock: Clock,
        rng: random.Random,
        on_message: Callable[[Message, bytes | None], None],
        on_noise: Callable[[str], None],
    ) -> None:
        self.peer = address.name
        self.session = 0  # 0: none
        self.heard_at: float | None = None
        self.reconnect = Reconnect(rng)
        self._transport = transport
        self._address = address
        self._clock = clock
        self._rng = rng
        self._on_message = on_message
        self._on_noise = on_noise
        self._link: Link | None = None
        self._dialled_at = 0.0

    def dial(self) -> None:
        """Begin a session."""
        self.hang_up()
        self.session = session = self._rng.getrandbits(62) | 1
        self._dialled_at = self._clock.monotonic()
        self._link = self._transport.dial(
            self._address, lambda header, payload: self.take(session, header, payload)
        )

    def hang_up(self) -> None:
        """End it."""
        if self._link is not None:
            self._link.close()
            self._link = None
        self.session = 0

    def send(self, header: bytes, payload: Buffer | None = None) -> None:
        """Queue a message, if there is a session."""
        if self._link is not None:
            self._link.send(header, payload)

    def take(self, session: int, header: bytes, payload: bytes | None = None) -> None:
        """What came by a connection that was made for `session`."""
        if session != self.session:
            return
        try:
            message = decode_message(header)
        except RemoteProtocolError as error:
            self._on_noise(str(error))
            return
        if message.session == session:
            self.heard_at = self._clock.monotonic()
            self._on_message(message, payload)

    @property
    def lost(self) -> bool:
        """Whether the connection is known to be gone."""
        return self._link is None or self._link.ended

    @property
    def silent_s(self) -> float:
        """Seconds since anything was heard, or since the session began."""
        return self._clock.monotonic() - max(self.heard_at or 0.0, self._dialled_at)

    @property
    def silence(self) -> str:
        """Why nothing is heard, as far as is known."""
        if self.lost:
            return "the connection was lost"
        trouble = self._link.trouble if self._link is not None else ""
        return trouble or f"{self.silent_s:.0f} s of silence"
