"""One group at this site, put together of its parts, and the two ways to add to its journal.

The writing site appends events (`append`), a following site appends the writer's frames byte for byte
(`follow`). Both end in the same place (`GroupCore.write`): the journal file first, then the memtable and the
records, then whoever listens. Everything else here derives from the journal.

It does not know NBD, the network, or where hosts are.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from engine.group.clones import Clones
from engine.group.core import GroupCore
from engine.group.head import NotContiguous
from engine.group.head_moves import begin_writing, follow_elsewhere, note_followed
from engine.group.listeners import Emit
from engine.group.serving import given_to, require_serving, require_writing
from engine.group.settings import GroupSettings
from engine.group.site_state import SiteState
from engine.group.turned_back import TurnedBack
from engine.history.base_remains import BaseRemains
from engine.index.checkpoint_timing import Checkpoints
from engine.index.requests import Indexer
from engine.integrity.damage import DamageTable
from engine.ports.clock import Clock
from engine.ports.disk import Disk
from engine.ports.store import Store
from engine.retention.journal_space import JournalSpace
from engine.retention.kept import KeptHistory
from engine.retention.reclaim import Reclaim
from engine.retention.retention_lock import RetentionLock
from protocol.events import Record, Row
from protocol.frames import Buffer, Frame, FrameError, FramePrefix, check_frame
from protocol.positions import Cut


class Group(GroupCore):
    """The core with its parts. `recover_group` (engine.group.recovery) must run before anything else."""

    def __init__(
        self,
        *,
        name: str,
        site: str,
        disk: Disk,
        clock: Clock,
        store: Store,
        indexer: Indexer,
        state: SiteState,
        rng: random.Random,
        settings: GroupSettings,
        emit: Emit,
    ) -> None:
        super().__init__(
            name=name,
            site=site,
            disk=disk,
            clock=clock,
            store=store,
            state=state,
            rng=rng,
            settings=settings,
            emit=emit,
        )
        self.kept = KeptHistory(self)
        self.lock = RetentionLock(self)
        self.copies.lock = self.lock
        self.checkpoints = Checkpoints(self, indexer, lambda then: self.clones.when_durable(then))
        self.clones = Clones(self, self.kept)
        self.clone_timelines = self.clones.timelines
        self.space = JournalSpace(self, self.kept, self.lock, lambda: self.reclaim.consider())
        self.must_wait = lambda: self.space.must_wait
        self.reclaim = Reclaim(self, self.kept, self.lock, self.space, self.checkpoints, indexer)
        self.remains = BaseRemains(self, indexer)
        self.damage = DamageTable(self, self.kept, lambda: self.checkpoints.reached)
        self.turned_back = TurnedBack(self)
        self.listeners.space.append(self._on_no_space)

    def _on_no_space(self, lack: str) -> None:
        event = "journal.no_space" if lack else "journal.has_space"
        self.emit(event, group=self.name, reason=self.lock.why(lack))

    @property
    def handed_to(self) -> str:
        """The id of the site to which the head's last event hands the group over; or nothing."""
        return given_to(self)

    def require_serving(self) -> None:
        """WrongState if nothing may be written, as `engine.group.serving` says."""
        require_serving(self)

    def begin_writing(self) -> None:
        """See `engine.group.head_moves.begin_writing`."""
        begin_writing(self)

    def append(self, rows: Sequence[Row], payload: Sequence[Buffer], payload_bytes: int) -> Frame:
        """Append one frame of data rows with their blocks, within a frame's limits. On return it is written,
        not durable. NoSpace, Unwritable or OSError: nothing was."""
        if not self.head.began or self.holds or self.promises.handed:
            self.begin_writing()
        self.checks.own(self.head.timeline, rows, payload_bytes)
        frame = self.frame(rows, payload, payload_bytes)
        self.write(frame, rows)
        return frame

    def append_records(self, records: Sequence[Record]) -> Frame:
        """Append one frame of records; they never share a frame with data. WrongState, too, where another
        site has come to write since the caller looked."""
        require_writing(self)
        return self.append([record.to_row() for record in records], (), 0)

    def follow(self, prefix: FramePrefix, raw: Buffer, *, leave: bool = False, history: bool = False) -> None:
        """Append a frame of the writing site, exactly as it is. NotContiguous if it does not follow what is
        here; FrameError if its bytes are damaged, RemoteProtocolError if it says what it may not; NoSpace or
        OSError if it cannot be stored. Then nothing was. With `leave`, a tail that others wrote may be left
        for it and becomes a branch. One of `history`, which the other site had already, is also taken if it
        is not understood (engine.history.unread)."""
        head, frame = self.head, Frame(prefix, raw)
        if prefix.timeline != head.timeline:
            said = self.checks.followed(head.timeline, frame, history=history)
            follow_elsewhere(self, self.kept, frame, said, leave=leave)
            self.apply_unread(said.unread)
            return
        if prefix.position != self.writer.written:
            raise NotContiguous(f"expected {self.end}, got {Cut(prefix.timeline, prefix.position)}")
        check_frame(prefix, raw, head.digest)
        if prefix.utc_ns < head.utc_ns:
            raise FrameError("the frame's time is before that of the frame before it")
        said = self.checks.followed(head.timeline, frame, history=history)
        self.kept.require_reverts(said.records)
        if head.followed != prefix.timeline:
            note_followed(self, self.timelines.get(prefix.timeline))
        self.write(frame, said.rows)
        self.apply_unread(said.unread)

    def close(self) -> None:
        """Stop timers and close files; nothing more may be asked."""
        self.checkpoints.close()
        self.reclaim.close()
        self.remains.close()
        self.space.close()
        self.kept.timed.close()
        self.clones.close()
        self.writer.close()
        self.segments.close()
