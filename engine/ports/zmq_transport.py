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
import errno
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial

import structlog
import zmq

from engine.acting import acting
from engine.group.compartment import attempt
from engine.ports.disk import Buffer
from engine.ports.resolver import LookUp, Resolver, look_up
from engine.ports.transport import Link, OnLinkMessage, OnServerMessage, PeerAddress
from engine.ports.zap import NONE_COMING, Authenticator, check_key, check_keypair, generate_keypair
from engine.ports.zmq_guard import StrangerGuard
from engine.ports.zmq_link import LINK_MESSAGES_MAX, DialledLink
from engine.ports.zmq_pump import Parts, SocketPump
from engine.ports.zmq_turns import DialTurns
from protocol.endpoints import check_peer_endpoint
from protocol.errors import Busy, UsageError
from protocol.limits import (
    HEARTBEAT_INTERVAL_S,
    HEARTBEAT_TIMEOUT_S,
    MESSAGE_HEADER_BYTES_MAX,
    PEER_COUNTED_BYTES_MIN,
    PEER_UNREAD_BYTES_END,
    PEER_UNREAD_PART_BYTES,
    REPLICATION_BACKLOG,
)

__all__ = ["ZmqTransport", "generate_keypair"]

ZAP_DOMAIN = "replication"
CALLERS_MAX = 1024
# Of a connection, either way; one that was dialled may send for many sessions (`LINK_MESSAGES_MAX`).
QUEUE_MESSAGES_MAX = 100_000
HANDSHAKE_TIMEOUT_S = 10.0
BIND_AGAIN_S = 0.01
# CURVE's MESSAGE command around a part: 16 bytes authenticator, 8 nonce, 8 name, flags; rounded up.
CURVE_OVERHEAD_BYTES = 64

log = structlog.get_logger()

# Plain numbers: combining flags costs more than the call that takes them.
_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


class _Caller:
    """One connection to our ROUTER socket; `shut` ends it."""

    __slots__ = ("_pump", "_shut", "_unread", "key", "peer", "revoked", "routing_id")

    def __init__(
        self,
        pump: SocketPump,
        unread: Unread,
        peer: str,
        key: str,
        routing_id: bytes,
        shut: Callable[[], None],
    ) -> None:
        self.peer = peer
        self.key = key
        self.routing_id = routing_id
        self.revoked = False
        self._pump = pump
        self._unread = unread
        self._shut = shut

    def revoke(self) -> None:
        """Nothing goes either way from here on, and the other end sees that its connection is lost."""
        if not self.revoked:
            self.revoked = True
            self._shut()

    def send(self, header: bytes, payload: Buffer | None = None) -> None:
        """See `Caller.send`."""
        if self.revoked or self._pump.closed:
            return
        size = len(header) + (0 if payload is None else len(payload))
        if size >= PEER_COUNTED_BYTES_MIN and not self._unread.has_room(size):
            log.warning("peer.reads_nothing", peer=self.peer, bytes=self._unread.total_bytes)
            self.revoke()
            return
        socket = self._pump.socket
        try:
            socket.send(self.routing_id, _MORE)
            if size < PEER_COUNTED_BYTES_MIN:
                _send_parts(socket, header, payload)
            else:
                self._unread.send(socket, self.routing_id, header, payload)
        except zmq.ZMQError:
            pass  # Documented: dropped with the connection.
        self._pump.sent()


