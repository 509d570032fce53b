"""What a site is made of that touches the world: its parts, as one argument to `daemon.site.Site`.

`daemon.real_parts` makes the real ones. The simulator makes its own and runs the same `Site` on them, so
nothing that a site or a group of it uses may be made elsewhere.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from daemon.event_log import EventLog
from daemon.witness import Witness
from engine.group.compartment import Compartment
from engine.group.settings import GroupSettings
from engine.index.compaction import IndexFile
from engine.index.requests import Indexer
from engine.ports.clock import Clock
from engine.ports.disk import Disk
from engine.ports.disk_threads import one_by_one
from engine.ports.store import Store
from engine.ports.transport import Transport
from site_primary.nbd.server import ExportOpener
from site_primary.nbd.tls import TcpRules

T = TypeVar("T")
# Told what is being done, and how many bytes of it are, by work that holds the loop for long.
Progress = Callable[[str, int], None]


class AllAtOnce(Protocol):
    """See `SiteParts.all_at_once`."""

    def __call__(self, work: Iterable[Callable[[], T]], /) -> list[T]: ...


def settles_none(_heads: Mapping[str, int]) -> set[str]:
    """Each group does it when it is opened."""
    return set()


async def nothing_to_close() -> None:
    """Nothing is shared."""


def no_progress(_what: str, _done_bytes: int) -> None:
    """Nobody wants to know."""


class ClosableDisk(Disk, Protocol):
    """A disk that its owner gives back."""

    def close(self) -> None:
        """Wait for what was started; nothing can be started any more. Twice is fine."""


class GroupIndexer(Indexer, Protocol):
    """An indexer that its owner ends."""

    async def stop(self) -> None:
        """End it. What waits is not carried out."""


class SiteTransport(Transport, Protocol):
    """A transport that counts what its peers have not read yet, and may be given other keys."""

    def rekey(self, public_key: str, secret_key: str) -> None:
        """Go by other keys (Z85) from now on; peers that called are disconnected, and may call again."""

    def unread_bytes(self, peer: str) -> int:
        """Bytes sent to a peer and still held here."""


class HostDoor(Protocol):
    """Where hosts connect. `connections_per_host`: most that one host may have; `tcp`: how they may come."""

    connections_per_host: int
    tcp: TcpRules

    async def listen(self, address: str) -> None:
        """Take connections at an address. Busy if it is taken."""

    def stop_listening(self, address: str) -> None:
        """Take no more connections at an address; those that there are stay."""

    async def close(self) -> None:
        """Take no more connections, and end those that there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupParts:
    """What one group stands on. Disk and indexer call back into the group's compartment."""

    disk: ClosableDisk  # rooted in the group's directory
    store: IndexFile
    indexer: GroupIndexer
    settings: GroupSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteParts:
    """What a site stands on. It closes what it was given."""

    loop: asyncio.AbstractEventLoop
    clock: Clock
    rng: random.Random
    events: EventLog
    disk: ClosableDisk  # rooted in the data directory
    store: Store  # the site's state
    transport: SiteTransport
    witness: Witness
    host_door: Callable[[ExportOpener], HostDoor]
    open_group: Callable[[str, Compartment], GroupParts]
    """Opens those of a group whose directory is there. FarshoreError or OSError; nothing stays open then."""
    settle: Callable[[Mapping[str, int]], set[str]] = settles_none
    """Before groups are opened together, given their heads: makes what their directories and their heads'
    journals are read as durable (engine.journal.recovery.settle_newest). The groups for which it was done."""
    all_at_once: AllAtOnce = one_by_one
    """Does work that waits for the disk and raises nothing, before it returns."""
    close: Callable[[], Awaitable[None]] = nothing_to_close
    """Gives back what the others share, once they are closed."""
    descriptors_left: Callable[[], bool]
    """Whether a peer may make a group: more descriptors are free than the groups here may want."""
    log_dropped: Callable[[], int] = lambda: 0
    """How many lines of the log are missing, as nobody took them."""
    progress: Progress = no_progress
