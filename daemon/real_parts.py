"""The real parts of a site: this machine's clock, disk and processes, LMDB, ZeroMQ, and sockets for hosts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import random
from collections.abc import Callable, Mapping
from functools import partial
from itertools import compress

from daemon.config import SiteConfig, nbd_access
from daemon.configured import group_settings, reserve_of
from daemon.data_directory import STATE_FILE, Identity, Keys
from daemon.event_file import EventFile
from daemon.event_log import EventLog
from daemon.group_room import descriptors_left
from daemon.indexer_pool import IndexerPool
from daemon.nbd_tls import renew_rules
from daemon.parts import GroupIndexer, GroupParts, Progress, SiteParts, no_progress
from daemon.site import Site
from daemon.state_there import require_state
from daemon.witness import Witness
from engine.group.compartment import Compartment, attempt, succeeds
from engine.group.site_state import SITE_TABLES
from engine.index.index_file import open_index_to_read
from engine.journal.recovery import settle_newest
from engine.ports.clock import SystemClock
from engine.ports.disk_threads import DiskThreads
from engine.ports.durable import RealDisk
from engine.ports.lmdb_store import LmdbStore
from engine.ports.zmq_transport import ZmqTransport
from protocol.limits import FRAME_BYTES_MAX
from site_primary.nbd.server import ExportOpener, NbdServer

STATE_ROOM_BYTES = 1 << 30
GROUPS = "groups"
PART_BYTES_MAX = FRAME_BYTES_MAX + (64 << 10)  # of a peer's message


def real_site(
    directory: pathlib.Path,
    config: SiteConfig,
    identity: Identity,
    keys: Keys,
    loop: asyncio.AbstractEventLoop,
    log_dropped: Callable[[], int] = lambda: 0,
    progress: Progress = no_progress,
) -> Site:
    """The site of a data directory that this process holds the lock of; not started yet. FarshoreError or
    OSError if its state cannot be opened."""
    clock = SystemClock(loop)

    def not_kept(error: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            said = partial(attempt, "events.defect", events.emit, "events.not_kept", error=error)
            loop.call_soon_threadsafe(said)

    events = EventLog(clock, EventFile(RealDisk(directory, None), not_kept))
    events.take_up()
    threads = DiskThreads(loop, config.journal_cache_bytes)
    disk = RealDisk(directory, threads)
    store = _state_store(directory)
    indexers = IndexerPool(directory / GROUPS)

    def open_group(name: str, compartment: Compartment) -> GroupParts:
        disk = RealDisk(directory / GROUPS / name, threads, compartment.hold)
        return _open_group(disk, site.config, indexers.of(name, compartment.broke))

    def settle(heads: Mapping[str, int]) -> set[str]:
        return _settled(directory, threads, heads)

    async def close() -> None:
        await indexers.stop()
        threads.close()

    def host_door(exports: ExportOpener) -> NbdServer:
        per_host = config.nbd_connections_per_host
        door = NbdServer(loop, exports, per_host, nbd_access(config), events.emit)
        renew_rules(directory, config, door, events.emit, clock)
        return door

    parts = SiteParts(
        loop=loop,
        clock=clock,
        rng=random.SystemRandom(),
        events=events,
        disk=disk,
        store=store,
        transport=ZmqTransport(loop, config.replication, keys.public, keys.secret, PART_BYTES_MAX),
        witness=Witness(
            chosen=config.witness,
            environment=os.environ,
            data_directory=directory,
            site_id=identity.site_id,
            clock=clock,
            disk_at=lambda root: RealDisk(root, threads),
            emit=events.emit,
        ),
        host_door=host_door,
        open_group=open_group,
        settle=settle,
        all_at_once=threads.all_at_once,
        close=close,
        descriptors_left=descriptors_left,
        log_dropped=log_dropped,
        progress=progress,
    )
    site = Site(directory=directory, config=config, identity=identity, keys=keys, parts=parts)
    return site


def _state_store(directory: pathlib.Path) -> LmdbStore:
    require_state(directory)
    return LmdbStore(directory / STATE_FILE, STATE_ROOM_BYTES, SITE_TABLES)


def _settled(directory: pathlib.Path, threads: DiskThreads, heads: Mapping[str, int]) -> set[str]:
    """The groups whose newest files could be made what a start needs."""
    work = [partial(succeeds, _settle, directory / GROUPS / name, head) for name, head in heads.items()]
    return set(compress(heads, threads.all_at_once(work)))


def _settle(directory: pathlib.Path, head: int) -> None:
    disk = RealDisk(directory, None)
    disk.sync([], [""])  # the index file's name
    if head:
        settle_newest(disk, head)


def _open_group(disk: RealDisk, config: SiteConfig, indexer: GroupIndexer) -> GroupParts:
    try:
        return GroupParts(
            disk=disk,
            store=open_index_to_read(disk.root),
            indexer=indexer,
            settings=group_settings(config, reserve_of(config, _file_system_bytes(disk.root))),
        )
    except BaseException:
        disk.close()
        raise


def _file_system_bytes(directory: pathlib.Path) -> int:
    """The size, not what is free: else a start on a full disk would keep next to nothing in reserve."""
    found = os.statvfs(directory)
    return found.f_blocks * found.f_frsize
