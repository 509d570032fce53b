"""Bugs planted in acknowledging, recovery and checkpoints."""

from __future__ import annotations

from typing import Any

import engine.group.group
import engine.group.recovery
import engine.group.site_state
import engine.history.timelines
import engine.history.volumes
import engine.index.index_batch
import engine.index.memtable
import engine.journal.reader
import engine.journal.recovery
from engine.group.group import Group
from engine.index.checkpoint import CheckpointPlan
from engine.index.checkpoint_timing import Checkpoints
from engine.journal.recovery import walk_to_end
from engine.journal.segments import SegmentMap
from engine.journal.writer import JournalWriter
from protocol.errors import FarshoreError
from protocol.messages import Ack
from protocol.nbd.replies import simple_replies
from protocol.positions import Cut
from site_primary.nbd.connection import NbdConnection
from site_secondary.receiver import Receiver
from tests.sim.plant_registry import plant, rare
from tests.sim.shape import Habit, Patch

# -- acknowledging


@plant
def ack_before_write() -> tuple[Patch, ...]:
    """Writes are answered, and get into the journal a little later."""

    def commit(self: Any) -> None:
        if self._written:
            self._out.append(simple_replies(self._written))
            self._written = []
        late, self.batch = self.batch, self._new_batch()
        late._pieces = [bytes(piece) for piece in late._pieces]
        self._export.group.clock.call_later(0.002, late.commit)

    return ((NbdConnection, "_commit", commit),)


@plant
def flush_before_durable() -> tuple[Patch, ...]:
    """FLUSH and FUA are answered at once."""
    return ((JournalWriter, "when_durable", lambda self, position, callback: callback(None)),)


@plant
def fua_like_any_write() -> tuple[Patch, ...]:
    """FUA writes are answered once they are written."""

    def commit(self: Any, before: Any = NbdConnection._commit) -> None:
        self._written, self._forced = self._written + self._forced, []
        before(self)

    return ((NbdConnection, "_commit", commit),)


@plant
def failed_write_acknowledged() -> tuple[Patch, ...]:
    """A full disk is nobody's business."""

    def append(self: Any, rows: Any, payload: Any, payload_bytes: int, before: Any = Group.append) -> Any:
        try:
            return before(self, rows, payload, payload_bytes)
        except OSError:
            return None
        except FarshoreError:
            return None

    return ((Group, "append", append),)


@plant
def receiver_acknowledges_durable_early() -> tuple[Patch, ...]:
    """The secondary calls durable what is only written."""

    def ack(self: Any) -> None:
        self._ack_pending = False
        if self._session and self._caller is not None:
            written = self._group.writer.written
            message = Ack(
                session=self._session, timeline=self._group.head.timeline, written=written, durable=written
            )
            self._caller.send(message.encode())

    return ((Receiver, "_ack", ack),)


@plant
def durable_when_sync_ends() -> tuple[Patch, ...]:
    """A sync is believed to cover what was written while it ran."""

    def sync_done(
        self: Any, error: Any, timeline: int, target: int, before: Any = JournalWriter._sync_done
    ) -> None:
        before(self, error, timeline, self.written)

    return ((JournalWriter, "_sync_done", sync_done),)


@plant
def failed_sync_forgotten() -> tuple[Patch, ...]:
    """A sync that fails is tried again, and the second success believed."""

    def fail(self: Any, error: OSError) -> None:
        self._start_sync()

    return ((JournalWriter, "_fail", fail),)


# -- recovery


@plant
def skip_crc_at_recovery() -> tuple[Patch, ...]:
    """Frames are believed as they are read."""
    return ((engine.journal.reader, "check_frame", lambda prefix, raw, digest: None),)


