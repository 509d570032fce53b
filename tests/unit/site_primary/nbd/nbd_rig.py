"""Hosts at a real connection, group and journal, over a wire that takes replies only as fast as a test says.

Time is the simulator's. `Wire` stands where asyncio's transport stands: what the host does not take is kept,
and the connection told to pause, as asyncio does at a high-water mark of 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import cast

from engine.ports.disk import Buffer
from protocol.limits import BLOCK_BYTES
from protocol.nbd.client_transmission import Answer, ClientTransmission
from protocol.nbd.constants import BASE_ALLOCATION, Command
from protocol.nbd.exports import ExportInfo, Negotiated
from site_primary.nbd.block_status import Allocation
from site_primary.nbd.connection import NbdConnection
from site_primary.nbd.exports import Export
from site_primary.nbd.host_budget import HostBudget
from site_primary.sync_gate import SyncGate
from tests.unit.engine.group_rig import GroupRig

EVERYTHING = 1 << 60


class Wire:
    """See the module's docstring. `takes`: bytes that the host takes before it stops."""

    def __init__(self, host: NbdHost) -> None:
        self.host = host
        self.takes = EVERYTHING
        self.kept = bytearray()
        self.kept_most = 0
        self.reading = True
        self.closed = False

    def writelines(self, parts: Iterable[Buffer]) -> None:
        data = b"".join(parts)
        if not self.kept:
            data = self._take(data)
        if not data:
            return
        paused = bool(self.kept)
        self.kept += data
        self.kept_most = max(self.kept_most, len(self.kept))
        if not paused:
            self.host.connection.pause_writing()

    def _take(self, data: bytes) -> bytes:
        taken, rest = data[: self.takes], data[self.takes :]
        self.takes -= len(taken)
        if taken:
            self.host.received(taken)
        return rest

    def take(self, count: int) -> None:
        """The host takes so many bytes more."""
        self.takes += count
        kept, self.kept = bytes(self.kept), bytearray()
        rest = self._take(kept)
        if rest:
            self.kept += rest
        elif kept:
            self.host.connection.resume_writing()

    def get_write_buffer_size(self) -> int:
        return len(self.kept)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            self.host.served.rig.clock.call_soon(lambda: self.host.connection.connection_lost(None))

    close = abort


class NbdServed:
    """A volume and its hosts, who share one budget. `order` says who got bytes, in order."""

    def __init__(self, rig: GroupRig, blocks: int) -> None:
        self.rig = rig
        self.blocks = blocks
        rig.create("root", blocks)
        group = rig.group
        volume = group.volume("root")
        gate = SyncGate(group, 5.0)
        self.export = Export("g/root", group.live_view(volume), group, volume, gate, read_only=False)
        self.budget = HostBudget(rig.clock.call_soon, rig.clock.call_later)
        self.order: list[tuple[str, int]] = []

    def connect(self, name: str = "host", *, structured: bool = True) -> NbdHost:
        return NbdHost(self, name, structured)

    def read(self) -> bytes:
        return self.rig.read("root")


class NbdHost:
    """One connection."""

    def __init__(self, served: NbdServed, name: str, structured: bool) -> None:
        self.served = served
        self.name = name
        self.wire = Wire(self)
        self.client = ClientTransmission()
        self.raw = bytearray()
        self._unread = b""
        info = ExportInfo(name="g/root", size_bytes=served.blocks * BLOCK_BYTES)
        contexts = {1: BASE_ALLOCATION} if structured else {}
        negotiated = Negotiated(
            export=info, structured_replies=structured, no_zeroes=True, meta_contexts=contexts
        )
        self.connection = NbdConnection(
            cast(asyncio.Transport, self.wire),
            served.export,
            negotiated,
            name,
            lambda: None,
            {at: Allocation(served.export) for at in contexts},
            served.budget,
        )

    def received(self, data: bytes) -> None:
        self.served.order.append((self.name, len(data)))
        self.raw += data
        self.client.receive(data)

    def request(
        self, command: Command, offset: int = 0, length: int = 0, payload: bytes = b"", flags: int = 0
    ) -> Answer:
        """Send a request; its answer to come."""
        answer, data = self.client.request(command, offset, length, payload, flags)
        self.send(data)
        return answer

    def write(self, offset: int, payload: bytes, flags: int = 0) -> Answer:
        return self.request(Command.WRITE, offset, len(payload), payload, flags)

    def send(self, data: bytes) -> None:
        """As a socket that is readable, as long as the daemon reads from it."""
        self._unread += data
        self.flow()

    def flow(self) -> None:
        """Deliver what was sent and not yet read."""
        while self._unread and self.wire.reading and not self.wire.closed:
            room = self.connection.get_buffer(-1)
            part, self._unread = self._unread[: len(room)], self._unread[len(room) :]
            room[: len(part)] = part
            self.connection.buffer_updated(len(part))

    def settle(self) -> None:
        """Until nothing more happens at this moment."""
        for _ in range(1000):
            before = len(self._unread), len(self.raw)
            self.flow()
            self.served.rig.settle(0)
            waits = not self._unread or not self.wire.reading or self.wire.closed
            if waits and (len(self._unread), len(self.raw)) == before:
                return
        raise AssertionError("it never settles")
