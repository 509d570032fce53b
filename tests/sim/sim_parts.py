"""Parts of a simulated site through which whoever watches it learns what it hears, says and opens."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from daemon.event_log import EventLog
from daemon.witness import OFF, Witness
from engine.group.group import Group
from engine.ports.disk import Buffer
from engine.ports.durable import RealDisk
from engine.ports.transport import Caller, Link, OnLinkMessage, OnServerMessage, PeerAddress
from engine.ports.zap import NONE_COMING
from site_primary.nbd.tls import TcpRules
from tests.sim.sim_network import SimTransport
from tests.sim.world import SimClock

if TYPE_CHECKING:
    from tests.sim.sim_site import SimProcess, SimSite


class Overheard:
    """A process's transport: what the peer says is looked at before production has it."""

    def __init__(self, process: SimProcess, transport: SimTransport) -> None:
        self._process = process
        self._transport = transport

    def allow(
        self,
        peers: Mapping[str, str],
        coming: Mapping[str, str] = NONE_COMING,
        on_coming: Callable[[str], None] = lambda _: None,
    ) -> None:
        """See `Transport.allow`."""
        self._transport.allow(peers, coming, on_coming)

    def rekey(self, public_key: str, secret_key: str) -> None:
        """See `SiteTransport.rekey`."""
        self._transport.rekey(public_key, secret_key)

    def listen(self, on_message: OnServerMessage) -> None:
        """See `Transport.listen`."""

        def heard(caller: Caller, header: bytes, payload: Buffer | None) -> None:
            self._process.asked(header)
            on_message(caller, header, payload)
            self._process.machine.watcher.settled(self._process.machine)

        self._transport.listen(heard)

    def dial(self, address: PeerAddress, on_message: OnLinkMessage) -> Link:
        """See `Transport.dial`."""

        def heard(header: bytes, payload: Buffer | None) -> None:
            self._process.told(header)
            on_message(header, payload)
            self._process.machine.watcher.settled(self._process.machine)

        return self._transport.dial(address, heard)

    def unread_bytes(self, peer: str) -> int:
        """See `SiteTransport.unread_bytes`."""
        return self._transport.unread_bytes(peer)

    def close(self) -> None:
        """See `Transport.close`."""
        self._transport.close()


class Reported(EventLog):
    """The site's events, which are the watcher's; no operator asks for them here."""

    def __init__(self, machine: SimSite, clock: SimClock) -> None:
        super().__init__(clock)
        self._machine = machine

    def emit(self, kind: str, **fields: object) -> None:
        """See `EventLog.emit`."""
        self._machine.watcher.emitted(self._machine, kind, fields)


class SwitchedOff(Witness):
    """The site's witness, which it asks about every group that it opened."""

    def __init__(self, machine: SimSite, directory: pathlib.Path, clock: SimClock, events: EventLog) -> None:
        super().__init__(
            chosen=OFF,
            environment={},
            data_directory=directory,
            site_id=machine.name,
            clock=clock,
            disk_at=lambda root: RealDisk(root, None),
            emit=events.emit,
        )
        self._simulated = machine

    def compare(self, group: Group, group_id: str) -> None:
        """See `Witness.compare`."""
        super().compare(group, group_id)
        self._simulated.opened(group)


class NoSockets:
    """The door of hosts, who open exports themselves (tests.sim.hosts)."""

    connections_per_host = 0
    tcp = TcpRules()

    async def listen(self, address: str) -> None:
        """See `HostDoor.listen`."""

    def stop_listening(self, address: str) -> None:
        """See `HostDoor.stop_listening`."""

    async def close(self) -> None:
        """See `HostDoor.close`."""
