"""Messages between sites over ZeroMQ: DEALER to ROUTER, CURVE with pinned keys, one connection a link.

Rules. ZeroMQ never reconnects for us: within one of its sockets a new connection would go on after a gap that
nobody sees. A link retries until it is connected; once it loses that connection it is silent for good, so
that what a peer received of a link is always a prefix of what was sent. Both ends drop rather than block:
ROUTER at its high-water mark, a link with its connection. Flow is bounded above, by acknowledgements.

The bytes of a payload go to ZeroMQ without a copy and must not change afterwards. It knows nothing of what
messages say.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import struct
from collections import deque

import zmq

from engine.ports.disk import Buffer
from engine.ports.transport import Link, OnLinkMessage, OnServerMessage, PeerAddress
from engine.ports.zap import Authenticator, check_key, generate_keypair
from engine.ports.zmq_pump import Parts, SocketPump
from protocol.errors import Busy, UsageError
from protocol.limits import HEARTBEAT_INTERVAL_S, HEARTBEAT_TIMEOUT_S, MESSAGE_HEADER_BYTES_MAX

__all__ = ["ZmqTransport", "generate_keypair"]

ZAP_DOMAIN = "replication"
# Above what acknowledgements allow in flight, so that only a peer that breaks them meets it.
QUEUE_MESSAGES_MAX = 100_000
CALLERS_MAX = 1024
HANDSHAKE_TIMEOUT_S = 10.0
# Connecting and handshake together; covers what the monitor does not tell, as a name that does not resolve.
CONNECT_TIMEOUT_S = 15.0
RETRY_DELAY_MIN_S = 0.1
RETRY_DELAY_MAX_S = 2.0
# CURVE's MESSAGE command around a part: 16 bytes authenticator, 8 nonce, 8 name, flags; rounded up.
CURVE_OVERHEAD_BYTES = 64

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


class _Caller:
    """One connection to our ROUTER socket."""

    __slots__ = ("_pump", "key", "peer", "revoked", "routing_id")

    def __init__(self, pump: SocketPump, peer: str, key: str, routing_id: bytes) -> None:
        self.peer = peer
        self.key = key
        self.routing_id = routing_id
        self.revoked = False
        self._pump = pump

    def send(self, header: bytes, payload: Buffer | None = None) -> None:
        """See `Caller.send`."""
        if self.revoked or self._pump.closed:
            return
        socket = self._pump.socket
        try:
            socket.send(self.routing_id, _MORE)
            _send_parts(socket, header, payload)
        except zmq.Again:
            pass  # Documented: dropped with the connection.
        self._pump.poke()


class _Link:
    """One dialled connection; a socket for each attempt."""

    def __init__(self, transport: ZmqTransport, address: PeerAddress, on_message: OnLinkMessage) -> None:
        self._transport = transport
        self._address = address
        self._on_message = on_message
        self._state = LinkState.CONNECTING
        self._trouble = f"nothing answers at {address.endpoint}"
        self._queue: deque[tuple[bytes, Buffer | None]] = deque()
        self._retry_delay_s = RETRY_DELAY_MIN_S
        self._timer: asyncio.TimerHandle | None = None
        self._pump: SocketPump | None = None
        self._monitor: SocketPump | None = None
        self._connect()

    @property
    def ended(self) -> bool:
        """See `Link.ended`."""
        return self._state is LinkState.ENDED

    @property
    def trouble(self) -> str:
        """See `Link.trouble`."""
        return self._trouble

    def send(self, header: bytes, payload: Buffer | None = None) -> None:
        """See `Link.send`."""
        if self._state is LinkState.ENDED:
            return
        self._queue.append((header, payload))
        if len(self._queue) > QUEUE_MESSAGES_MAX:
            self.close()
        elif self._state is LinkState.CONNECTED and len(self._queue) == 1:
            self._flush()
            if self._pump is not None:
                self._pump.poke()

    def close(self) -> None:
        """See `Link.close`."""
        self._state = LinkState.ENDED
        self._queue.clear()
        self._disconnect()
        self._transport.forget(self)

    def _connect(self) -> None:
        loop = self._transport.loop
        self._timer = loop.call_later(CONNECT_TIMEOUT_S, self._retry)
        socket = self._transport.client_socket(self._address)
        monitor = socket.get_monitor_socket(_GONE | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        monitor.set(zmq.LINGER, 0)
        self._monitor = SocketPump(loop, monitor, self._on_event)
        self._pump = SocketPump(loop, socket, self._on_parts, self._flush)
        try:
            socket.connect(self._address.endpoint)
        except zmq.ZMQError as error:
            self._disconnect()
            raise _bad_endpoint(self._address.endpoint, error) from error

    def _disconnect(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._monitor is not None and self._pump is not None:
            # In this order: libzmq's I/O thread would wait for ever to send an event that nobody can receive.
            self._pump.socket.disable_monitor()
            self._monitor.close()
            self._pump.close()
            self._monitor = self._pump = None

    def _retry(self) -> None:
        self._disconnect()
        self._connect()

    def _on_event(self, parts: Parts) -> None:
        """One event of libzmq's monitor: u16 event, i32 value; then the endpoint."""
        (event, _) = struct.unpack_from("=Hi", parts[0].bytes)
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._state = LinkState.CONNECTED
            self._trouble = ""
            if self._timer is not None:
                self._timer.cancel()
            if self._pump is not None:
                self._pump.poke()
        elif self._state is LinkState.CONNECTED:
            self._end()
        else:
            self._trouble = _TROUBLES.get(event, "nothing answers at {}").format(self._address.endpoint)
            self._disconnect()
            self._timer = self._transport.loop.call_later(self._retry_delay_s, self._connect)
            self._retry_delay_s = min(2 * self._retry_delay_s, RETRY_DELAY_MAX_S)

    def _end(self) -> None:
        """The connection is lost; what came through it is still delivered."""
        if self._pump is not None:
            self._pump.turn()
        self.close()

    def _on_parts(self, parts: Parts) -> None:
        if len(parts) <= 2 and len(parts[0]) <= MESSAGE_HEADER_BYTES_MAX:
            self._on_message(parts[0].bytes, parts[1].bytes if len(parts) == 2 else None)

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
                return
            queue.popleft()
            try:
                socket.send(payload, _NOBLOCK, copy=False)
            except zmq.Again:
                # Only a connection that died between the two parts refuses the second.
                self.close()
                return


