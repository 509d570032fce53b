"""One dialled connection of the ZeroMQ transport: a socket an attempt, silent once it was made and is lost.

See engine/ports/zmq_transport.py for the rules.
"""

from __future__ import annotations

import asyncio
import enum
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import ParamSpec, Protocol

import zmq

from engine.acting import acting
from engine.group.compartment import attempt
from engine.ports.disk import Buffer
from engine.ports.resolver import Resolver, endpoint_at, is_address
from engine.ports.transport import OnLinkMessage, PeerAddress
from engine.ports.zmq_pump import Parts, SocketPump
from engine.ports.zmq_turns import DialTurns
from protocol.limits import (
    DIAL_ANSWER_S,
    MESSAGE_HEADER_BYTES_MAX,
    PEER_LINKS_MAX,
    PEER_PAIRS_MAX,
    SHIP_IN_FLIGHT_FRAMES_MAX,
)

P = ParamSpec("P")

# Above what acknowledgements allow in flight, so that only a peer that breaks them meets it.
LINK_MESSAGES_MAX = 300_000
if LINK_MESSAGES_MAX < SHIP_IN_FLIGHT_FRAMES_MAX * -(-PEER_PAIRS_MAX // PEER_LINKS_MAX):
    raise AssertionError("a link must hold what all of its sessions have in flight")
# Looking its name up, connecting and handshake together. Where a name has several addresses they share it.
CONNECT_TIMEOUT_S = 15.0
ADDRESSES_TRIED_MAX = 3
RETRY_DELAY_MIN_S = 0.1
RETRY_DELAY_MAX_S = 2.0

_GONE = (
    zmq.EVENT_CLOSED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)

# A CURVE server that does not know the key it was called by, or was given another key than its own, does not
# say so: it drops the connection.
_DROPPED = "the handshake with {} fails: is this site a peer there, and is its token here the newest?"
_TROUBLES = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "{} does not know this site: add this site's token there",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: _DROPPED,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: _DROPPED,
    zmq.EVENT_DISCONNECTED: _DROPPED,
}


# Plain numbers: combining flags costs more than the call that takes them.
_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


class LinkState(enum.Enum):
    """A link's life, in this order."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    ENDED = "ended"


class Dialler(Protocol):
    """The transport, as far as its links need it."""

    loop: asyncio.AbstractEventLoop
    turns: DialTurns
    resolver: Resolver

    def client_socket(self, address: PeerAddress) -> zmq.Socket[bytes]:
        """A DEALER socket that will speak only to the holder of the address's key."""

    def forget(self, link: DialledLink) -> None:
        """A link has ended."""

    def key_used(self, peer: str, key: str) -> None:
        """A peer has proved that it holds that key."""


