"""Bugs planted in production code, from here and never there: each must be found, or the simulator is blind.

A plant is a function that gives the patches for one run. They are the mistakes that the rules of
docs/durability.md exist for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import engine.checkpoint
import engine.group
import engine.group_recovery
import engine.journal.reader
import engine.memtable
import engine.site_state
import engine.timelines
import engine.volumes
from engine.checkpoint import CheckpointPlan
from engine.checkpointing import Checkpoints
from engine.group import Group
from engine.journal.recovery import walk_to_end
from engine.journal.writer import JournalWriter
from engine.watermarks import PeerMarks
from protocol.errors import FarshoreError
from protocol.events import WRITE
from protocol.messages import Ack, Hello
from protocol.nbd.replies import simple_replies
from protocol.positions import Cut
from site_primary.nbd_connection import NbdConnection
from site_primary.shipper import Shipper
from site_primary.write_path import WriteBatch
from site_secondary.receiver import Receiver
from tests.sim.shape import Patch
from tests.sim.simulation import Result, run_seed

Plant = Callable[[], tuple[Patch, ...]]
PLANTS: dict[str, Plant] = {}


def plant(make: Plant) -> Plant:
    """Register a plant under its function's name."""
    PLANTS[make.__name__.replace("_", "-")] = make
    return make


def run_planted(name: str, seed: int) -> Result:
    """Run one seed with a bug planted."""
    return run_seed(seed, PLANTS[name]())


# -- acknowledging


@plant
def ack_before_write() -> tuple[Patch, ...]:
    """Writes are answered, and get into the journal a little later."""

    def commit(self: Any) -> None:
        if self._written:
            self._out.append(simple_replies(self._written))
            self._written = []
        late, self._batch = self._batch, self._new_batch()
        late._pieces = [bytes(piece) for piece in late._pieces]
        self._export.group.clock.call_later(0.002, late.commit)

    return ((NbdConnection, "_commit", commit),)


@plant
def flush_before_durable() -> tuple[Patch, ...]:
    """FLUSH and FUA are answered at once."""
    return ((JournalWriter, "when_durable", lambda self, position, callback: callback(None)),)


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
            message = Ack(session=self._session, timeline=self._group.head, written=written, durable=written)
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
def torn_tail_not_made_durable() -> tuple[Patch, ...]:
    """Recovery serves what it read without making it durable."""
    return (
        (engine.group_recovery, "cut_tail", lambda *_: None),
        (engine.group_recovery, "settle", lambda *_: None),
    )


@plant
def position_used_again() -> tuple[Patch, ...]:
    """A restarted writer goes on in the timeline of the last run."""

    def begin_writing(self: Any, before: Any = Group.begin_writing) -> None:
        if self.head:
            self.began = True
        before(self)

    return ((Group, "begin_writing", begin_writing),)


@plant
def directory_not_synced() -> tuple[Patch, ...]:
    """A new segment's name is left to luck."""

    def take_dirty(self: Any, before: Any = JournalWriter._take_dirty) -> Any:
        return before(self)[0], []

    return ((JournalWriter, "_take_dirty", take_dirty),)


@plant
def follower_trusts_the_writers_durable() -> tuple[Patch, ...]:
    """A secondary takes its own torn tail for corruption, as the writer had called it durable."""

    def walk(*args: Any, before: Any = walk_to_end, **named: Any) -> Any:
        return before(*args, **{**named, "own": True})

    return ((engine.group_recovery, "walk_to_end", walk),)


# -- checkpoints


@plant
def checkpoint_past_durable() -> tuple[Patch, ...]:
    """A checkpoint does not wait until its journal is durable."""

    def begin(self: Any, target: Cut) -> None:
        timelines = tuple(self._group.timelines.all())
        plan = CheckpointPlan(target=target, durable=target.position, timelines=timelines)
        self._indexer.start(plan, lambda failure: self._done(target, failure))

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
    return ((engine.checkpoint, "_take_zero", lambda *_: None),)


# -- timelines


@plant
def head_not_remembered() -> tuple[Patch, ...]:
    """Writing begins in a new timeline before the site knows durably that it is its head."""
    return ((engine.site_state.SiteState, "set_head", lambda self, name, head: None),)


@plant
def lane_shared_with_a_branch() -> tuple[Patch, ...]:
    """A timeline keeps its versions among those of the tail that it left behind."""

    def lane(self: Any, parent: int, fork: int, parent_end: int) -> int:
        return self.get(parent).lane if parent else 0

    return ((engine.timelines.TimelineTable, "lane_for_child", lane),)


@plant
def revert_forgets_what_came_after() -> tuple[Patch, ...]:
    """Versions written after a revert are looked for in the past only."""

    def reverted(self: Any, timeline: int, position: int, event: Any) -> None:
        before(self, timeline, position + 1, event)

    history = engine.volumes.VolumeHistory
    before = history.reverted
    return ((history, "reverted", reverted),)


# -- shipping


@plant
def skip_digest_check() -> tuple[Patch, ...]:
    """A follower stores what it gets. Damage on the way stays."""
    return ((engine.group, "check_frame", lambda prefix, raw, digest: None),)


@plant
def old_sessions_heard() -> tuple[Patch, ...]:
    """The writer's side takes acknowledgements for more than it shipped."""

    def acknowledge(self: Any, written: int, durable: int) -> bool:
        self.remote_written, self.remote_durable = written, durable
        return True

    def on_hello(self: Any, caller: Any, hello: Hello, before: Any = Receiver._on_hello) -> None:
        before(self, caller, hello)
        self._ack_soon()

    return ((PeerMarks, "acknowledge", acknowledge), (Receiver, "_on_hello", on_hello))


@plant
def frames_before_the_fork_skipped() -> tuple[Patch, ...]:
    """A follower that lags behind a fork is sent the new timeline only."""

    def turn(self: Any, before: Any = Shipper._turn_corner) -> bool:
        if self._next is not None and self._next.timeline not in (0, self._group.head):
            head = self._group.timelines.get(self._group.head)
            self._next = Cut(head.id, head.fork)
        return before(self)

    return ((Shipper, "_turn_corner", turn),)


# -- what is written and read


@plant
def merge_without_own_batch() -> tuple[Patch, ...]:
    """A partial write is merged with what the block held before this batch."""
    return ((WriteBatch, "_remember", lambda self, block, data: None),)


@plant
def stale_view_after_revert() -> tuple[Patch, ...]:
    """Hosts go on reading what was visible before a revert."""
    return ((Group, "_view_changed", lambda self: None),)


@plant
def newest_version_at_any_cut() -> tuple[Patch, ...]:
    """The memtable gives its newest version whatever the cut."""

    def newest(self: Any, block: int, low: int, high: int, before: Any) -> int:
        return before(self, block, low, 1 << 60)

    versions = engine.memtable.VolumeVersions
    original = versions.newest
    return ((versions, "newest", lambda self, block, low, high: newest(self, block, low, high, original)),)


@plant
def range_off_by_one() -> tuple[Patch, ...]:
    """The last block of a write gets into the journal and not into the memtable."""

    def apply(self: Any, lane: int, rows: Any, payload_at: int, before: Any = None) -> None:
        rows = [(*row[:3], row[3] - 1) if row[0] == WRITE and row[3] > 1 else row for row in rows]
        original(self, lane, rows, payload_at)

    memtable = engine.memtable.Memtable
    original = memtable.apply
    return ((memtable, "apply", apply),)