class ZmqTransport:
    """The real `Transport`; one a process. Keys are Z85.

    `endpoint` is where `listen` binds (tcp://HOST:PORT; a port `*` lets the system choose, see
    `bound_endpoint`). `max_message_bytes` bounds one part of a message; a connection that sends more is
    closed. Control sockets share the context by the same `authenticator`; without one, the transport makes
    and closes its own.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        endpoint: str,
        public_key: str,
        secret_key: str,
        max_message_bytes: int,
        authenticator: Authenticator | None = None,
    ) -> None:
        check_key(public_key, "this site")
        check_key(secret_key, "this site")
        if zmq.curve_public(secret_key.encode()).decode() != public_key:
            raise UsageError(
                "this site's public and secret key do not belong together",
                subject="keys",
                next_step="restore the site's keys directory from a backup",
            )
        self.loop = loop
        self.endpoint = endpoint
        self.bound_endpoint = ""
        self._public_key = public_key
        self._secret_key = secret_key
        self._max_message_bytes = max_message_bytes
        self._own_authenticator = authenticator is None
        self.authenticator = authenticator or Authenticator(loop)
        self._links: dict[_Link, None] = {}
        self._callers: dict[bytes, _Caller] = {}
        self._server: SocketPump | None = None
        self._on_message: OnServerMessage | None = None

    def dial(self, address: PeerAddress, on_message: OnLinkMessage) -> Link:
        """See `Transport.dial`. UsageError for a malformed endpoint or key."""
        check_key(address.public_key, address.name)
        link = _Link(self, address, on_message)
        self._links[link] = None
        return link

    def listen(self, on_message: OnServerMessage) -> None:
        """See `Transport.listen`. Busy if the port is taken, UsageError for a malformed endpoint."""
        if self._server is not None:
            raise RuntimeError("listens already")
        self._on_message = on_message
        socket = self._socket(zmq.ROUTER, self.endpoint)
        self.authenticator.protect(socket, ZAP_DOMAIN)
        try:
            socket.bind(self.endpoint)
        except zmq.ZMQError as error:
            socket.close(0)
            raise _bad_endpoint(self.endpoint, error) from error
        self.bound_endpoint = bytes(socket.get(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()
        self._server = SocketPump(self.loop, socket, self._on_parts)

    def allow(self, peers: dict[str, str]) -> None:
        """See `Transport.allow`. UsageError for a malformed key. Messages of connections whose key is gone,
        or now has another name, are dropped from here on; ROUTER has no way to close one."""
        self.authenticator.allow(ZAP_DOMAIN, peers)
        for routing_id, caller in list(self._callers.items()):
            if self.authenticator.name_of(ZAP_DOMAIN, caller.key) != caller.peer:
                caller.revoked = True
                del self._callers[routing_id]

    def close(self) -> None:
        """See `Transport.close`; twice is fine."""
        for link in list(self._links):
            link.close()
        if self._server is not None:
            self._server.close()
        self._callers.clear()
        if self._own_authenticator:
            self.authenticator.close()

    def forget(self, link: _Link) -> None:
        """A link has ended."""
        self._links.pop(link, None)

    def client_socket(self, address: PeerAddress) -> zmq.Socket[bytes]:
        """A DEALER socket that will speak only to the holder of the address's key."""
        socket = self._socket(zmq.DEALER, address.endpoint)
        socket.set(zmq.CURVE_SERVERKEY, address.public_key.encode())
        socket.set(zmq.RECONNECT_IVL, -1)
        # No queue before the handshake is done: what is sent belongs to a connection.
        socket.set(zmq.IMMEDIATE, 1)
        return socket

    def _socket(self, kind: zmq.SocketType, endpoint: str) -> zmq.Socket[bytes]:
        socket = self.authenticator.socket(kind)
        socket.set(zmq.SNDHWM, QUEUE_MESSAGES_MAX)
        socket.set(zmq.RCVHWM, QUEUE_MESSAGES_MAX)
        socket.set(zmq.MAXMSGSIZE, self._max_message_bytes + CURVE_OVERHEAD_BYTES)
        socket.set(zmq.HANDSHAKE_IVL, int(HANDSHAKE_TIMEOUT_S * 1000))
        socket.set(zmq.HEARTBEAT_IVL, int(HEARTBEAT_INTERVAL_S * 1000))
        socket.set(zmq.HEARTBEAT_TIMEOUT, int(HEARTBEAT_TIMEOUT_S * 1000))
        socket.set(zmq.HEARTBEAT_TTL, int(HEARTBEAT_TIMEOUT_S * 1000))
        socket.set(zmq.TCP_KEEPALIVE, 1)
        socket.set(zmq.IPV6, int("[" in endpoint))
        socket.set(zmq.CURVE_PUBLICKEY, self._public_key.encode())
        socket.set(zmq.CURVE_SECRETKEY, self._secret_key.encode())
        return socket

    def _on_parts(self, parts: Parts) -> None:
        if not 2 <= len(parts) <= 3 or len(parts[1]) > MESSAGE_HEADER_BYTES_MAX or self._on_message is None:
            return
        caller = self._caller_of(parts[0].bytes, str(parts[1].get("User-Id")))
        if caller is not None:
            self._on_message(caller, parts[1].bytes, parts[2].bytes if len(parts) == 3 else None)

    def _caller_of(self, routing_id: bytes, key: str) -> _Caller | None:
        """The connection's caller. The key is looked at for every message: a peer may choose its routing id,
        and take that of another's earlier connection."""
        caller = self._callers.get(routing_id)
        if caller is not None and caller.key == key:
            return caller
        peer = self.authenticator.name_of(ZAP_DOMAIN, key)
        if peer is None or self._server is None:
            return None
        caller = _Caller(self._server, peer, key, routing_id)
        self._callers[routing_id] = caller
        if len(self._callers) > CALLERS_MAX:
            del self._callers[next(iter(self._callers))]
        return caller


def _send_parts(socket: zmq.Socket[bytes], header: bytes, payload: Buffer | None) -> None:
    if payload is None:
        socket.send(header, _NOBLOCK)
    else:
        socket.send(header, _MORE)
        socket.send(payload, _NOBLOCK, copy=False)


def _bad_endpoint(endpoint: str, error: zmq.ZMQError) -> Busy | UsageError:
    if error.errno == errno.EADDRINUSE:
        return Busy(
            f"{endpoint} is in use by another program",
            subject=endpoint,
            next_step="stop the other program, or choose another --replication endpoint in site.toml",
        )
    return UsageError(
        f"{endpoint} cannot be used: {error}",
        subject=endpoint,
        next_step="give an address of this machine (or of the peer) as tcp://HOST:PORT",
    )
