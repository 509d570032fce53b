"""One group, open: its engine, what it stands on, and the compartment around both.

Opening makes the parts and recovers the group; closing leaves nothing that the next start must replay. What
is in the compartment calls back through it, so that a defect stops this group (`on_defect`) and no other.
"""

from __future__ import annotations

import asyncio
import pathlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from daemon.config import SiteConfig
from daemon.indexer_process import IndexerProcess
from engine.group.compartment import Compartment, HeldClock, HeldIndexer, attempt, attempt_async
from engine.group.group import Group
from engine.group.listeners import Emit
from engine.group.recovery import Recovered, recover_group
from engine.group.settings import GroupSettings
from engine.group.site_state import GroupRow, SiteState
from engine.history.branch_drop import BranchDrops
from engine.index.compaction import Compaction
from engine.index.index_file import open_index
from engine.ports.durable import RealDisk
from engine.ports.lmdb_store import LmdbStore
from protocol.positions import POSITION_MAX

LAST_CHECKPOINT_TIMEOUT_S = 60.0
RESERVE_PART = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMaker:
    """What every group of a site is made with. `on_defect` is told which one broke, and by what."""

    directory: pathlib.Path
    loop: asyncio.AbstractEventLoop
    site_id: str
    config: SiteConfig
    state: SiteState
    rng: random.Random
    emit: Emit
    notify: Callable[[], None]
    on_defect: Callable[[str, Exception], None]

    def open(self, row: GroupRow) -> OpenGroup:
        """Open and recover a group whose directory is there. FarshoreError or OSError say why not; nothing
        stays open then."""
        directory = self.directory / "groups" / row.name
        compartment = Compartment(row.name, lambda defect: self.on_defect(row.name, defect))
        disk = RealDisk(directory, self.loop, compartment.hold)
        try:
            store = open_index(directory)
        except BaseException:
            disk.close()
            raise
        indexer = IndexerProcess(directory, compartment.broke)
        try:
            disk.sync([], [""])  # the index file's name
            group = self._group(row, disk, store, indexer, compartment)
            try:
                self._say(group, recover_group(group))
                drops = BranchDrops(group, lambda _: self.notify())
                drops.resume()
                compaction = Compaction(group, store, HeldIndexer(indexer, compartment), disk)
                compaction.start()
            except BaseException:
                compartment.broken = True  # nothing that it began may call back into what is closed
                group.close()
                raise
        except BaseException:
            store.close()
            disk.close()
            raise
        group.on_defect = compartment.broke
        group.listeners.durable.append(self.notify)
        return OpenGroup(
            group=group,
            disk=disk,
            store=store,
            indexer=indexer,
            drops=drops,
            compaction=compaction,
            compartment=compartment,
        )

    def _group(
        self,
        row: GroupRow,
        disk: RealDisk,
        store: LmdbStore,
        indexer: IndexerProcess,
        compartment: Compartment,
    ) -> Group:
        config = self.config
        return Group(
            name=row.name,
            site=self.site_id,
            disk=disk,
            clock=HeldClock(self.loop, compartment),
            store=store,
            indexer=HeldIndexer(indexer, compartment),
            state=self.state,
            rng=self.rng,
            settings=GroupSettings(
                journal_limit_bytes=config.journal_limit_bytes or POSITION_MAX,
                reserve_bytes=min(config.reserve_bytes, disk.free_bytes() // RESERVE_PART),
                window_s=config.window_s,
                window_bytes=config.window_bytes or POSITION_MAX,
                throttle=config.throttle,
                lock_window_s=config.lock_window_s,
            ),
            emit=self.emit,
        )

    def _say(self, group: Group, found: Recovered) -> None:
        if found.torn_bytes:
            self.emit(
                "journal.torn_tail",
                group=group.name,
                position=found.torn_at,
                bytes=found.torn_bytes,
                reason=found.reason,
            )
        if found.unread:
            first = found.unread[0]
            self.emit(
                "journal.unread",
                group=group.name,
                position=str(first.cut),
                places=len(found.unread),
                error=first.reason,
            )
        if found.frames or found.removed:
            self.emit(
                "group.recovered",
                group=group.name,
                position=str(group.end),
                frames=found.frames,
                bytes=found.replayed_bytes,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenGroup:
    """See the module's docstring."""

    group: Group
    disk: RealDisk
    store: LmdbStore
    indexer: IndexerProcess
    drops: BranchDrops
    compaction: Compaction
    compartment: Compartment

    def stop(self, reason: str) -> None:
        """Serve nothing more, after a defect: hosts go, and nothing that was begun goes on."""
        group = self.group
        group.failed = group.failed or reason
        for clone in group.clones:
            clone.failed = clone.failed or reason
            for on_view in list(clone.on_view):
                attempt("group.defect", on_view)
        # Each by itself: what one of them finds broken must not keep the next one's hosts.
        for listener in list(group.listeners.view):
            attempt("group.defect", listener)

    async def close(self) -> None:
        """Leave nothing that the next start must replay, and give everything back."""
        group = self.group
        self.compaction.close()
        await attempt_async("group.close_failed", self._last_checkpoint())
        attempt("group.close_failed", group.close)
        await attempt_async("group.close_failed", self.indexer.stop())
        attempt("group.close_failed", self.store.close)
        self.disk.close()

    async def _last_checkpoint(self) -> None:
        """Best effort: without it the next start replays the journal instead."""
        group = self.group
        deadline = group.clock.monotonic() + LAST_CHECKPOINT_TIMEOUT_S
        failures = group.checkpoints.failures
        while group.checkpoints.reached < group.writer.written and not group.failed:
            group.checkpoints.begin()
            if group.checkpoints.failures > failures:
                return
            if group.clock.monotonic() > deadline:
                group.emit("checkpoint.failed", group=group.name, error="not done in time for the stop")
                return
            await asyncio.sleep(0.01)
