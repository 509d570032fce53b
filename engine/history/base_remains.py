"""What is here of a base that did not come to its end, and giving its room back once it never will.

A base is kept over lost sessions and restarts, as its sender may go on with it (engine.history.base_intake).
It cannot once this site has no such peer any more, or takes that peer's journal in: the sender has let go of
it then. Files go first, then rows, as when another base begins; after a crash the next start goes on.

Everything runs in callbacks on one loop.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.group.core import GroupCore
from engine.group.holds import Holder
from engine.history.base_rows import load_pending
from engine.index.base_requests import BaseDrop
from engine.index.requests import Indexer
from engine.journal.format import BASE_SPARE_PATH, timeline_directory
from engine.ports.clock import Timer
from protocol.errors import FarshoreError

RETRY_S = 5.0


class BaseRemains:
    """`here`: whether there may be something of a base that was not installed."""

    def __init__(self, group: GroupCore, indexer: Indexer) -> None:
        self.here = False
        self._group = group
        self._indexer = indexer
        self._round = 0  # raised by all that makes answers to earlier requests say nothing any more
        self._dropping = False
        self._said = ""  # why the last try failed, until one succeeds
        self._timer: Timer | None = None

    def intake_begins(self) -> None:
        """One is received: whoever does so sees to what is here of another."""
        self.here = True
        self._stop()

    def installed(self) -> None:
        """There is nothing of it but what counts."""
        self.here = False

    def drop(self) -> None:
        """Begin to remove it; nothing if that goes on already. Nobody may be receiving it any more."""
        if self.here and not self._dropping:
            self._dropping = True
            self._begin()

    def remove_files(self, timeline: int) -> None:
        """Remove what there is of a timeline's files, durably: without its pending row nobody would know what
        they are."""
        group, directory = self._group, timeline_directory(timeline)
        if not group.disk.exists(directory):
            return
        for segment in group.segments.of_timeline(timeline):
            group.segments.forget(segment)
            group.disk.remove(segment.path)
        group.disk.sync([], [directory])

    def close(self) -> None:
        """Stop; the next start goes on."""
        self._stop()

    def _stop(self) -> None:
        self._round += 1
        self._dropping = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self) -> None:
        """A drop of nothing first: once that is answered, the indexer reads no file of it any more."""
        if Holder.INSTALL in self._group.holds:
            self._again()  # it is being installed: afterwards there is nothing, or it has failed
            return
        try:
            with self._group.store.read() as transaction:
                pending = load_pending(transaction)
        except (FarshoreError, OSError) as error:
            self._failed(error)
            return
        if pending is None:
            self.here = self._dropping = False
            self._said = ""
            return
        other = pending.timeline ^ 1 or 2  # whatever a peer called its own, it is another one, and not 0
        self._ask(other, lambda: self._remove(pending.timeline))

    def _remove(self, timeline: int) -> None:
        if Holder.INSTALL in self._group.holds:
            self._again()
            return
        held_bytes = sum(segment.size for segment in self._group.segments.of_timeline(timeline))
        try:
            self.remove_files(timeline)
            if self._group.disk.exists(BASE_SPARE_PATH):  # what the next of its files would have been
                self._group.disk.remove(BASE_SPARE_PATH)
        except OSError as error:
            self._failed(error)
            return
        if held_bytes:
            self._group.emit("base.dropped", group=self._group.name, bytes=held_bytes)
        self._ask(timeline, self._begin)

    def _ask(self, timeline: int, then: Callable[[], None]) -> None:
        asked = self._round

        def done(error: Exception | None, _: tuple[int, ...]) -> None:
            if asked != self._round:
                return
            if error is not None:
                self._failed(error)
            else:
                then()

        self._indexer.start(BaseDrop(timeline=timeline), done)

    def _failed(self, error: Exception) -> None:
        if str(error) != self._said:
            self._said = str(error)
            self._group.emit("base.not_dropped", group=self._group.name, error=str(error))
        self._again()

    def _again(self) -> None:
        def run() -> None:
            self._timer = None
            self._begin()

        self._timer = self._group.clock.call_later(RETRY_S, run)
