"""What the parts of a group share: its real parts, its journal, what the journal says, and where its head is.

Parts (checkpoints, reclaim, clones, damage …) take this and the other parts that they need, never the whole
`Group`. They listen for what they must know (engine.group.listeners).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from engine.copies.copy_marks import GroupCopies
from engine.copies.policies import Policies
from engine.group.compartment import Defect
from engine.group.frame_checks import FrameChecks
from engine.group.frame_times import FrameTimes
from engine.group.head import Head
from engine.group.holds import Holds
from engine.group.listeners import Emit, GroupListeners
from engine.group.record_tables import RecordTables
from engine.group.settings import GroupSettings
from engine.group.site_state import Role, SiteState
from engine.group.whole import all_or_stop, holds_together
from engine.history.promises import Promises
from engine.history.timelines import Span, TimelineTable, holds_cut
from engine.history.unread import UnreadFrame, UnreadFrames
from engine.history.visibility import visibility
from engine.history.volumes import Volume, VolumeHistory
from engine.index.memtable import Memtable
from engine.index.view import VolumeView
from engine.journal.reader import JournalReader
from engine.journal.segments import SegmentMap
from engine.journal.writer import DurableCallback, JournalWriter
from engine.ports.clock import Clock
from engine.ports.disk import Disk
from engine.ports.store import Store
from protocol.errors import NotFound
from protocol.events import LAST_DATA_KIND, Row, records_of
from protocol.frames import Buffer, Frame, FramePrefix
from protocol.positions import POSITION_MAX, Cut, timeline_text


class GroupCore:
    """`on_defect` stops the group: whoever composes it says how. `dropping` are timelines whose frames from a
    position on are being dropped; `must_wait` and `clone_timelines` are answered by the parts that know."""

    def __init__(
        self,
        *,
        name: str,
        site: str,
        disk: Disk,
        clock: Clock,
        store: Store,
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
        self.listeners = GroupListeners()
        self.on_defect: Defect = lambda _: None
        self.failed = ""
        self._rng = rng
        self._times = FrameTimes(clock)
        self.head = Head()
        self.timelines = TimelineTable()
        self.segments = SegmentMap(disk)
        self.reader = JournalReader(self.segments)
        self.memtable = Memtable()
        self.writer = JournalWriter(
            disk,
            clock,
            self.segments,
            limit_bytes=settings.journal_limit_bytes,
            reserve_bytes=settings.reserve_bytes,
            on_durable=self._on_durable,
            on_failed=self._on_failed,
            on_space=self._on_space,
        )
        self.volumes = VolumeHistory()
        self.copies = GroupCopies(name, state)
        self.policies = Policies()
        self.promises = Promises()
        self.unread = UnreadFrames(name, state, self.timelines, self.end_of)
        self.records = RecordTables(self.volumes, self.copies, self.policies, self.promises, self.unread)
        self.checks = FrameChecks(self.timelines, self.volumes, self.unread)
        self.holds = Holds(self.view_changed)
        self.dropping: dict[int, int] = {}
        self.must_wait: Callable[[], bool] = bool
        self.unsynced = False  # the writer is behind, and who waits for that is told once it is not
        self.clone_timelines: Callable[[], set[int]] = set

    # -- what is here

    @property
    def end(self) -> Cut:
        """The head and everything written to it."""
        return Cut(self.head.timeline, self.writer.written)

    @property
    def history(self) -> GroupCore:
        """As for a clone, to which this is another."""
        return self

    @property
    def writes(self) -> bool:
        """Whether the frames that follow here are this site's own."""
        return self.state.group(self.name).role.writes

    @property
    def primary(self) -> bool:
        """Whether this site is the one that writes."""
        return self.state.group(self.name).role is Role.PRIMARY

    @property
    def generation(self) -> int:
        """That of the head; 0 without one."""
        return self.timelines.get(self.head.timeline).generation if self.head else 0

    def spans(self, end: int = POSITION_MAX) -> list[Span]:
        """The head's lineage; empty if the group has no timeline yet."""
        return self.timelines.lineage(self.head.timeline, end) if self.head else []

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

    @property
    def strict(self) -> bool:
        """Whether hosts are promised, as the head's lineage says, that the peer has every write."""
        return self.promises.strict(self.spans(self.writer.written))

    def volume(self, name: str) -> Volume:
        """A volume that exists now; NotFound."""
        return self.volumes.find(self.spans(), name, f"{self.name}/{name}")

    def volume_at(self, name: str, cut: Cut) -> Volume:
        """The volume of that name at a cut, or the one that has the name now, if none had it there; as it was
        there. NotFound."""
        spans = self.timelines.lineage(cut.timeline, cut.position)
        there = self.volumes.at(spans)
        if name not in there and (now := self.volumes.at(self.spans()).get(name)) is not None:
            name = next((each.name for each in there.values() if each.id == now.id), name)
        return self.volumes.find(spans, name, f"{self.name}/{name}@{cut}")

    def live_view(self, volume: Volume) -> VolumeView:
        """The volume as it is; make it anew when `listeners.view` says so."""
        return self.view_on(volume, self.head.timeline)

    def view_on(self, volume: Volume, timeline: int, end: int = POSITION_MAX) -> VolumeView:
        """The volume as it is on a timeline that goes on, or as it was at a position of it that is kept."""
        return VolumeView(
            volume=volume.id,
            size_bytes=volume.size_bytes,
            intervals=visibility(self.timelines, self.volumes, volume.id, timeline, end),
            memtable=self.memtable,
            segments=self.segments,
            store=self.store,
        )

    # -- hosts and senders that must wait

    @property
    def overloaded(self) -> bool:
        """Whether hosts and senders must wait: for a checkpoint (memtable full), a truncation (journal full),
        or a sync (the disk is slow)."""
        return self.memtable.count >= self.settings.memtable_hard or self.unsynced or self.must_wait()

    def relieve(self, *, waited: bool = True) -> None:
        """Whoever `waited` goes on, unless there is still something to wait for."""
        if waited and not self.overloaded:
            for listener in self.listeners.relief:
                listener()

    # -- frames

    def new_id(self) -> int:
        """A random id for a timeline; never 0."""
        return self._rng.getrandbits(64) | 1

    def promise_utc_ns(self) -> int:
        """The time now. Every frame that this run still writes says a later one, whatever the clock does."""
        return self._times.promise_ns(self.head.utc_ns)

    def next_utc_ns(self) -> int:
        """The time of the next frame: not before that of the last one, nor before what was promised."""
        return self._times.next_ns(self.head.utc_ns)

    def frame(self, rows: Sequence[Row], payload: Sequence[Buffer], payload_bytes: int) -> Frame:
        """The frame that comes next, not yet written."""
        return self.writer.next_frame(self.next_utc_ns(), self.head.digest, rows, payload, payload_bytes)

    def change_settings(self, settings: GroupSettings) -> None:
        """What the site sets from now on; the reserve stays as it was."""
        self.settings = settings
        self.writer.limit_bytes = settings.journal_limit_bytes

    @holds_together
    def write(self, frame: Frame, rows: Sequence[Row]) -> None:
        """Write a frame that was checked; `rows` are what is taken of it. NoSpace or OSError: nothing was."""
        self.writer.append(frame)
        self.unsynced = self.writer.behind
        self.apply(frame, rows)

    @all_or_stop
    def apply(self, frame: Frame, rows: Sequence[Row]) -> None:
        """A frame is in the journal file: let everything that derives from it follow."""
        prefix = frame.prefix
        self.head.apply(prefix)
        self.take(prefix, self.writer.lane, rows)
        for listener in self.listeners.frame:
            listener(frame)

    def take(self, prefix: FramePrefix, lane: int, rows: Sequence[Row]) -> None:
        """Memtable and records of one frame that is in the journal; `rows` are what are taken of it."""
        if not rows:
            return
        if rows[0][0] <= LAST_DATA_KIND:
            self.memtable.apply(lane, rows, prefix.payload_at)
            return
        for index, record in records_of(rows):
            position = prefix.position + index
            self.records.apply(prefix.timeline, prefix.position, position, prefix.utc_ns, record)
        self.view_changed()

    def apply_unread(self, unread: UnreadFrame | None) -> None:
        """A frame was just journaled; if it is not understood, say so, and whoever serves looks again."""
        if unread is not None:
            self.unread.apply(unread)
            where = {"group": self.name, "position": str(unread.cut)}
            self.emit("journal.unread", **where, places=1, error=unread.reason)
            self.view_changed()

    def head_moved(self, left: Cut, timeline: int, position: int) -> None:
        """The head is another timeline from now on, at `position`: nothing past it on this lineage is
        indexed."""
        self.head.moved(left, timeline)
        for listener in self.listeners.head:
            listener(left, position)

    @all_or_stop
    def view_changed(self) -> None:
        """What volumes show, or whether they are shown, may be another from now on."""
        self.checks.changed()
        for listener in self.listeners.view:
            listener()

    # -- durability

    @holds_together
    def when_durable(self, callback: DurableCallback) -> None:
        """Call back once everything written so far is durable here, or never will be."""
        self.writer.when_durable(self.writer.written, callback)

    def _on_durable(self) -> None:
        waited, self.unsynced = self.unsynced, self.writer.behind
        for listener in self.listeners.durable:
            listener()
        self.relieve(waited=waited)

    def _on_space(self, lack: str) -> None:
        for listener in self.listeners.space:
            listener(lack)

    def _on_failed(self, error: OSError) -> None:
        self.failed = f"journal sync failed: {error.strerror or error}"
        self.emit("journal.failed", group=self.name, position=str(self.end), error=str(error))
        self.view_changed()
