"""One group at this site: its journal, what the journal says, and the two ways to add to it.

The writing site appends events (`append`), a following site appends the writer's frames byte for byte
(`follow`). Both end in the same place: the journal file first, then the memtable and the records, then
whoever listens. Everything else here derives from the journal.

It does not know NBD, the network, or where hosts are.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.copies.copy_marks import GroupCopies
from engine.copies.policies import Policies
from engine.group.clones import Clones
from engine.group.compartment import Defect
from engine.group.frame_checks import FrameChecks
from engine.group.frame_times import FrameTimes
from engine.group.head import Head, NotContiguous
from engine.group.head_moves import begin_timeline, follow_elsewhere, note_followed
from engine.group.listeners import GroupListeners
from engine.group.record_tables import RecordTables
from engine.group.serving import Holds, given_to, refusal
from engine.group.site_state import SiteState
from engine.group.turned_back import TurnedBack
from engine.group.whole import all_or_stop, holds_together
from engine.history.promises import Promises
from engine.history.timelines import Span, TimelineTable, holds_cut
from engine.history.unread import UnreadFrame, UnreadFrames
from engine.history.visibility import visibility
from engine.history.volumes import Volume, VolumeHistory
from engine.index.checkpoint_timing import Checkpoints
from engine.index.memtable import Memtable
from engine.index.requests import Indexer
from engine.index.view import VolumeView
from engine.integrity.damage import DamageTable
from engine.journal.reader import JournalReader
from engine.journal.segments import SegmentMap
from engine.journal.writer import DurableCallback, JournalWriter
from engine.ports.clock import Clock
from engine.ports.disk import Disk
from engine.ports.store import Store
from engine.retention.folding import Folding
from engine.retention.retention_lock import RetentionLock
from protocol.errors import NotFound
from protocol.events import LAST_DATA_KIND, Record, Row, records_of
from protocol.frames import Buffer, Frame, FrameError, FramePrefix, check_frame
from protocol.limits import CHECKPOINT_AFTER_BYTES, MEMTABLE_VERSIONS_HARD, MEMTABLE_VERSIONS_SOFT
from protocol.positions import POSITION_MAX, Cut, timeline_text

Emit = Callable[..., None]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSettings:
    """`journal_limit_bytes` bounds the journal; `reserve_bytes` of the file system stay free for
    checkpoints. Any cut within `window_s` and `window_bytes` of the end can be read; `throttle`: see
    `engine.retention.pressure`, `lock_window_s`: `engine.retention.retention_lock`."""

    journal_limit_bytes: int
    reserve_bytes: int
    memtable_soft: int = MEMTABLE_VERSIONS_SOFT
    memtable_hard: int = MEMTABLE_VERSIONS_HARD
    checkpoint_after_bytes: int = CHECKPOINT_AFTER_BYTES
    window_s: float = 86_400.0
    window_bytes: int = POSITION_MAX
    throttle: bool = False
    lock_window_s: float = 0.0


class Group:
    """See the module's docstring. `recover_group` (engine.group.recovery) must run before anything else."""

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
        self.name = name
        self.site = site
        self.disk = disk
        self.clock = clock
        self.store = store
        self.state = state
        self.settings = settings
        self.emit = emit
        self.checkpoints = Checkpoints(self, indexer)
        self._rng = rng
        self.timelines = TimelineTable()
        self.segments = SegmentMap(disk)
        self.reader = JournalReader(self.segments)
        self.volumes = VolumeHistory()
        self.lock = RetentionLock(self)
        self.copies = GroupCopies(name, state, self.lock)
        self.policies = Policies()
        self.memtable = Memtable()
        self.listeners = GroupListeners()
        self.writer = JournalWriter(
            disk,
            clock,
            self.segments,
            limit_bytes=settings.journal_limit_bytes,
            reserve_bytes=settings.reserve_bytes,
            on_durable=self._on_durable,
            on_failed=self._on_failed,
            on_space=lambda lack: emit(
                "journal.no_space" if lack else "journal.has_space", group=name, reason=self.lock.why(lack)
            ),
        )
        self.folding = Folding(self, indexer)
        self.unread = UnreadFrames(name, state, self.timelines, self.end_of)
        self.checks = FrameChecks(self.timelines, self.volumes, self.unread)
        self.damage = DamageTable(self)
        self.head = Head()
        self._times = FrameTimes(clock)
        self.failed = ""
        self.holds = Holds(self.view_changed)
        self.turned_back = TurnedBack(self)
        self.on_defect: Defect = lambda _: None  # stops the group; whoever composes it says how
        self.promises = Promises()
        self.records = RecordTables(self.volumes, self.copies, self.policies, self.promises, self.unread)
        self.clones = Clones(self)

    # -- what is here

    @property
    def end(self) -> Cut:
        """The head and everything written to it."""
        return Cut(self.head.timeline, self.writer.written)

    @property
    def history(self) -> Group:
        """As for a clone, to which this is another."""
        return self

    def spans(self, end: int = POSITION_MAX) -> list[Span]:
        """The head's lineage; empty if the group has no timeline yet."""
        return self.timelines.lineage(self.head.timeline, end) if self.head else []

    @property
    def handed_to(self) -> str:
        """The id of the site to which the head's last event hands the group over; or nothing."""
        return given_to(self)

    @property
    def strict(self) -> bool:
        """Whether hosts are promised, as the head's lineage says, that the peer has every write."""
        return self.promises.strict(self.spans(self.writer.written))

    @property
    def overloaded(self) -> bool:
        """Whether hosts and senders must wait: for a checkpoint (memtable full) or a fold (journal full)."""
        return self.memtable.count >= self.settings.memtable_hard or self.folding.space.must_wait

    def volume(self, name: str) -> Volume:
        """A volume that exists now; NotFound."""
        return self.volumes.find(self.spans(), name, f"{self.name}/{name}")

    def live_view(self, volume: Volume) -> VolumeView:
        """The volume as it is; make it anew when `listeners.view` says so."""
        return self.view_on(volume, self.head.timeline)

    def view_on(self, volume: Volume, timeline: int) -> VolumeView:
        """The volume as it is on a timeline that goes on."""
        return self._view(volume, timeline, POSITION_MAX)

    def view_at(self, name: str, cut: Cut) -> VolumeView:
        """The volume of that name at a cut (engine.history.cuts checks and resolves). Trimmed if it is no
        longer kept."""
        self.folding.require(cut)
        spans = self.timelines.lineage(cut.timeline, cut.position)
        volume = self.volumes.find(spans, name, f"{self.name}/{name}@{cut}")
        return self._view(volume, cut.timeline, cut.position)

    def _view(self, volume: Volume, head: int, end: int) -> VolumeView:
        return VolumeView(
            volume=volume.id,
            size_bytes=volume.size_bytes,
            intervals=visibility(self.timelines, self.volumes, volume.id, head, end),
            memtable=self.memtable,
            segments=self.segments,
            store=self.store,
        )

    def end_of(self, timeline: int) -> int:
        """The position up to which this site holds a timeline's frames; NotFound."""
        if timeline == self.head.timeline:
            return self.writer.written
        end = self.head.left.get(self.timelines.get(timeline).id)
        if end is None:  # it lies in the gap below a base
            raise NotFound(f"nothing of timeline {timeline_text(timeline)} came here", subject=self.name)
        return end

    def leaves(self, timeline: int) -> int:
        """The position up to which a timeline is part of the head's lineage; 0 if it is none."""
        if timeline == self.head.timeline:
            return self.writer.written
        return next((span.end for span in self.spans() if span.timeline == timeline), 0)

    def holds_cut(self, cut: Cut) -> bool:
        """Whether a cut lies on the head's lineage, at or before what is written. Not whether it is a frame
        boundary."""
        return holds_cut(self.spans(self.writer.written), cut)

    # -- writing

    @holds_together
    def begin_writing(self) -> None:
        """Make this run's own timeline, once: the first write after any start must not share positions with a
        tail that another site may have seen. Waits for two syncs. NoSpace or OSError leaves all as it was."""
        self.require_serving()
        if not self.head.began:
            begin_timeline(self)

    def new_id(self) -> int:
        """A random id for a timeline; never 0."""
        return self._rng.getrandbits(64) | 1

    def head_moved(self, left: Cut, timeline: int, position: int) -> None:
        """The head is another timeline from now on, at `position`: nothing past it on this lineage is
        indexed."""
        self.head.moved(left, timeline)
        self.checkpoints.head_moved(left, position)

    def promise_utc_ns(self) -> int:
        """The time now. Every frame that this run still writes says a later one, whatever the clock does."""
        return self._times.promise_ns(self.head.utc_ns)

    def append(self, rows: Sequence[Row], payload: Sequence[Buffer], payload_bytes: int) -> Frame:
        """Append one frame of data rows with their blocks, within a frame's limits. On return it is written,
        not durable. NoSpace, Unwritable or OSError: nothing was."""
        if not self.head.began or self.holds or self.promises.handed:
            self.begin_writing()
        self.checks.own(self.head.timeline, rows, payload_bytes)
        frame = self.frame(rows, payload, payload_bytes)
        self._write(frame, rows)
        return frame

    def frame(self, rows: Sequence[Row], payload: Sequence[Buffer], payload_bytes: int) -> Frame:
        """The frame that comes next, not yet written."""
        return self.writer.next_frame(self.next_utc_ns(), self.head.digest, rows, payload, payload_bytes)

    def next_utc_ns(self) -> int:
        """The time of the next frame: not before that of the last one, nor before what was promised."""
        return self._times.next_ns(self.head.utc_ns)

    def append_records(self, records: Sequence[Record]) -> Frame:
        """Append one frame of records; they never share a frame with data."""
        return self.append([record.to_row() for record in records], (), 0)

    def follow(self, prefix: FramePrefix, raw: Buffer, *, leave: bool = False, history: bool = False) -> None:
        """Append a frame of the writing site, exactly as it is. NotContiguous if it does not follow what is
        here; FrameError if its bytes are damaged, RemoteProtocolError if it says what it may not; NoSpace or
        OSError if it cannot be stored. Then nothing was. With `leave`, a tail that others wrote may be left
        for it and becomes a branch. One of `history`, which the other site had already, is also taken if it
        is not understood (engine.history.unread)."""
        writer = self.writer
        frame = Frame(prefix, raw)
        if prefix.timeline != self.head.timeline:
            said = self.checks.followed(self.head.timeline, frame, history=history)
            follow_elsewhere(self, frame, said.rows, said.records, leave=leave)
            self._took_unread(said.unread)
            return
        if prefix.position != writer.written:
            raise NotContiguous(f"expected {self.end}, got {Cut(prefix.timeline, prefix.position)}")
        check_frame(prefix, raw, self.head.digest)
        if prefix.utc_ns < self.head.utc_ns:
            raise FrameError("the frame's time is before that of the frame before it")
        said = self.checks.followed(self.head.timeline, frame, history=history)
        self.folding.require_reverts(said.records)
        if self.head.followed != prefix.timeline:
            note_followed(self, self.timelines.get(prefix.timeline))
        self._write(frame, said.rows)
        self._took_unread(said.unread)

    def _took_unread(self, unread: UnreadFrame | None) -> None:
        """A frame was just journaled; if it is not understood, say so, and whoever serves looks again."""
        if unread is not None:
            self.unread.took(unread)
            where = {"group": self.name, "position": str(unread.cut)}
            self.emit("journal.unread", **where, places=1, error=unread.reason)
            self.view_changed()

    @holds_together
    def _write(self, frame: Frame, rows: Sequence[Row]) -> None:
        self.writer.append(frame)
        self.took(frame, rows)

    @all_or_stop
    def took(self, frame: Frame, rows: Sequence[Row]) -> None:
        """A frame is in the journal file: let everything that derives from it follow."""
        prefix = frame.prefix
        self.head.took(prefix)
        self.take(prefix, self.writer.lane, rows)
        for listener in self.listeners.frame:
            listener(frame)
        if self.memtable.layers[-1].count >= self.settings.memtable_soft or (
            prefix.end - self.checkpoints.reached >= self.settings.checkpoint_after_bytes
        ):
            self.checkpoints.begin()

    def take(self, prefix: FramePrefix, lane: int, rows: Sequence[Row]) -> None:
        """Memtable and records of one frame that is in the journal; `rows` are what is taken of it."""
        if not rows:
            return
        if rows[0][0] <= LAST_DATA_KIND:
            self.memtable.apply(lane, rows, prefix.payload_at)
            return
        for index, record in records_of(rows):
            position = prefix.position + index
            self.records.apply(prefix.timeline, prefix.position, position, prefix.utc_ns, record)
        self.view_changed()

    @all_or_stop
    def view_changed(self) -> None:
        self.checks.changed()
        for listener in self.listeners.view:
            listener()

    # -- durability and checkpoints

    @holds_together
    def when_durable(self, callback: DurableCallback) -> None:
        """Call back once everything written so far is durable here, or never will be."""
        self.writer.when_durable(self.writer.written, callback)

    def _on_durable(self) -> None:
        for listener in self.listeners.durable:
            listener()

    def _on_failed(self, error: OSError) -> None:
        self.failed = f"journal sync failed: {error.strerror or error}"
        self.emit("journal.failed", group=self.name, position=str(self.end), error=str(error))
        self.view_changed()

    def require_serving(self) -> None:
        """WrongState if nothing may be written, as `engine.group.serving` says."""
        why = refusal(self)
        if why is not None:
            raise why

    def close(self) -> None:
        """Stop timers and close files; nothing more may be asked."""
        self.checkpoints.close()
        self.folding.close()
        self.clones.close()
        self.writer.close()
        self.segments.close()