class Unread:
    """What is queued for one peer, in all its connections, until libzmq has passed it on.

    Within a connection parts go in order, so that only the first of each queue need be looked at.
    """

    def __init__(self) -> None:
        self._queues: dict[bytes, deque[tuple[zmq.MessageTracker, int]]] = {}  # by routing id, none empty
        self._bytes = 0  # in all queues, with what has gone since they were looked at

    @property
    def total_bytes(self) -> int:
        """How much there is now, with what each part costs beside its bytes."""
        for routing_id in list(self._queues):
            self._drop_gone(routing_id)
        return self._bytes

    def has_room(self, size: int) -> bool:
        """Whether so many bytes more may be queued. All connections are looked at only where it matters."""
        left = PEER_UNREAD_BYTES_END - size
        return self._bytes <= left or self.total_bytes <= left

    def send(
        self, socket: zmq.Socket[bytes], routing_id: bytes, header: bytes, payload: Buffer | None
    ) -> None:
        """Send what follows a routing id, and count until it has gone. zmq.Again as a send."""
        self._drop_gone(routing_id)
        parts = [header] if payload is None else [header, payload]
        for number, part in enumerate(parts, 1):
            # Without a copy however small: only such a frame tells when it has gone.
            frame = zmq.Frame(part, track=True, copy=False, copy_threshold=0)
            socket.send(frame, _NOBLOCK if number == len(parts) else _MORE, copy=False)
            cost = len(part) + PEER_UNREAD_PART_BYTES
            self._queues.setdefault(routing_id, deque()).append((frame.tracker, cost))
            self._bytes += cost

    def _drop_gone(self, routing_id: bytes) -> None:
        queue = self._queues.get(routing_id)
        while queue and queue[0][0].done:
            self._bytes -= queue.popleft()[1]
        if queue is not None and not queue:
            del self._queues[routing_id]


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
        look: LookUp = look_up,
    ) -> None:
        check_keypair(public_key, secret_key)
        self.loop = loop
        self.endpoint = endpoint
        self.turns = DialTurns()
        self.resolver = Resolver(loop, look)
        self.bound_endpoint = ""
        self._public_key = public_key
        self._secret_key = secret_key
        self._max_message_bytes = max_message_bytes
        self._own_authenticator = authenticator is None
        self.authenticator = authenticator or Authenticator(loop)
        self._links: dict[DialledLink, None] = {}
        self._callers: dict[bytes, _Caller] = {}
        self._unread: dict[str, Unread] = {}  # by peer
        self._coming: dict[str, str] = {}
        self._on_coming: Callable[[str], None] = lambda _: None
        self._binding: asyncio.TimerHandle | None = None
        self._server: SocketPump | None = None
        self.guard: StrangerGuard | None = None
        self._on_message: OnServerMessage | None = None

    def dial(self, address: PeerAddress, on_message: OnLinkMessage) -> Link:
        """See `Transport.dial`. UsageError for a malformed endpoint or key."""
        check_peer_endpoint(address.endpoint)
        check_key(address.public_key, address.name)
        link = DialledLink(self, address, on_message)
        self._links[link] = None
        return link

    def listen(self, on_message: OnServerMessage) -> None:
        """See `Transport.listen`. Busy if the port is taken, UsageError for a malformed endpoint."""
        if self._server is not None:
            raise RuntimeError("listens already")
        self._on_message = on_message
        socket = self._socket(zmq.ROUTER, self.endpoint)
        socket.set(zmq.BACKLOG, REPLICATION_BACKLOG)
        self.authenticator.protect(socket, ZAP_DOMAIN)
        self.guard = StrangerGuard(self.loop, socket)
        try:
            socket.bind(self.endpoint)
        except zmq.ZMQError as error:
            self.guard.close()
            socket.close(0)
            raise _bad_endpoint(self.endpoint, error) from error
        self.bound_endpoint = bytes(socket.get(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()
        self._server = SocketPump(self.loop, socket, self._on_parts)

    def allow(
        self,
        peers: Mapping[str, str],
        coming: Mapping[str, str] = NONE_COMING,
        on_coming: Callable[[str], None] = lambda _: None,
    ) -> None:
        """See `Transport.allow`. UsageError for a malformed key. Messages of connections whose key is gone,
        or now has another name, are dropped from here on; the connections are shut down."""
        self.authenticator.allow(ZAP_DOMAIN, peers, coming)
        self._coming, self._on_coming = dict(coming), on_coming
        for routing_id, caller in list(self._callers.items()):
            if self.authenticator.name_of(ZAP_DOMAIN, caller.key) != caller.peer:
                caller.revoke()
                del self._callers[routing_id]

    def key_used(self, peer: str, key: str) -> None:
        """A peer has proved that it holds that key."""
        if self._coming.get(peer) == key:
            attempt("peer.key_not_changed", self._on_coming, peer)

    def rekey(self, public_key: str, secret_key: str) -> None:
        """Go by other keys from now on. Peers that called are disconnected, and may call again at once;
        connections that were dialled go on. UsageError."""
        check_keypair(public_key, secret_key)
        self._public_key, self._secret_key = public_key, secret_key
        if self._server is not None:
            socket = self._server.socket
            socket.set(zmq.CURVE_PUBLICKEY, public_key.encode())
            socket.set(zmq.CURVE_SECRETKEY, secret_key.encode())
            socket.unbind(self.bound_endpoint)
            self._bind_again()

    def _bind_again(self) -> None:
        """libzmq gives the port free in its own thread, some time after it was told to."""
        self._binding = None
        if self._server is None or self._server.closed:
            return
        try:
            self._server.socket.bind(self.bound_endpoint)
        except zmq.ZMQError as error:
            log.info("replication.not_bound", endpoint=self.bound_endpoint, error=str(error))
            self._binding = self.loop.call_later(BIND_AGAIN_S, self._bind_again)

    def unread_bytes(self, peer: str) -> int:
        """What is queued for a peer that called and not yet taken by its connections."""
        found = self._unread.get(peer)
        return 0 if found is None else found.total_bytes

    def close(self) -> None:
        """See `Transport.close`; twice is fine."""
        for link in list(self._links):
            link.close()
        if self.guard is not None:
            self.guard.close()
        if self._server is not None:
            self._server.close()
        if self._binding is not None:
            self._binding.cancel()
        self._callers.clear()
        if self._own_authenticator:
            self.authenticator.close()

    def forget(self, link: DialledLink) -> None:
        """A link has ended."""
        self._links.pop(link, None)

    def client_socket(self, address: PeerAddress) -> zmq.Socket[bytes]:
        """A DEALER socket that will speak only to the holder of the address's key."""
        socket = self._socket(zmq.DEALER, address.endpoint)
        socket.set(zmq.CURVE_SERVERKEY, address.public_key.encode())
        socket.set(zmq.SNDHWM, LINK_MESSAGES_MAX)
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
        # What is listened on at every address is so for both families, where the system has both.
        socket.set(zmq.IPV6, int("[" in endpoint or "//*:" in endpoint))
        socket.set(zmq.CURVE_PUBLICKEY, self._public_key.encode())
        socket.set(zmq.CURVE_SECRETKEY, self._secret_key.encode())
        return socket

    def _on_parts(self, parts: Parts) -> None:
        if not 2 <= len(parts) <= 3 or len(parts[1]) > MESSAGE_HEADER_BYTES_MAX or self._on_message is None:
            return
        caller = self._caller_of(parts[0].bytes, parts[1])
        if caller is None or caller.revoked:
            return
        payload = parts[2].buffer if len(parts) == 3 else None
        with acting(f"peer:{caller.peer}"):
            defect = attempt("peer.message_failed", self._on_message, caller, parts[1].bytes, payload)
        if defect is not None:
            caller.revoke()  # the peer may make another connection

    def _caller_of(self, routing_id: bytes, message: zmq.Frame) -> _Caller | None:
        """The connection's caller. The key is looked at for every message: a peer may choose its routing id,
        and take that of another's earlier connection."""
        key = str(message.get("User-Id"))
        caller = self._callers.get(routing_id)
        if caller is not None and caller.key == key:
            return caller
        peer = self.authenticator.name_of(ZAP_DOMAIN, key)
        if peer is None or self._server is None or self.guard is None:
            return None
        shut = partial(self.guard.shut, self.guard.proven(message, key))
        unread = self._unread.setdefault(peer, Unread())
        caller = _Caller(self._server, unread, peer, key, routing_id, shut)
        self._callers[routing_id] = caller
        self.key_used(peer, key)
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