class DialledLink:
    """One dialled connection; a socket for each attempt, and each attempt in its turn.

    `_timer` is the one thing that comes next: its turn, the end of the attempt, of its turn, or another try.
    """

    def __init__(self, transport: Dialler, address: PeerAddress, on_message: OnLinkMessage) -> None:
        self._transport = transport
        self._address = address
        self._on_message = on_message
        self._state = LinkState.CONNECTING
        self._trouble = f"nothing answers at {address.endpoint}"
        self._refused = False
        self._host, _, self._port = address.endpoint.removeprefix("tcp://").rpartition(":")
        self._attempts = 0
        self._key, self._other_key = address.public_key, address.coming_key or address.public_key
        self._queue: deque[tuple[bytes, Buffer | None]] = deque()
        self._retry_delay_s = RETRY_DELAY_MIN_S
        self._timer: asyncio.Handle | None = None
        self._pump: SocketPump | None = None
        self._monitor: SocketPump | None = None
        self._dial()

    @property
    def connected(self) -> bool:
        """See `Link.connected`."""
        return self._state is LinkState.CONNECTED

    @property
    def ended(self) -> bool:
        """See `Link.ended`."""
        return self._state is LinkState.ENDED

    @property
    def trouble(self) -> str:
        """See `Link.trouble`."""
        return self._trouble

    @property
    def refused(self) -> bool:
        """See `Link.refused`."""
        return self._refused

    def send(self, header: bytes, payload: Buffer | None = None) -> None:
        """See `Link.send`."""
        if self._state is LinkState.ENDED:
            return
        self._queue.append((header, payload))
        if len(self._queue) > LINK_MESSAGES_MAX:
            self.close()
        elif self._state is LinkState.CONNECTED and len(self._queue) == 1:
            self._flush()
            if self._pump is not None:
                self._pump.sent()

    def close(self) -> None:
        """See `Link.close`."""
        self._state = LinkState.ENDED
        self._queue.clear()
        self._disconnect()
        self._transport.forget(self)

    def begin_soon(self) -> None:
        """See `Attempt.begin_soon`."""
        self._timer = self._transport.loop.call_soon(self._guarded, self._connect)

    def _guarded(self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """What the loop calls back: a defect in it is this link's, which ends; whoever dialled finds it lost,
        and begins a new session."""
        if attempt("peer.link_failed", work, *args, **kwargs) is not None:
            self.close()

    def _dial(self) -> None:
        self._timer = None
        if self._transport.turns.take(self._address.endpoint, self):
            self._connect()

    def _connect(self) -> None:
        self._timer = self._transport.loop.call_later(CONNECT_TIMEOUT_S, self._guarded, self._retry)
        if is_address(self._host):
            self._connect_to(self._address.endpoint)
            return
        if not self._refused:
            self._trouble = f"{self._host} is looked up, and no name server answers"
        self._transport.resolver.ask(self._host, self)

    def resolved(self, addresses: tuple[str, ...], trouble: str) -> None:
        """See `Asker.resolved`."""
        self._end_timer()
        if not addresses:
            self._trouble = trouble
            self._disconnect()
            self._try_later()
            return
        tried = addresses[:ADDRESSES_TRIED_MAX]
        self._timer = self._transport.loop.call_later(
            CONNECT_TIMEOUT_S / len(tried), self._guarded, self._retry
        )
        if not self._refused:
            self._trouble = f"nothing answers at {self._address.endpoint}"
        self._guarded(self._connect_to, endpoint_at(tried[self._attempts % len(tried)], self._port))
        self._attempts += 1

    def _connect_to(self, endpoint: str) -> None:
        try:
            self._open(self._transport.loop, endpoint)
        except (zmq.ZMQError, OSError) as error:
            # No descriptor left, say: nothing that an operator's word or another try could not change.
            self._trouble = f"{self._address.endpoint} cannot be dialled: {error}"
            self._disconnect()
            self._try_later()

    def _open(self, loop: asyncio.AbstractEventLoop, endpoint: str) -> None:
        socket = self._transport.client_socket(
            replace(self._address, endpoint=endpoint, public_key=self._key)
        )
        try:
            monitor = socket.get_monitor_socket(_GONE | zmq.EVENT_HANDSHAKE_SUCCEEDED)
            monitor.set(zmq.LINGER, 0)
            self._monitor = SocketPump(loop, monitor, lambda parts: self._guarded(self._on_event, parts))
            taken = lambda parts: self._guarded(self._on_parts, parts)  # noqa: E731
            self._pump = SocketPump(loop, socket, taken, lambda: self._guarded(self._flush))
        except (zmq.ZMQError, OSError):
            if self._monitor is not None:
                self._monitor.close()
                self._monitor = None
            socket.close(0)
            raise
        socket.connect(endpoint)

    def _try_later(self) -> None:
        self._timer = self._transport.loop.call_later(self._retry_delay_s, self._guarded, self._dial)
        self._retry_delay_s = min(2 * self._retry_delay_s, RETRY_DELAY_MAX_S)

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_turn(self) -> None:
        """Whatever would have come next does not."""
        self._end_timer()
        self._transport.resolver.drop(self._host, self)
        self._transport.turns.give_back(self._address.endpoint, self)

    def _disconnect(self) -> None:
        self._end_turn()
        if self._monitor is not None and self._pump is not None:
            # In this order: libzmq's I/O thread would wait for ever to send an event that nobody can receive.
            self._pump.socket.disable_monitor()
            self._monitor.close()
            self._pump.close()
            self._monitor = self._pump = None

    def _retry(self) -> None:
        self._disconnect()
        self._dial()

    def _on_event(self, parts: Parts) -> None:
        """One event of libzmq's monitor: u16 event, i32 value; then the endpoint."""
        (event, _) = struct.unpack_from("=Hi", parts[0].bytes)
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._state = LinkState.CONNECTED
            self._trouble, self._refused = "", False
            self._end_timer()
            loop = self._transport.loop
            self._timer = loop.call_later(DIAL_ANSWER_S, self._guarded, self._end_turn)
            # Not at once: what follows may end this link.
            loop.call_soon(self._guarded, self._transport.key_used, self._address.name, self._key)
            if self._pump is not None:
                self._pump.poke()
        elif self._state is LinkState.CONNECTED:
            self._end()
        else:
            self._refused = event in _TROUBLES
            if self._refused:
                self._key, self._other_key = self._other_key, self._key
            self._trouble = _TROUBLES.get(event, "nothing answers at {}").format(self._address.endpoint)
            self._disconnect()
            self._try_later()

    def _end(self) -> None:
        """The connection is lost; what came through it is still delivered."""
        if self._pump is not None:
            self._pump.turn()
        self.close()

    def _on_parts(self, parts: Parts) -> None:
        if self._timer is not None:
            self._end_turn()  # the peer has taken a message of this connection
        if len(parts) <= 2 and len(parts[0]) <= MESSAGE_HEADER_BYTES_MAX:
            payload = parts[1].buffer if len(parts) == 2 else None
            with acting(f"peer:{self._address.name}"):
                defect = attempt("peer.message_failed", self._on_message, parts[0].bytes, payload)
            if defect is not None:
                self.close()  # whoever dialled finds it lost, and begins a new session

    def _flush(self) -> None:
        if self._state is not LinkState.CONNECTED or self._pump is None:
            return
        socket = self._pump.socket
        queue = self._queue
        while queue:
            header, payload = queue[0]
            try:
                if payload is None:
                    socket.send(header, _NOBLOCK)
                    queue.popleft()
                    continue
                socket.send(header, _MORE)
            except zmq.Again:
                self._pump.unsent = True
                return
            queue.popleft()
            try:
                socket.send(payload, _NOBLOCK, copy=False)
            except zmq.Again:
                # Only a connection that died between the two parts refuses the second.
                self.close()
                return
        self._pump.unsent = False
