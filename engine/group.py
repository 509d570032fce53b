"""One group at this site: its journal, what the journal says, and the two ways to add to it.

The writing site appends events (`append`), a following site appends the writer's frames byte for byte
(`follow`). Both end in the same place: the journal file first, then the memtable and the records, then
whoever listens. Everything else here derives from the journal.

It does not know NBD, the network, or where hosts are.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from engine.checkpointing import Checkpoints
from engine.copies import CopyTable
from engine.index_requests import Indexer
from engine.journal.reader import JournalReader
from engine.journal.segments import SegmentMap
from engine.journal.writer import DurableCallback, JournalWriter
from engine.memtable import Memtable
from engine.ports.clock import Clock
from engine.ports.disk import Disk
from engine.ports.store import Store
from engine.site_state import SiteState
from engine.timelines import Span, Timeline, TimelineTable, holds_cut
from engine.view import VolumeView
from engine.visibility import visibility
from engine.volumes import Volume, VolumeHistory
from protocol.errors import FarshoreError, RemoteProtocolError, WrongState
from protocol.events import (
    LAST_DATA_KIND,
    Mark,
    Record,
    Revert,
    Row,
    TimelineBegan,
    VolumeCreated,
    VolumeDeleted,
    record_from_row,
)
from protocol.frames import (
    NO_DIGEST,
    Buffer,
    Frame,
    FrameError,
    FramePrefix,
    check_frame,
    decode_rows,
    encode_frame,
)
from protocol.limits import CHECKPOINT_AFTER_BYTES, MEMTABLE_VERSIONS_HARD, MEMTABLE_VERSIONS_SOFT
from protocol.positions import POSITION_MAX, Cut

Emit = Callable[..., None]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSettings:
    """`journal_limit_bytes` bounds the journal; `reserve_bytes` of the file system stay free for
    checkpoints."""

    journal_limit_bytes: int
    reserve_bytes: int
    memtable_soft: int = MEMTABLE_VERSIONS_SOFT
    memtable_hard: int = MEMTABLE_VERSIONS_HARD
    checkpoint_after_bytes: int = CHECKPOINT_AFTER_BYTES


@dataclass(slots=True)
class GroupListeners:
    """Who wants to know. Called in order, on the group's loop; none may raise."""

    frame: list[Callable[[Frame], None]] = field(default_factory=list)
    durable: list[Callable[[], None]] = field(default_factory=list)
    view: list[Callable[[], None]] = field(default_factory=list)
    relief: list[Callable[[], None]] = field(default_factory=list)


class NotContiguous(Exception):
    """A frame does not follow what is here; the sender must find out where to go on."""


