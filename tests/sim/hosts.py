"""The hosts: NBD clients of whichever site serves them, that know what they were told.

Each speaks to production's `NbdConnection` in bytes, as over a socket; replies count from the moment at which
they are handed to the transport, as after a SIGKILL a host still reads what is in its socket's buffer. What a
host does not know, whether a failed or unanswered write is there, the oracle holds as `maybe`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from struct import Struct
from typing import TYPE_CHECKING, cast

from protocol.errors import FarshoreError
from protocol.limits import SECTOR_BYTES
from protocol.nbd.constants import (
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    Command,
    ReplyType,
)
from protocol.nbd.exports import Negotiated
from site_primary.nbd.connection import NbdConnection
from tests.sim.content import SECTORS_PER_BLOCK, Content, Contents, copied
from tests.sim.history import Violation
from tests.sim.host_requests import WRITES, Request
from tests.sim.mortal import ProcessDied
from tests.sim.oracle import Oracle
from tests.sim.sim_site import GROUP, SimSite

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation

_SIMPLE = Struct(">IIQ")
_CHUNK = Struct(">IHHQI")
_ERROR_BIT = 1 << 15


@dataclass(slots=True)
class HostTransport:
    """The socket, as `NbdConnection` sees it."""

    on_bytes: Callable[[bytes], None]
    on_closed: Callable[[], None]
    reading: bool = True
    closed: bool = False

    def writelines(self, parts: Iterable[bytes | bytearray | memoryview]) -> None:
        """Replies: the host has them."""
        self.on_bytes(b"".join(parts))

    def pause_reading(self) -> None:
        """The host must wait."""
        self.reading = False

    def resume_reading(self) -> None:
        """It need not any more."""
        self.reading = True

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed

    def close(self) -> None:
        """Close it."""
        if not self.closed:
            self.closed = True
            self.on_closed()

    abort = close


class WatchedConnection(NbdConnection):
    """Production's, that tells its host when it begins to handle what it has, and when it is done."""

    host: Host
    link: Connected

    def handle(self) -> None:
        self.host.handling(self.link)
        try:
            super().handle()
        except ProcessDied:
            self.host.interrupted(self.link)
            raise
        self.host.handled(self.link)

    @property
    def sectors(self) -> int:
        """What the host may ask for, whole ones."""
        return self._size // SECTOR_BYTES

    @property
    def unhandled_bytes(self) -> int:
        """Received, and not handled."""
        return self._end - self._start


@dataclass(slots=True)
class Connected:
    """A connection in use: requests without a reply, bytes delivered, bytes still to be."""

    site: SimSite
    connection: WatchedConnection
    transport: HostTransport
    structured: bool
    outstanding: dict[int, Request] = field(default_factory=dict)
    answered: list[Request] = field(default_factory=list)  # in this wake-up of the daemon
    delivered_bytes: int = 0
    unsent: bytes = b""
    received: bytes = b""

    @property
    def writes(self) -> list[Request]:
        """Those that may still be carried out."""
        return [r for r in self.outstanding.values() if r.command in WRITES and not r.applied]


