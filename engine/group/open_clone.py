"""One clone, open: what is written to it.

Rules. A clone's row is durable before its first write, and its first frame before its row: a timeline
without a row that holds nothing else is an orphan, which recovery removes. After a start the first write
begins a child timeline, as for a group: what a power loss may have torn is never appended to.

A sync that fails fails the clone and not the group; it must not hold up the group's checkpoints either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from engine.group.clone_rows import CloneRow, put_clone
from engine.group.core import GroupCore
from engine.group.frame_checks import check_own
from engine.group.head_moves import first_frame
from engine.group.whole import holds_together
from engine.history.branches import Branch
from engine.history.timelines import Span
from engine.history.volumes import Volume
from engine.index.view import VolumeView
from engine.journal.writer import DurableCallback, JournalWriter
from engine.ports.clock import Clock
from protocol.errors import FarshoreError, NotFound, WrongState
from protocol.events import Row
from protocol.frames import Buffer, Frame
from protocol.positions import Cut


class Clone:
    """One clone, open. To hosts it is what a group is: `append`, `writer`, `when_durable`."""

    def __init__(self, group: GroupCore, row: CloneRow) -> None:
        self.row = row
        self.name = row.name
        self.history = group
        self.clock: Clock = group.clock
        self.emit = group.emit
        self.began = False  # whether this run has its own timeline
        self.failed = ""
        self.on_view: list[Callable[[], None]] = []
        self._unsynced = False
        self._digest = b""
        self._blocks: dict[int, int] | None = None  # of its volumes, whose number and sizes never change
        self.writer = JournalWriter(
            group.disk,
            group.clock,
            group.segments,
            limit_bytes=group.writer.limit_bytes,
            reserve_bytes=group.settings.reserve_bytes,
            on_durable=self._on_durable,
            on_failed=self._on_failed,
            spare_path="",
        )

    @property
    def timeline(self) -> int:
        """The timeline that it ends on."""
        return self.row.timelines[-1]

    @property
    def end(self) -> Cut:
        """Everything written to it."""
        return Cut(self.timeline, self.history.head.left[self.timeline])

    @property
    def overloaded(self) -> bool:
        """See `Group.overloaded`: the memory is the same, the journal its own."""
        return self._unsynced or self.history.overloaded

    @property
    def journal_bytes(self) -> int:
        """Bytes of its own frames."""
        return sum(span.end - span.start for span in self.spans())

    def spans(self) -> list[Span]:
        """Its own timelines, parents first, without the history that it left."""
        timelines = [self.history.timelines.get(each) for each in self.row.timelines]
        return [Span(t.id, t.lane, t.fork, self.history.head.left[t.id]) for t in timelines]

    def branch(self) -> Branch:
        """The same as a branch, to drop it."""
        return Branch(fork=self.row.cut, end=self.end, spans=tuple(self.spans()))

    def volumes(self) -> dict[str, Volume]:
        """Its volumes, by name."""
        end = self.end
        found = self.history.volumes.at(self.history.timelines.lineage(end.timeline, end.position))
        return {name: volume for name, volume in found.items() if volume.id in self.row.volumes}

    def volume(self, name: str) -> Volume:
        """One of them; NotFound."""
        found = self.volumes().get(name)
        if found is None:
            raise NotFound(
                f"clone {self.name} has no volume {name}",
                subject=f"{self.name}/{name}",
                next_step="`farshore clone list` shows clones and their volumes",
            )
        return found

    def view(self, volume: Volume) -> VolumeView:
        """A volume as it is; make it anew when `on_view` says so."""
        return self.history.view_on(volume, self.timeline)

    # -- writing

    def begin(self) -> None:
        """Make this run's own timeline. Waits for a sync. NoSpace or OSError leaves all as it was."""
        self.require_serving()
        self.history.timelines.require_room(1)
        fork = self.end if self.row.timelines else self.row.cut
        digest = self.history.reader.digest_at(self.history.timelines, fork.timeline, fork.position)
        # A clone's own last timeline goes on nowhere else; the history that a clone leaves does.
        timeline, frame = first_frame(
            self.history,
            fork,
            digest,
            generation=self.history.timelines.get(fork.timeline).generation,
            sealed=bool(self.row.timelines),
        )
        writer = self.writer
        before = (writer.timeline, writer.lane, writer.written)
        row = replace(self.row, timelines=(*self.row.timelines, timeline.id))
        try:
            writer.start(timeline.id, timeline.lane, fork.position)
            writer.append(frame)
            writer.sync_now()
            put_clone(self.history.state, row)
        except (OSError, FarshoreError):
            writer.back_to(*before, keep=True)
            raise
        self.history.timelines.add(timeline)
        self.row = row
        self.began = True
        self._took(frame)
        for listener in self.on_view:
            listener()

    @holds_together
    def append(self, rows: Sequence[Row], payload: Sequence[Buffer], payload_bytes: int) -> Frame:
        """See `Group.append`."""
        self.require_serving()
        if not self.began:
            self.begin()
        if self._blocks is None:
            end = self.end
            spans = self.history.timelines.lineage(end.timeline, end.position)
            self._blocks = self.history.volumes.blocks_of(spans)
        check_own(rows, payload_bytes, self._blocks)
        writer = self.writer
        utc_ns = self.history.next_utc_ns()
        frame = writer.next_frame(utc_ns, self._digest, rows, payload, payload_bytes)
        writer.append(frame)
        self._unsynced = writer.behind
        self.history.memtable.apply(writer.lane, rows, frame.prefix.payload_at)
        self._took(frame)
        return frame

    def _took(self, frame: Frame) -> None:
        """A frame is in the clone's journal."""
        self._digest = frame.prefix.digest
        self.history.head.left[frame.prefix.timeline] = frame.prefix.end
        for listener in self.history.listeners.branch_grew:
            listener(Cut(frame.prefix.timeline, frame.prefix.end))

    def when_durable(self, callback: DurableCallback) -> None:
        """Call back once everything written so far is durable, or never will be."""
        self.writer.when_durable(self.writer.written, callback)

    def require_serving(self) -> None:
        """WrongState if the clone has stopped."""
        if self.failed:
            raise WrongState(
                f"clone {self.name} has stopped: {self.failed}",
                subject=self.name,
                position=str(self.end),
                next_step="check the disk, then restart the site's daemon",
            )

    def _on_durable(self) -> None:
        waited, self._unsynced = self._unsynced, self.writer.behind
        self.history.relieve(waited=waited)

    def _on_failed(self, error: OSError) -> None:
        self.failed = f"journal sync failed: {error.strerror or error}"
        self.emit("clone.failed", group=self.history.name, object=self.name, error=str(error))
        if self.row.timelines:
            for tell in self.history.listeners.branch_failed:
                tell(self.timeline)
        for listener in self.on_view:
            listener()
