"""A network in memory: connections that keep their order, and lose everything at once.

Model. A dialled link tries to connect until the peer listens, can be reached both ways, has the pinned key
and allows the caller's. From then on it is one connection: two ordered pipes with random delays. A cut ends
it and drops what is under way; both ends only notice silence. A blackholed direction stalls its pipes: a heal
within the heartbeat's time-out lets them go on, later they are gone, as TCP and ZeroMQ's heartbeats do it.
`damage_next` is beyond what the port allows: memory that fails on the way, which checksums must catch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum

from engine.ports.disk import Buffer
from engine.ports.transport import OnLinkMessage, OnServerMessage, PeerAddress
from engine.ports.zap import NONE_COMING
from protocol.errors import Busy, UsageError
from protocol.limits import HEARTBEAT_TIMEOUT_S
from tests.sim.world import Crashed, SimWorld

CONNECT_DELAY_S = (0.001, 0.03)
RETRY_DELAY_S = (0.1, 2.0)
Message = tuple[bytes, Buffer | None, bytes | None]


class Damage(Enum):
    """What `damage_next` does to one message with a payload. SWAP delivers it after the next one."""

    FLIP = "flip"
    DROP = "drop"
    TWICE = "twice"
    SWAP = "swap"


class _Pipe:
    """One direction of a connection."""

    def __init__(
        self, network: SimNetwork, source: str, target: str, deliver: Callable[[bytes, Buffer | None], None]
    ) -> None:
        self.source = source
        self.target = target
        self.closed = False
        self._network = network
        self._deliver = deliver
        self._waiting: list[Message] = []
        self._held: list[tuple[bytes, bytes]] = []
        self._last_arrival_ns = 0

    def send(self, header: bytes, payload: Buffer | None) -> None:
        """Put a message under way, keeping a copy to tell whether the sender changes the payload."""
        self._waiting.append((bytes(header), payload, None if payload is None else bytes(payload)))
        world = self._network.world
        delay_s = world.random.uniform(*self._network.delay_s(self.source, self.target))
        arrival_ns = max(self._last_arrival_ns, world.now_ns + round(delay_s * 1e9))
        self._last_arrival_ns = arrival_ns
        world.schedule((arrival_ns - world.now_ns) / 1e9, self.arrive)

    def arrive(self) -> None:
        """One message is due; while stalled it stays, and comes with the heal."""
        if self.closed or not self._waiting or self._network.is_stalled(self.source, self.target):
            return
        header, payload, copy = self._waiting.pop(0)
        if payload is not None and bytes(payload) != copy:
            raise AssertionError("a payload was changed after it was sent")
        if copy is None:
            self._deliver(header, None)
            return
        held, self._held = self._held, []
        for each_header, each_payload in [*self._damaged(header, copy), *held]:
            if not self.closed:
                self._deliver(each_header, each_payload)

    def _damaged(self, header: bytes, payload: bytes) -> list[tuple[bytes, bytes]]:
        """What comes of a message with a payload."""
        match self._network.take_damage(self.source, self.target):
            case Damage.FLIP:
                at = self._network.world.random.randrange(8 * len(payload))
                flipped = bytearray(payload)
                flipped[at // 8] ^= 1 << at % 8
                return [(header, bytes(flipped))]
            case Damage.DROP:
                return []
            case Damage.TWICE:
                return [(header, payload)] * 2
            case Damage.SWAP:
                self._held.append((header, payload))
                return []
            case None:
                return [(header, payload)]

    def go_on(self) -> None:
        """After a stall: all that was due."""
        for _ in range(len(self._waiting)):
            self._network.world.schedule(0.0, self.arrive)


class _Connection:
    """One established connection; it is also the `Caller` that the listening side answers through."""

    def __init__(self, link: SimLink, server: SimTransport, peer: str) -> None:
        client = link.transport
        self.peer = peer
        self.client = client
        self.server = server
        self._link = link
        self.up = _Pipe(client.network, client.name, server.name, self._deliver_up)
        self.down = _Pipe(client.network, server.name, client.name, link.deliver)

    def send(self, header: bytes, payload: Buffer | None = None) -> None:
        """See `Caller.send`."""
        self.server.check()
        if self.down.closed:
            return
        if self.server.admits(self.client) != self.peer:
            return
        if self.client.too_large(header, payload):
            self.end()
        else:
            self.down.send(header, payload)

    def end(self) -> None:
        """Drop what is under way; the link is silent for good."""
        self.up.closed = self.down.closed = True
        self._link.end()
        self.client.network.forget(self)

    def _deliver_up(self, header: bytes, payload: Buffer | None) -> None:
        if self.server.on_message is not None and self.server.admits(self.client) == self.peer:
            self.server.on_message(self, header, payload)


class SimLink:
    """See `Link`."""

    def __init__(self, transport: SimTransport, address: PeerAddress, on_message: OnLinkMessage) -> None:
        self.transport = transport
        self._address = address
        self._on_message = on_message
        self._queue: list[tuple[bytes, Buffer | None]] = []
        self._connection: _Connection | None = None
        self._ended = False
        self._retry_delay_s = RETRY_DELAY_S[0]
        self._try_later(transport.world.random.uniform(*CONNECT_DELAY_S))

    @property
    def connected(self) -> bool:
        """See `Link.connected`."""
        return self._connection is not None and not self._ended

    @property
    def ended(self) -> bool:
        """See `Link.ended`."""
        return self._ended

    @property
    def trouble(self) -> str:
        """See `Link.trouble`."""
        return ""

    @property
    def refused(self) -> bool:
        """See `Link.refused`."""
        return False

    def send(self, header: bytes, payload: Buffer | None = None) -> None:
        """See `Link.send`."""
        self.transport.check()
        if self._ended:
            return
        if self._connection is None:
            self._queue.append((header, payload))
        elif self._connection.server.too_large(header, payload):
            self._connection.end()
        else:
            self._connection.up.send(header, payload)

    def close(self) -> None:
        """See `Link.close`."""
        self.end()
        if self._connection is not None:
            self._connection.end()

    def end(self) -> None:
        """No message goes either way from here on."""
        if not self._ended:
            self._ended = True
            self._queue.clear()
            self.transport.forget(self)

    def deliver(self, header: bytes, payload: Buffer | None) -> None:
        """A message has arrived."""
        if not self._ended:
            self._on_message(header, payload)

    def _try_later(self, delay_s: float) -> None:
        self.transport.world.schedule(delay_s, self._try)

    def _try(self) -> None:
        if self._ended:
            return
        self._connection = self.transport.network.connect(self, self._address)
        if self._connection is None:
            self._retry_delay_s = min(2 * self._retry_delay_s, RETRY_DELAY_S[1])
            self._try_later(self.transport.world.random.uniform(0.5, 1.0) * self._retry_delay_s)
            return
        queue, self._queue = self._queue, []
        for header, payload in queue:
            self.send(header, payload)


class SimTransport:
    """See `Transport`: one process's. After a crash make a new one of the same name."""

    def __init__(
        self, network: SimNetwork, name: str, endpoint: str, public_key: str, max_message_bytes: int = 8 << 20
    ) -> None:
        self.network = network
        self.world = network.world
        self.name = name
        self.endpoint = endpoint
        self.bound_endpoint = endpoint
        self.public_key = public_key
        self.on_message: OnServerMessage | None = None
        self._max_message_bytes = max_message_bytes
        self._names: dict[str, str] = {}
        self._links: dict[SimLink, None] = {}
        self._crashed = False

    def dial(self, address: PeerAddress, on_message: OnLinkMessage) -> SimLink:
        """See `Transport.dial`."""
        self.check()
        if not address.endpoint.startswith("tcp://") or not address.public_key:
            raise UsageError(f"{address.endpoint} is no endpoint", subject=address.name)
        link = SimLink(self, address, on_message)
        self._links[link] = None
        return link

    def listen(self, on_message: OnServerMessage) -> None:
        """See `Transport.listen`."""
        self.check()
        self.network.bind(self)
        self.on_message = on_message

    def allow(
        self,
        peers: Mapping[str, str],
        coming: Mapping[str, str] = NONE_COMING,
        on_coming: Callable[[str], None] = lambda _: None,
    ) -> None:
        """See `Transport.allow`."""
        self.check()
        if len(set(peers.values())) != len(peers):
            raise UsageError("two peers have the same public key", subject=self.name)
        self._names = {key: name for name, key in peers.items()}

    def rekey(self, public_key: str, secret_key: str) -> None:
        """See `SiteTransport.rekey`."""
        self.public_key = public_key

    def unread_bytes(self, peer: str) -> int:
        """See `SiteTransport.unread_bytes`: a message is under way as soon as it is sent."""
        return 0

    def close(self) -> None:
        """See `Transport.close`."""
        for link in list(self._links):
            link.close()
        self.network.unbind(self)

    def crash(self) -> None:
        """The process dies: its connections are gone, and any further use raises `Crashed`."""
        self.close()
        self._crashed = True

    def admits(self, client: SimTransport) -> str | None:
        """The name under which `client` may connect."""
        return self._names.get(client.public_key)

    def too_large(self, header: bytes, payload: Buffer | None) -> bool:
        """Whether a part is more than this end takes, which ends the connection."""
        return max(len(header), len(payload or b"")) > self._max_message_bytes

    def forget(self, link: SimLink) -> None:
        """A link has ended."""
        self._links.pop(link, None)

    def check(self) -> None:
        """Raise if the process has died."""
        if self._crashed:
            raise Crashed(f"the process of {self.name} has died")


