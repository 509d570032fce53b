"""One group, open: its engine, what it stands on, and the compartment around both.

Opening makes the parts and recovers the group; closing leaves little that the next start must replay. What
is in the compartment calls back through it, so that a defect stops this group (`on_defect`) and no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from daemon.parts import GroupParts, Progress, SiteParts
from engine.group.compartment import Compartment, HeldClock, HeldIndexer, attempt, attempt_async
from engine.group.group import Group
from engine.group.recovery import Recovered, recover_group
from engine.group.site_state import GroupRow, SiteState
from engine.history.branch_drop import BranchDrops
from engine.index.compaction import Compaction
from engine.index.index_file import INDEX_FILE

DURABLE_TIMEOUT_S = 60.0
# A checkpoint that takes longer costs the stop more than replaying the journal costs the next start.
LAST_CHECKPOINT_TIMEOUT_S = 10.0
# With no more than this to replay, a checkpoint costs the stop more than it saves the next start.
REPLAYED_BYTES = 1 << 20
LOOK_EVERY_S = 0.02


@dataclass(slots=True)
class OpenedTogether:
    """Groups that wait for the disk together: those whose heads were `settled` before, and what is to be made
    durable once all are open, by group."""

    settled: set[str]
    later: list[tuple[str, Callable[[], None]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMaker:
    """What every group of a site is made with. `on_defect` is told which one broke, and by what."""

    parts: SiteParts
    site_id: str
    state: SiteState
    notify: Callable[[], None]
    on_defect: Callable[[str, Exception], None]

    def open(self, row: GroupRow, together: OpenedTogether | None = None) -> OpenGroup:
        """Open and recover a group. FarshoreError or OSError say why not; nothing stays open then."""
        settled = together is not None and row.name in together.settled
        had_index = settled and self.parts.disk.exists(f"groups/{row.name}/{INDEX_FILE}")
        if not had_index:
            self.parts.disk.make_directory(f"groups/{row.name}")
        later: list[Callable[[], None]] | None = None if together is None else []
        compartment = Compartment(row.name, lambda defect: self.on_defect(row.name, defect))
        parts = self.parts.open_group(row.name, compartment)
        try:
            if not had_index:
                parts.disk.sync([], [""])  # the index file's name
            indexer = HeldIndexer(parts.indexer, compartment, parts.store.make_room)
            group = Group(
                name=row.name,
                site=self.site_id,
                disk=parts.disk,
                clock=HeldClock(self.parts.clock, compartment),
                store=parts.store,
                indexer=indexer,
                state=self.state,
                rng=self.parts.rng,
                settings=parts.settings,
                emit=self.parts.events.emit,
            )
            try:
                progress = partial(self.parts.progress, f"recovering {row.name}")
                self._say(group, recover_group(group, progress, settled=settled, later=later))
                drops = BranchDrops(group, lambda _: self.notify())
                drops.resume()
                compaction = Compaction(group, parts.store, indexer, parts.disk)
                compaction.start()
            except BaseException:
                compartment.broken = True  # nothing that it began may call back into what is closed
                group.close()
                raise
        except BaseException:
            parts.store.close()
            parts.disk.close()
            raise
        if together is not None:
            together.later += [(row.name, each) for each in later or ()]
        group.on_defect = compartment.broke
        group.listeners.durable.append(self.notify)
        return OpenGroup(
            group=group,
            parts=parts,
            drops=drops,
            compaction=compaction,
            compartment=compartment,
            progress=self.parts.progress,
        )

    def _say(self, group: Group, found: Recovered) -> None:
        emit = self.parts.events.emit
        if found.torn_bytes:
            emit(
                "journal.torn_tail",
                group=group.name,
                position=found.torn_at,
                bytes=found.torn_bytes,
                reason=found.reason,
            )
        if found.unread:
            first = found.unread[0]
            emit(
                "journal.unread",
                group=group.name,
                position=str(first.cut),
                places=len(found.unread),
                error=first.reason,
            )
        if found.frames or found.removed:
            emit(
                "group.recovered",
                group=group.name,
                position=str(group.end),
                frames=found.frames,
                bytes=found.replayed_bytes,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenGroup:
    """A group that is open, with what it must be closed with."""

    group: Group
    parts: GroupParts
    drops: BranchDrops
    compaction: Compaction
    compartment: Compartment
    progress: Progress

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
        """Leave little that the next start must replay, and give everything back."""
        group = self.group
        self.compaction.close()
        await attempt_async("group.close_failed", self._last_checkpoint())
        attempt("group.close_failed", group.close)
        await attempt_async("group.close_failed", self.parts.indexer.stop())
        attempt("group.close_failed", self.parts.store.close)
        self.parts.disk.close()

    async def _last_checkpoint(self) -> None:
        """Best effort: without it the next start replays the journal instead, which is durable all the
        same."""
        group = self.group
        if group.failed:
            return
        await self._durable()
        if group.writer.written - group.checkpoints.reached <= REPLAYED_BYTES:
            return
        deadline = group.clock.monotonic() + LAST_CHECKPOINT_TIMEOUT_S
        failures = group.checkpoints.failures
        while group.checkpoints.reached < group.writer.written and not group.failed:
            group.checkpoints.begin()
            if group.checkpoints.failures > failures or group.clock.monotonic() > deadline:
                return
            self.progress(f"last checkpoint of {group.name}", 0)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _durable(self) -> None:
        reached = asyncio.Event()
        self.group.when_durable(lambda _: reached.set())
        async with asyncio.timeout(DURABLE_TIMEOUT_S):
            await reached.wait()