class Group:
    """See the module's docstring. `recover_group` (engine.group_recovery) must run before anything else."""

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
        self.copies = CopyTable()
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
                "journal.no_space" if lack else "journal.has_space", group=name, reason=lack
            ),
        )
        self.head = 0
        self.digest = NO_DIGEST
        self.utc_ns = 0
        self._utc_floor_ns = 0
        self.began = False  # whether this run has its own timeline
        self.failed = ""

    # -- what is here

    @property
    def end(self) -> Cut:
        """The head and everything written to it."""
        return Cut(self.head, self.writer.written)

    def spans(self, end: int = POSITION_MAX) -> list[Span]:
        """The head's lineage; empty if the group has no timeline yet."""
        return self.timelines.lineage(self.head, end) if self.head else []

    @property
    def overloaded(self) -> bool:
        """Whether hosts and senders must wait for a checkpoint: the memtable is at its limit."""
        return self.memtable.count >= self.settings.memtable_hard

    def volume(self, name: str) -> Volume:
        """A volume that exists now; NotFound."""
        return self.volumes.find(self.spans(), name, f"{self.name}/{name}")

    def live_view(self, volume: Volume) -> VolumeView:
        """The volume as it is; make it anew when `listeners.view` says so."""
        return self._view(volume, self.head, POSITION_MAX)

    def view_at(self, name: str, cut: Cut) -> VolumeView:
        """The volume of that name at a cut of the head's lineage (engine.cuts checks and resolves)."""
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

    def holds_cut(self, cut: Cut) -> bool:
        """Whether a cut lies on the head's lineage, at or before what is written. Not whether it is a frame
        boundary."""
        return holds_cut(self.spans(self.writer.written), cut)

    # -- writing

    def begin_writing(self) -> None:
        """Make this run's own timeline, once: the first write after any start must not share positions with a
        tail that another site may have seen. Waits for two syncs. NoSpace or OSError leaves all as it was."""
        self._require_serving()
        if self.began:
            return
        parent, fork = self.head, self.writer.written
        timeline = Timeline(
            id=self._rng.getrandbits(64) | 1,
            parent=parent,
            fork=fork,
            generation=self.timelines.get(parent).generation + 1 if parent else 1,
            writer=self.site,
            lane=self.timelines.lane_for_child(parent, fork, fork),
        )
        began = TimelineBegan(
            parent=parent, fork=fork, generation=timeline.generation, writer=self.site, group=self.name
        )
        frame = encode_frame(
            timeline=timeline.id,
            position=fork,
            utc_ns=max(self.clock.utc_ns(), self.utc_ns, self._utc_floor_ns),
            durable=fork,
            previous_digest=self.digest,
            rows=[began.to_row()],
            payload=(),
            payload_bytes=0,
        )
        self._adopt_timeline(timeline, frame)
        self.began = True
        self.emit("timeline.began", group=self.name, timeline=f"{timeline.id:016x}", position=fork)

    def promise_utc_ns(self) -> int:
        """The time now. Every frame that this run still writes says a later one, whatever the clock does."""
        self._utc_floor_ns = max(self.clock.utc_ns(), self.utc_ns, self._utc_floor_ns) + 1
        return self._utc_floor_ns - 1

    def append(self, rows: Sequence[Row], payload: Sequence[Buffer], payload_bytes: int) -> Frame:
        """Append one frame of data rows with their blocks, within a frame's limits. On return it is written,
        not durable. NoSpace or OSError: nothing was."""
        if not self.began:
            self.begin_writing()
        writer = self.writer
        frame = encode_frame(
            timeline=writer.timeline,
            position=writer.written,
            utc_ns=max(self.clock.utc_ns(), self.utc_ns, self._utc_floor_ns),
            durable=writer.durable,
            previous_digest=self.digest,
            rows=rows,
            payload=payload,
            payload_bytes=payload_bytes,
        )
        writer.append(frame)
        self._took(frame, rows)
        return frame

    def append_records(self, records: Sequence[Record]) -> Frame:
        """Append one frame of records; they never share a frame with data."""
        return self.append([record.to_row() for record in records], (), 0)

    def follow(self, prefix: FramePrefix, raw: Buffer) -> None:
        """Append a frame of the writing site, exactly as it is. NotContiguous if it does not follow what is
        here; FrameError if its bytes are damaged; NoSpace or OSError if it cannot be stored. Then nothing
        was."""
        writer = self.writer
        frame = Frame(prefix, raw)
        if prefix.timeline != self.head:
            self._follow_fork(frame)
            return
        if prefix.position != writer.written:
            raise NotContiguous(f"expected {self.end}, got {Cut(prefix.timeline, prefix.position)}")
        check_frame(prefix, raw, self.digest)
        if prefix.utc_ns < self.utc_ns:
            raise FrameError("the frame's time is before that of the frame before it")
        rows = decode_rows(prefix, raw)
        records_of(rows)
        writer.append(frame)
        self._took(frame, rows)

    def _follow_fork(self, frame: Frame) -> None:
        prefix = frame.prefix
        rows = decode_rows(prefix, frame.raw)
        records = records_of(rows)
        began = records[0][1] if records else None
        if not isinstance(began, TimelineBegan) or len(rows) != 1 or began.fork != prefix.position:
            raise NotContiguous(f"timeline {prefix.timeline:016x} is not known here")
        if prefix.timeline in self.timelines:
            raise NotContiguous(f"timeline {prefix.timeline:016x} has been left for {self.head:016x}")
        if began.parent != self.head and not (began.parent == 0 == self.head):
            raise NotContiguous(f"timeline {prefix.timeline:016x} does not leave {self.head:016x}")
        if began.fork > self.writer.written:
            raise NotContiguous(f"expected {self.end}, got a fork at {began.fork}")
        digest = (
            self.reader.digest_at(self.timelines, began.parent, began.fork) if began.parent else NO_DIGEST
        )
        check_frame(prefix, frame.raw, digest)
        timeline = Timeline(
            id=prefix.timeline,
            parent=began.parent,
            fork=began.fork,
            generation=began.generation,
            writer=began.writer,
            lane=self.timelines.lane_for_child(began.parent, began.fork, self.writer.written),
        )
        tail_bytes = self.writer.written - began.fork
        self._adopt_timeline(timeline, frame)
        self.emit(
            "timeline.followed",
            group=self.name,
            timeline=f"{timeline.id:016x}",
            position=began.fork,
            tail_bytes=tail_bytes,
        )
        if tail_bytes:
            self.emit("timeline.tail_kept", group=self.name, position=began.fork, bytes=tail_bytes)

    def _adopt_timeline(self, timeline: Timeline, frame: Frame) -> None:
        """Put the head on a new timeline whose first frame is `frame`: all durable before anyone relies on
        it."""
        writer = self.writer
        before = (writer.timeline, writer.lane, writer.written)
        if writer.written > writer.durable:
            writer.sync_now()
        writer.start(timeline.id, timeline.lane, timeline.fork)
        try:
            writer.append(frame)
            writer.sync_now()
            self.state.set_head(self.name, timeline.id)
        except (OSError, FarshoreError):
            writer.start(*before)
            raise
        self.timelines.add(timeline)
        self.head = timeline.id
        self._took(frame, decode_rows(frame.prefix, frame.raw))
        self._view_changed()

    def _took(self, frame: Frame, rows: Sequence[Row]) -> None:
        """A frame is in the journal file: let everything that derives from it follow."""
        prefix = frame.prefix
        self.digest = prefix.digest
        self.utc_ns = prefix.utc_ns
        self.take(prefix, self.writer.lane, rows)
        for listener in self.listeners.frame:
            listener(frame)
        if self.memtable.layers[-1].count >= self.settings.memtable_soft or (
            prefix.end - self.checkpoints.reached >= self.settings.checkpoint_after_bytes
        ):
            self.checkpoints.begin()

    def take(self, prefix: FramePrefix, lane: int, rows: Sequence[Row]) -> None:
        """Memtable and records of one frame that is in the journal."""
        if prefix.payload_bytes or rows[0][0] <= LAST_DATA_KIND:
            self.memtable.apply(lane, rows, prefix.payload_at)
            return
        for index, record in records_of(rows):
            self.take_record(prefix.timeline, prefix.position, prefix.position + index, prefix.utc_ns, record)
        self._view_changed()

    def take_record(
        self, timeline: int, frame_position: int, position: int, utc_ns: int, record: Record
    ) -> None:
        """One record at its place; the same one again is fine."""
        match record:
            case VolumeCreated():
                self.volumes.created(timeline, position, record)
            case VolumeDeleted():
                self.volumes.deleted(timeline, position, record)
            case Revert():
                self.volumes.reverted(timeline, position, record)
            case Mark():
                self.copies.marked(timeline, frame_position, position, utc_ns, record)
            case TimelineBegan():
                pass  # the timeline itself was taken in with its first frame

    def _view_changed(self) -> None:
        for listener in self.listeners.view:
            listener()

    # -- durability and checkpoints

    def when_durable(self, callback: DurableCallback) -> None:
        """Call back once everything written so far is durable here, or never will be."""
        self.writer.when_durable(self.writer.written, callback)

    def _on_durable(self) -> None:
        for listener in self.listeners.durable:
            listener()

    def _on_failed(self, error: OSError) -> None:
        self.failed = f"journal sync failed: {error.strerror or error}"
        self.emit("journal.failed", group=self.name, position=str(self.end), error=str(error))
        self._view_changed()

    def _require_serving(self) -> None:
        if self.failed:
            raise WrongState(
                f"group {self.name} has stopped: {self.failed}",
                subject=self.name,
                position=str(Cut(self.head, self.writer.durable)),
                next_step="check the disk, then restart the site's daemon",
            )

    def close(self) -> None:
        """Stop timers and close files; nothing more may be asked."""
        self.checkpoints.close()
        self.writer.close()
        self.segments.close()


def records_of(rows: Sequence[Row]) -> list[tuple[int, Record]]:
    """(index, record) of every row that is not data. RemoteProtocolError for one that is not known."""
    found = [(index, record_from_row(row)) for index, row in enumerate(rows) if row[0] > LAST_DATA_KIND]
    if found and len(found) != len(rows):
        raise RemoteProtocolError("records and data share a frame")
    return found