class SimNetwork:
    """All sites, their connections and the faults between them. Sites are named by their transports'
    names."""

    def __init__(self, world: SimWorld) -> None:
        self.world = world
        self._listening: dict[str, SimTransport] = {}
        self._connections: dict[_Connection, None] = {}
        self._stalled: dict[tuple[str, str], int] = {}
        self._delays_s: dict[tuple[str, str], tuple[float, float]] = {}
        self._stalls = 0
        self._damages: dict[tuple[str, str], list[Damage]] = {}

    def damage_next(self, source: str, target: str, damage: Damage) -> None:
        """Do this to the next message with a payload that arrives one way."""
        self._damages.setdefault((source, target), []).append(damage)

    def take_damage(self, source: str, target: str) -> Damage | None:
        """What is to be done to the message that arrives now."""
        waiting = self._damages.get((source, target))
        return waiting.pop(0) if waiting else None

    def repair(self) -> None:
        """Nothing more is damaged."""
        self._damages.clear()

    def cut(self, one: str, other: str) -> None:
        """End every connection between two sites; links dialled afterwards connect."""
        for connection in list(self._connections):
            if {connection.client.name, connection.server.name} == {one, other}:
                connection.end()

    def part(self, one: str, other: str) -> None:
        """Cut, and let nothing through until `heal`."""
        self.cut(one, other)
        self.blackhole(one, other)
        self.blackhole(other, one)

    def blackhole(self, source: str, target: str) -> None:
        """Let nothing through one way until `heal`. Connections end after the heartbeat's time-out."""
        self._stalls += 1
        stall = self._stalls
        self._stalled[source, target] = stall

        def expire() -> None:
            if self._stalled.get((source, target)) == stall:
                self.cut(source, target)

        self.world.schedule(HEARTBEAT_TIMEOUT_S, expire)

    def heal(self, one: str, other: str) -> None:
        """Undo `part` and `blackhole`, both ways."""
        for pair in ((one, other), (other, one)):
            if self._stalled.pop(pair, None) is not None:
                for connection in list(self._connections):
                    for pipe in (connection.up, connection.down):
                        if (pipe.source, pipe.target) == pair:
                            pipe.go_on()

    def set_delay(self, source: str, target: str, least_s: float, most_s: float) -> None:
        """How long messages take one way from now on."""
        self._delays_s[source, target] = (least_s, most_s)

    def delay_s(self, source: str, target: str) -> tuple[float, float]:
        """The least and the most."""
        return self._delays_s.get((source, target), (0.0001, 0.01))

    def is_stalled(self, source: str, target: str) -> bool:
        """Whether nothing gets through this way."""
        return (source, target) in self._stalled

    def bind(self, transport: SimTransport) -> None:
        """A site listens. Busy if another does there."""
        if transport.endpoint in self._listening:
            raise Busy(f"{transport.endpoint} is in use by another program", subject=transport.endpoint)
        self._listening[transport.endpoint] = transport

    def unbind(self, transport: SimTransport) -> None:
        """A site no longer listens; what was connected to it ends."""
        if self._listening.get(transport.endpoint) is transport:
            del self._listening[transport.endpoint]
        for connection in list(self._connections):
            if connection.server is transport or connection.client is transport:
                connection.end()

    def connect(self, link: SimLink, address: PeerAddress) -> _Connection | None:
        """One attempt; None if it fails."""
        server = self._listening.get(address.endpoint)
        client = link.transport
        if server is None or server.public_key != address.public_key:
            return None
        if self.is_stalled(client.name, server.name) or self.is_stalled(server.name, client.name):
            return None
        peer = server.admits(client)
        if peer is None:
            return None
        connection = _Connection(link, server, peer)
        self._connections[connection] = None
        return connection

    def forget(self, connection: _Connection) -> None:
        """A connection has ended."""
        self._connections.pop(connection, None)