class Host:
    """One connection to one volume, made again whenever it is lost."""

    def __init__(self, sim: Simulation, name: str, volume: str) -> None:
        self.name = name
        self.volume = volume
        self.acknowledged = 0
        self.errors = 0
        self._sim = sim
        self._rng = sim.world.random
        self._link: Connected | None = None

    def lost(self, site: SimSite) -> None:
        """A site's process has gone."""
        if self.connected_to(site):
            self._link = None

    def connected_to(self, site: SimSite) -> bool:
        """Whether this host is a client of that site."""
        return self._link is not None and self._link.site is site

    def leave(self, site: SimSite) -> None:
        """The site stops cleanly: it closes every connection."""
        if self._link is not None and self._link.site is site:
            self._link.transport.close()

    def act(self) -> None:
        """Once in a while: connect, or send a few requests."""
        link = self._link
        if link is None:
            for site in self._rng.sample(self._sim.sites, 2):
                if site.serving and self._link is None:
                    self._connect(site)
        elif link.site.serving and link.transport.reading:
            self._deliver(link)

    def _connect(self, site: SimSite) -> None:
        process = site.process
        assert process is not None
        try:
            info = process.exports.find(f"{GROUP}/{self.volume}")
            export = process.exports.open(info)
        except FarshoreError:
            return
        structured = self._rng.random() < 0.5
        transport = HostTransport(lambda data: self._on_bytes(link, data), lambda: self._on_closed(link))
        negotiated = Negotiated(export=info, structured_replies=structured, no_zeroes=True)
        stream = cast(asyncio.Transport, transport)
        connection = WatchedConnection(stream, export, negotiated, self.name, lambda: None)
        connection.host = self
        connection.link = self._link = link = Connected(site, connection, transport, structured)
        self._sim.laws.look(site)

    def _on_closed(self, link: Connected) -> None:
        if self._link is link:
            self._link = None
        process = link.site.process
        if process is not None:
            process.clock.call_soon(lambda: link.connection.connection_lost(None))

    # -- requests

    def _requests(self, link: Connected) -> list[Request]:
        load = self._sim.shape.load
        count = self._rng.randint(1, load.requests_max)
        return [self._request(link) for _ in range(count)]

    def _request(self, link: Connected) -> Request:
        rng, load = self._rng, self._sim.shape.load
        sectors = link.connection.sectors
        kind = rng.choices(list(load.weights), list(load.weights.values()))[0]
        request = Request(command=kind, cookie=rng.getrandbits(64))
        if kind is Command.FLUSH:
            return request
        longest = rng.choice((1, 3, 8, 16, 64, load.sectors_max))
        request.count = min(sectors, rng.randint(1, longest))
        hot = rng.random() < 0.3
        request.first = rng.randint(0, min(sectors - request.count, 24 if hot else sectors))
        if rng.random() < 0.4:
            request.first -= request.first % SECTORS_PER_BLOCK
            whole = -(-request.count // SECTORS_PER_BLOCK) * SECTORS_PER_BLOCK
            request.count = min(sectors - request.first, whole)
        if load.run_sectors and kind in WRITES:
            self._as_whole_runs(request, sectors, load.run_sectors)
        if kind is Command.WRITE:
            self._sim.tags += 1
            request.tag = self._sim.tags
        if kind in WRITES:
            request.fua = rng.random() < load.fua
        return request

    @staticmethod
    def _as_whole_runs(request: Request, sectors: int, run_sectors: int) -> None:
        """Widened to whole runs, as far as the volume has them."""
        last = max(1, sectors // run_sectors) - 1
        first = min(last, request.first // run_sectors)
        end = min(last, (request.first + request.count - 1) // run_sectors) + 1
        request.first = first * run_sectors
        request.count = min(sectors, end * run_sectors) - request.first

    def _oracle(self, link: Connected) -> Oracle:
        return self._sim.oracles[link.site.name]

    def _content(self, link: Connected) -> Content:
        return self._oracle(link).live[self.volume]

    # -- sending

    def _deliver(self, link: Connected) -> None:
        """The rest of what was begun, or new requests, perhaps not all of their bytes at once."""
        wire = link.unsent
        oracle = self._oracle(link)
        if not wire:
            end = link.delivered_bytes
            for request in self._requests(link):
                encoded = request.encode(self._content(link).volume)
                wire += encoded
                end += len(encoded)
                request.end = end
                link.outstanding[request.cookie] = request
                if request.command is Command.FLUSH:
                    request.floor = oracle.flush_begins(copied(oracle.live))
        part = self._rng.choice((len(wire), len(wire), self._rng.randint(1, len(wire))))
        link.unsent = wire[part:]
        at = 0
        while at < part and not link.transport.closed:
            room = link.connection.get_buffer(-1)
            taken = min(len(room), part - at)
            room[:taken] = wire[at : at + taken]
            at += taken
            link.delivered_bytes += taken
            link.connection.buffer_updated(taken)

    # -- the daemon's wake-ups

    def handling(self, link: Connected) -> None:
        """The daemon begins with what was delivered: any of it may get into the journal."""
        oracle = self._oracle(link)
        link.answered = []
        pending = copied(oracle.live)
        for request in link.writes:
            request.after = oracle.end
            pending[self.volume].may_write(*request.changed(), request.tag)
            for floor in oracle.all_floors():
                if floor is not request.floor and self.volume in floor.contents:
                    floor.contents[self.volume].may_write(*request.changed(), request.tag)
            if request.fua and request.floor is None:
                request.floor = oracle.flush_begins(copied(pending))
                request.floor.contents[self.volume].write(*request.changed(), request.tag)
        oracle.begin(pending)

    def handled(self, link: Connected) -> None:
        """It has done with it."""
        self._check_reads(link)
        after, unsure = self._after(link, died=False)
        if any(request.error for request in link.answered):
            self._oracle(link).fail(after, [(self.volume, *r.changed(), r.tag) for r in unsure])
        else:
            self._oracle(link).finish(after)

    def interrupted(self, link: Connected) -> None:
        """It died with it."""
        self._oracle(link).interrupted(self._after(link, died=True)[0])

    def _after(self, link: Connected, *, died: bool) -> tuple[Contents, list[Request]]:
        """What the hosts know after a wake-up, and the writes of which they do not know what came."""
        live, unsure = copied(self._oracle(link).live), []
        content = live[self.volume]
        gone = died or link.transport.closed
        consumed = link.delivered_bytes - link.connection.unhandled_bytes
        answered = [request for request in link.answered if request.command in WRITES and not request.applied]
        for request in sorted((*answered, *link.writes), key=lambda request: request.end):
            if request.error == 0:
                content.write(*request.changed(), request.tag)
            elif request.error is not None or gone:
                content.may_write(*request.changed(), request.tag)
                unsure.append(request)
            elif request.end <= consumed:
                request.applied = True
                content.write(*request.changed(), request.tag)
        return live, unsure

    def _check_reads(self, link: Connected) -> None:
        """What was read together with writes may be from before or after them."""
        oracle = self._oracle(link)
        if oracle.pending is None:
            raise Violation("a wake-up within a wake-up")
        reads = [each for each in link.answered if each.command is Command.READ and each.error == 0]
        mixed = bool(reads and oracle.pending[self.volume].maybe)
        for request in reads:
            content = oracle.pending[self.volume] if mixed else self._content(link)
            if len(request.data) != request.count * SECTOR_BYTES:
                raise Violation(f"a read of {request.count} sectors gave {len(request.data)} bytes")
            wrong = content.mismatch(request.first, request.data, settle=not mixed)
            if wrong:
                raise Violation(f"L1: {self.name} read {self.volume}: {wrong}")
            oracle.history.checked += 1

    # -- replies

    def _on_bytes(self, link: Connected, data: bytes) -> None:
        link.received += data
        while (taken := self._reply(link, link.received)) > 0:
            link.received = link.received[taken:]

    def _reply(self, link: Connected, data: bytes) -> int:
        """Take one reply off the front; the number of its bytes, or 0."""
        if len(data) < _SIMPLE.size:
            return 0
        magic, error, cookie = _SIMPLE.unpack_from(data)
        if magic == SIMPLE_REPLY_MAGIC:
            request = self._find(link, cookie)
            length = 0
            if request.command is Command.READ and not error:
                length = request.count * SECTOR_BYTES
            if len(data) < _SIMPLE.size + length:
                return 0
            self._answered(link, request, error, data[_SIMPLE.size : _SIMPLE.size + length])
            return _SIMPLE.size + length
        magic, _, kind, cookie, length = _CHUNK.unpack_from(data)
        if magic != STRUCTURED_REPLY_MAGIC or not link.structured:
            raise Violation(f"{self.name} got a reply with magic {magic:#x}")
        request = self._find(link, cookie)
        body = data[_CHUNK.size : _CHUNK.size + length]
        if kind & _ERROR_BIT:
            self._answered(link, request, int.from_bytes(body[:4], "big"), b"")
        elif kind == ReplyType.OFFSET_DATA:
            self._answered(link, request, 0, body[8:])
        else:
            self._answered(link, request, 0, b"")
        return _CHUNK.size + length

    def _find(self, link: Connected, cookie: int) -> Request:
        if (request := link.outstanding.get(cookie)) is None:
            raise Violation(f"{self.name} got a reply to a request that it does not wait for")
        return request

    def _answered(self, link: Connected, request: Request, error: int, data: bytes) -> None:
        del link.outstanding[request.cookie]
        oracle = self._oracle(link)
        request.error, request.data = error, data
        link.answered.append(request)
        where = (request.first, request.count)
        self._sim.world.note(self.name, request.command.name, *where, request.tag, error)
        if error:
            self.errors += 1
            if request.floor is not None and request.floor in oracle.floors:
                oracle.floors.remove(request.floor)
            return
        if request.command in WRITES:
            self.acknowledged += 1
            self._sim.trace.acknowledged(link.site.name, oracle.end)
            self._sim.laws.acknowledged(link.site, request.after if request.changed()[1] else None)
        if request.floor is not None:
            oracle.flush_done(request.floor)
            self._sim.laws.flushed(request.floor.cut)