@plant
def last_frame_left_out_at_recovery() -> tuple[Patch, ...]:
    """Recovery takes the last frame for torn."""

    def frames(self: Any, timeline: int, start: int, end: int, digest: Any) -> Any:
        held = None
        for frame in before(self, timeline, start, end, digest):
            if held is not None:
                yield held
            held = frame

    def walk(reader: Any, *args: Any, **named: Any) -> Any:
        cut_short = type("CutShort", (), {"frames": lambda _, *where: frames(reader, *where)})()
        return original(cut_short, *args, **named)

    before, original = engine.journal.reader.JournalReader.frames, engine.journal.recovery.walk_to_end
    return ((engine.group.recovery, "walk_to_end", walk),)


@plant
def zeroes_after_recovery() -> tuple[Patch, ...]:
    """Recovery finds the end of the journal, and what the last frame's writes hold is not read."""

    def walk(*args: Any, on_frame: Any, before: Any = walk_to_end, **named: Any) -> Any:
        held: list[Any] = []

        def take(frame: Any) -> None:
            held.append(frame)
            if len(held) > 1:
                on_frame(held.pop(0))

        end = before(*args, on_frame=take, **named)
        for frame in held:
            if not frame.prefix.payload_bytes:
                on_frame(frame)
        return end

    return ((engine.group.recovery, "walk_to_end", walk),)


@plant
def torn_tail_not_made_durable() -> tuple[Patch, ...]:
    """Recovery serves what it read without making it durable."""
    return (
        (engine.group.recovery, "make_durable", lambda *_: None),
        (engine.group.recovery, "settle", lambda *_: None),
    )


@plant
def position_used_again() -> tuple[Patch, ...]:
    """A restarted writer goes on in the timeline of the last run."""

    def begin_writing(self: Any, before: Any = Group.begin_writing) -> None:
        if self.head:
            self.head.began = True
        before(self)

    return ((Group, "begin_writing", begin_writing),)


@plant
def directory_not_synced() -> tuple[Patch, ...]:
    """A new segment's name is left to luck."""

    def take_dirty(self: Any, before: Any = JournalWriter._take_dirty) -> Any:
        return before(self)[0], set()

    return ((JournalWriter, "_take_dirty", take_dirty),)


@rare(Habit.LETS_GO)
def what_was_reclaimed_is_synced() -> tuple[Patch, ...]:
    """A sync begins with a segment that has gone since it was cut."""
    return ((SegmentMap, "has", lambda self, segment: True),)


@plant
def follower_trusts_the_writers_durable() -> tuple[Patch, ...]:
    """A secondary takes its own torn tail for corruption, as the writer had called it durable."""

    def walk(*args: Any, before: Any = walk_to_end, **named: Any) -> Any:
        return before(*args, **{**named, "own": True})

    return ((engine.group.recovery, "walk_to_end", walk),)


# -- checkpoints


@plant
def checkpoint_past_durable() -> tuple[Patch, ...]:
    """A checkpoint does not wait until its journal is durable."""

    def begin(self: Any, target: Cut) -> None:
        timelines = tuple(self._group.timelines.all())
        plan = CheckpointPlan(target=target, durable=target.position, timelines=timelines)
        self.indexer.start(plan, lambda failure, _: self._done(plan, failure))

    return ((Checkpoints, "_plan", begin),)


@plant
def memtable_dropped_early() -> tuple[Patch, ...]:
    """The frozen layer goes when the checkpoint begins."""

    def begin(self: Any, target: Cut, before: Any = Checkpoints._plan) -> None:
        layers = self._group.memtable.layers
        layers[0] = type(layers[0])()
        before(self, target)

    return ((Checkpoints, "_plan", begin),)


@plant
def failed_checkpoint_believed() -> tuple[Patch, ...]:
    """A checkpoint that failed counts as done."""

    def done(self: Any, target: Cut, failure: Any, before: Any = Checkpoints._done) -> None:
        before(self, target, None)

    return ((Checkpoints, "_done", done),)


@plant
def zeroes_not_checkpointed() -> tuple[Patch, ...]:
    """A checkpoint forgets that older versions were zeroed."""
    return ((engine.index.index_batch, "_apply_zero", lambda *_: None),)
