"""A TCP proxy between two sites that breaks the link on purpose.

One `Proxy` stands in front of one listening endpoint; whoever dials it reaches that endpoint, in a thread of
its own, with the faults of the moment. FORWARD is from the side that dials to the side that listens. Bytes
that a black hole swallows are gone, so a connection that lost some is reset when the link heals, as by a
router that has forgotten it; connections that lost nothing go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from daemon.peer_tokens import make_token, read_token
from daemon.peers import Peer
from tests.support.sites import Site

CHUNK_BYTES = 64 << 10
# What the proxy takes from a socket ahead of what it delivers: little, so that a slow link is slow for the
# sender, and no big buffer.
SOCKET_BYTES = 256 << 10
# On a link with a delay, what may be under way in one direction.
UNDER_WAY_CHUNKS_MAX = 256
CALL_TIMEOUT_S = 10.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: close sends RST

T = TypeVar("T")


class Way(enum.Enum):
    """A direction through the proxy."""

    FORWARD = "forward"
    BACK = "back"


BOTH = (Way.FORWARD, Way.BACK)


@dataclass(slots=True)
class _Direction:
    """What happens to the bytes of one direction; `free_at` is when a throttled link can take more."""

    swallow: bool = False
    delay_s: float = 0.0
    bytes_s: int = 0
    delivered_bytes: int = 0
    free_at: float = 0.0

    def heal(self) -> None:
        self.swallow, self.delay_s, self.bytes_s = False, 0.0, 0


@dataclass(eq=False, slots=True)
class _Connection:
    """A connection that was taken, and the one made on its behalf."""

    writers: dict[Way, asyncio.StreamWriter]  # by where they lead
    holed: bool = False
    over: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def reset(self) -> None:
        self.over = True
        for writer in self.writers.values():
            taken = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        for task in self.tasks:
            task.cancel()


class Proxy:
    """See the module's docstring. Every verb has taken effect when it returns."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._ways = {way: _Direction() for way in BOTH}
        self._connections: set[_Connection] = set()
        self._refusing = False
        self._accepted = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._accept, sock=self._listener, limit=CHUNK_BYTES), self._loop
        ).result(CALL_TIMEOUT_S)

    # -- verbs

    def cut(self) -> None:
        """Reset every connection, and each new one at once."""
        self._call(self._cut)

    def blackhole(self, *ways: Way) -> None:
        """Swallow what is sent in these directions (both, if none is named); connections stay."""
        self._call(lambda: self._set(ways or BOTH, swallow=True))

    def delay(self, delay_s: float) -> None:
        """Deliver everything this much later, each way."""
        self._call(lambda: self._set(BOTH, delay_s=delay_s))

    def throttle(self, bytes_s: int) -> None:
        """Deliver this much a second, each way, over all connections."""
        self._call(lambda: self._set(BOTH, bytes_s=bytes_s))

    def heal(self) -> None:
        """Pass everything again."""
        self._call(self._heal)

    def close(self) -> None:
        """Stop for good."""
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result(CALL_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT_S)
        self._loop.close()

    # -- figures

    @property
    def accepted(self) -> int:
        """Connections taken so far, refused ones included."""
        return self._accepted

    def delivered_bytes(self, way: Way) -> int:
        """Bytes that reached the other side."""
        return self._ways[way].delivered_bytes

    # -- inside the loop

    def _call(self, verb: Callable[[], T]) -> T:
        async def run() -> T:
            return verb()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(CALL_TIMEOUT_S)

    def _set(self, ways: Iterable[Way], **fields: float) -> None:
        for way in ways:
            for name, value in fields.items():
                setattr(self._ways[way], name, value)

    def _cut(self) -> None:
        self._refusing = True
        for connection in list(self._connections):
            connection.reset()

    async def _shut(self) -> None:
        self._server.close()
        self._cut()
        here = asyncio.current_task()
        await asyncio.gather(*(asyncio.all_tasks() - {here}), return_exceptions=True)

    def _heal(self) -> None:
        self._refusing = False
        for direction in self._ways.values():
            direction.heal()
        for connection in list(self._connections):
            if connection.holed:
                connection.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._accepted += 1
        connection = _Connection({Way.BACK: writer})
        if self._refusing:
            connection.reset()
            return
        self._connections.add(connection)
        try:
            target, onward = await asyncio.open_connection("127.0.0.1", self._target_port, limit=CHUNK_BYTES)
            connection.writers[Way.FORWARD] = onward
            if connection.over:
                return  # Reset while it was being made.
            connection.tasks = [
                asyncio.ensure_future(self._relay(connection, reader, Way.FORWARD)),
                asyncio.ensure_future(self._relay(connection, target, Way.BACK)),
            ]
            await asyncio.wait(connection.tasks)
        except OSError:
            pass  # Nobody listens there: the dialler sees its connection closed.
        finally:
            connection.reset()
            self._connections.discard(connection)

    async def _relay(self, connection: _Connection, reader: asyncio.StreamReader, way: Way) -> None:
        """Carry bytes until one side closes; the end of a connection travels the same way as its bytes."""
        direction = self._ways[way]
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        delivery = asyncio.ensure_future(self._deliver(connection, queue, way))
        try:
            while True:
                try:
                    data = await reader.read(CHUNK_BYTES)
                except OSError:
                    data = b""
                queue.put_nowait((self._loop.time() + direction.delay_s, data))
                if not data:
                    break
                if not direction.delay_s or queue.qsize() > UNDER_WAY_CHUNKS_MAX:
                    await queue.join()
            await delivery
        finally:
            delivery.cancel()

    async def _deliver(
        self, connection: _Connection, queue: asyncio.Queue[tuple[float, bytes]], way: Way
    ) -> None:
        direction, writer = self._ways[way], connection.writers[way]
        while True:
            due, data = await queue.get()
            await self._sleep_until(due)
            if direction.bytes_s:
                direction.free_at = max(direction.free_at, self._loop.time()) + len(data) / direction.bytes_s
                await self._sleep_until(direction.free_at)
            if direction.swallow:
                connection.holed = True
                if not data:
                    return
            elif not data:
                self._end(connection)
                return
            else:
                try:
                    writer.write(data)
                    await writer.drain()
                    direction.delivered_bytes += len(data)
                except OSError:
                    pass  # That side is gone; the other direction's relay hears it too.
            queue.task_done()

    async def _sleep_until(self, due: float) -> None:
        if (left_s := due - self._loop.time()) > 0:
            await asyncio.sleep(left_s)

    def _end(self, connection: _Connection) -> None:
        """One side closed, and the other may know: its own end is told, unless nothing gets there."""
        for way, writer in connection.writers.items():
            if not self._ways[way].swallow:
                writer.close()


def readdressed(token: str, endpoint: str) -> str:
    """A site's token that sends whoever takes it to another endpoint."""
    peer = read_token(token)
    return make_token(
        Peer(name=peer.name, site_id=peer.site_id, endpoint=endpoint, public_key=peer.public_key)
    )


@contextmanager
def proxied(dialler: Site, listener: Site) -> Iterator[Proxy]:
    """A proxy through which `dialler` reaches `listener`; both know each other already and have no pair."""
    proxy = Proxy(listener.replication_port)
    try:
        dialler.farshore("peer", "add", readdressed(listener.token(), proxy.endpoint))
        yield proxy
    finally:
        proxy.close()
