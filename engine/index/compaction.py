"""Giving the index's free space back to the file system: a copy without free pages takes the file's place.

What truncations and deleted backups give up becomes free pages, which the index uses again before it grows;
the file never shrinks by itself. Where a third of it is free:

    1. the indexer, its only writer, copies the committed state into a new file, makes it durable, and closes
       the old one before it answers: nothing is written to that any more
    2. the daemon, in the call that takes the answer and before any other request, closes the old file,
       removes its lock file, gives its name to the new one, makes that durable, and opens it

A crash at any point leaves a whole index under the name: both files hold the same state, as nothing is
committed in between. A new file that did not get that far is removed at the next start.

Hosts do not wait for the copy; checkpoints do, so an index in which much is in use is left as it is.
"""

from __future__ import annotations

import pathlib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from engine.index.index_file import COMPACT_FILE, INDEX_FILE, LOCK_FILE
from engine.index.requests import Indexer, IndexRequest
from engine.journal.segments import SegmentMap
from engine.ports.clock import Timer
from engine.ports.disk import Disk
from engine.ports.durable import RealDisk
from engine.ports.lmdb_store import LmdbStore
from engine.ports.store import Store
from protocol.errors import Busy, WrongState

if TYPE_CHECKING:
    from engine.group.group import Group

LOOK_EVERY_S = 10.0
AFTER_FAILURE_S = 600.0
FREE_BYTES_MIN = 64 << 20
USED_BYTES_MAX = 4 << 30


class IndexFile(Store, Protocol):
    """A store whose file can be replaced; see `LmdbStore` for both."""

    path: pathlib.Path

    def make_room(self) -> None:
        """The file may have grown: be ready to read what is added next. OSError: it can be read no more."""

    def let_go(self) -> AbstractContextManager[None]:
        """Close the file while the body runs, and open what then has its name. Busy if it is being read."""


class CompactPlan(IndexRequest, frozen=True, kw_only=True, tag="compact"):
    """Copy the index without its free pages to `COMPACT_FILE`. The figure of the answer: the copy's bytes."""


def handle_compact(store: Store, segments: SegmentMap, row: tuple[Any, ...]) -> tuple[int, ...]:
    """A request to the indexer. OSError (ENOSPC): there is no copy."""
    CompactPlan.from_row(row)
    if not isinstance(store, LmdbStore):
        raise WrongState("only an index in a file can be compacted")
    disk = RealDisk(store.path.parent, None)
    _remove_copy(disk)
    try:
        store.copy_compacted(store.path.parent / COMPACT_FILE)
        copy = disk.open(COMPACT_FILE)
    except OSError:
        _remove_copy(disk)
        raise
    try:
        disk.sync([copy], [""])
        return (copy.size(),)
    finally:
        copy.close()


def _remove_copy(disk: Disk) -> None:
    if disk.exists(COMPACT_FILE):
        disk.remove(COMPACT_FILE)


class Compaction:
    """Looks at one group's index now and then. `disk` is the group's directory."""

    def __init__(self, group: Group, store: IndexFile, indexer: Indexer, disk: Disk) -> None:
        self._group = group
        self._store = store
        self._indexer = indexer
        self._disk = disk
        self._running = False
        self._timer: Timer | None = None

    def start(self) -> None:
        """Remove what a crash left, and begin to look."""
        _remove_copy(self._disk)
        self._look_in(LOOK_EVERY_S)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_in(self, delay_s: float) -> None:
        self.close()
        self._timer = self._group.clock.call_later(delay_s, self.consider)

    def consider(self) -> None:
        """Begin if a third of the file is free, and there is room for the copy."""
        self._look_in(LOOK_EVERY_S)
        if self._running or self._group.failed:
            return
        used_bytes, size_bytes = self._store.space()
        free_bytes = size_bytes - used_bytes
        if free_bytes < FREE_BYTES_MIN or 2 * free_bytes < used_bytes or used_bytes > USED_BYTES_MAX:
            return
        if self._disk.free_bytes() - self._group.settings.reserve_bytes < used_bytes:
            return
        self._running = True
        self._indexer.start(CompactPlan(), self._copied)

    def _copied(self, error: Exception | None, figures: tuple[int, ...]) -> None:
        self._running = False
        group = self._group
        if error is not None:
            group.emit("index.compact_failed", group=group.name, error=str(error))
            self._look_in(AFTER_FAILURE_S)
            return
        before_bytes = self._store.path.stat().st_size
        try:
            with self._store.let_go():
                self._disk.remove(LOCK_FILE)
                self._disk.rename(COMPACT_FILE, INDEX_FILE)
                self._disk.sync([], [""])
        except Busy:
            _remove_copy(self._disk)  # somebody reads in a thread: another time
        except OSError as failure:
            # After a power loss the old file may have the name again, without what is committed from now on.
            group.failed = f"the index could not be replaced: {failure.strerror or failure}"
            group.emit("group.damaged", group=group.name, error=group.failed)
            group.view_changed()
        else:
            group.emit("index.compacted", group=group.name, before_bytes=before_bytes, after_bytes=figures[0])
