"""Taking in a base: X's frames into files of their own, into the index in parts, and installed at the end.

Order, so that a crash at any moment leaves either what was here before or the whole base:

    1. a checkpoint of everything this site has; a pending base that is another one is dropped, files first
    2. the pending row, before X's first file
    3. frames appended to X; durable ones indexed in parts under X's lane, which nobody sees
    4. one transaction: timelines, records, base, checkpoint at B; then the head; then memory

What fails for want of room is tried again until there is some; `trouble` says so meanwhile. Between two tries
of 4 nothing holds this site to the base: it can be taken over without.

After a crash in 3, X goes on from what is indexed; after one between the parts of 4, recovery does the rest
(engine.history.base_recovery). Until 4 this site reads, serves and can be taken over as it was at its own
end.

Everything runs in callbacks on one loop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from engine.group.group import Group
from engine.group.head import NotContiguous
from engine.group.holds import Holder
from engine.history.base_checks import BaseLineage, BaseOrder, check_base_frame, checked_lineage
from engine.history.base_recovery import cut_back, require_same_past, take_base
from engine.history.base_rows import PendingBase, load_pending
from engine.index.base_requests import BaseDrop, BaseInstall, BaseOpen, BasePart
from engine.index.requests import IndexRequest, Unanswered
from engine.journal.format import BASE_SPARE_PATH
from engine.journal.writer import JournalWriter
from engine.ports.clock import Timer
from protocol.errors import FarshoreError, RemoteProtocolError
from protocol.frames import NO_DIGEST, Buffer, Frame, FramePrefix
from protocol.limits import BASE_INDEX_BYTES, BASE_UNINDEXED_BYTES_MAX
from protocol.positions import POSITION_MAX, Cut

RETRY_S = 5.0
CHECKPOINT_WAIT_S = 0.05
HOLD = "base"  # on checkpoints
LEASE = "base"


class BaseIntake:
    """One base coming in. `on_ready` is called once frames can be taken, `on_progress` when more is indexed,
    `on_installed` at the end, `on_failed` if it cannot go on; after that, begin a new one."""

    def __init__(
        self,
        group: Group,
        order: BaseOrder,
        *,
        on_ready: Callable[[], None],
        on_progress: Callable[[], None],
        on_installed: Callable[[], None],
        on_failed: Callable[[str], None],
    ) -> None:
        self.order = order
        self.ready = False
        self.installing = False
        self.installed = False
        self.failed = ""
        self.trouble = ""
        self.indexed = 0
        self._group = group
        self._on_ready = on_ready
        self._on_progress = on_progress
        self._on_installed = on_installed
        self._on_failed = on_failed
        self._own_end = group.end  # what this site has; nothing may be added to it meanwhile
        self._lane = 0
        self._digest = NO_DIGEST
        self._indexing = False
        self._closed = False
        self._left = False  # nobody wants it any more, and it is just being installed
        self._lineage: BaseLineage | None = None  # once X is complete
        self._timer: Timer | None = None
        self.writer = JournalWriter(
            group.disk,
            group.clock,
            group.segments,
            limit_bytes=POSITION_MAX,
            reserve_bytes=group.settings.reserve_bytes,
            on_durable=self._index,
            on_failed=lambda error: self._fail(f"the journal of the base failed: {error}"),
            spare_path=BASE_SPARE_PATH,
        )

    @property
    def written(self) -> int:
        """Position up to which X is here."""
        return self.writer.written

    @property
    def crowded(self) -> bool:
        """Whether the sender must wait until more is indexed."""
        return self.writer.written - self.indexed > BASE_UNINDEXED_BYTES_MAX

    def open(self) -> None:
        """Begin; `on_ready` follows. Trimmed if the start cannot be read any more."""
        self._group.remains.intake_begins()
        if self.order.start is not None:
            self._group.kept.leases.hold(LEASE, self.order.start)
        self._group.checkpoints.when_indexed(lambda _: self._prepare())

    def _prepare(self) -> None:
        """What an earlier intake asked of the indexer is done before this is: it takes them in order."""
        if not self._closed:
            order = self.order
            request = BaseOpen(timeline=order.timeline, cut=order.cut, start=order.start)
            self._ask(request, lambda _: self._look())

    def _look(self) -> None:
        """Go on with the pending base if it is this one; drop it, files first, if it is not, or broken."""
        group, order = self._group, self.order
        try:
            with group.store.read() as transaction:
                pending = load_pending(transaction)
            if pending is None:
                self._prepare()
                return
            same = (pending.timeline, pending.cut, pending.start) == (order.timeline, order.cut, order.start)
            if same and cut_back(group, pending):
                self._go_on(pending)
                return
            group.remains.remove_files(pending.timeline)
            self._ask(BaseDrop(timeline=pending.timeline), lambda _: self._prepare())
        except (FarshoreError, OSError) as error:
            self._fail(f"the base cannot begin: {error}")

    def _go_on(self, pending: PendingBase) -> None:
        self.indexed, self._digest, self._lane = pending.indexed, pending.digest, pending.lane
        self.writer.start(pending.timeline, pending.lane, pending.indexed)
        self.ready = True
        self._on_ready()

    # -- frames

    def take(self, prefix: FramePrefix, raw: Buffer) -> None:
        """Append one frame of X. NotContiguous if it does not follow, FrameError if it is damaged or holds
        what a base may not; NoSpace or OSError if it cannot be stored. Then nothing was."""
        writer = self.writer
        if not self.ready or (prefix.timeline, prefix.position) != (writer.timeline, writer.written):
            raise NotContiguous(f"expected {Cut(writer.timeline, writer.written)} of the base")
        check_base_frame(prefix, raw, self._digest)
        writer.append(Frame(prefix, raw))
        self._digest = prefix.digest
        if writer.written - self.indexed >= BASE_INDEX_BYTES:
            self._index()

    def complete(self, end: int, digest: bytes, parts: tuple[bytes, ...], *, leave: bool) -> None:
        """X is whole: install it once it is indexed. RemoteProtocolError if it ends elsewhere; what
        `checked_lineage` and `require_same_past` raise."""
        if self._lineage is not None:
            return
        if end != self.writer.written or digest != self._digest:
            raise RemoteProtocolError("the base ends elsewhere than it was said to")
        lineage = checked_lineage(self._group, self.order, parts, leave=leave)
        if self._group.end == self._own_end:  # else it is not installed, and not all is indexed
            require_same_past(self._group, lineage.records)
        self._lineage = lineage
        self._index()

    def _index(self) -> None:
        """Have the indexer take in what is durable and not indexed, if it is worth a transaction."""
        writer = self.writer
        if self._indexing or self._closed or not self.ready or self._timer is not None:
            return
        whole = self._lineage is not None
        if self.indexed == writer.written:
            if whole:
                self._install()
            return
        target = writer.written
        if not whole and target - self.indexed < BASE_INDEX_BYTES:
            return
        self._indexing = True

        def durable(error: OSError | None) -> None:
            if error is None and not self._closed:
                self._ask(BasePart(timeline=self.order.timeline, end=target), self._reached)

        writer.when_durable(target, durable)

    def _reached(self, figures: tuple[int, ...]) -> None:
        self._indexing = False
        (self.indexed,) = figures
        self._on_progress()
        self._index()

    # -- the end

    def _install(self) -> None:
        group, lineage = self._group, self._lineage
        if lineage is None:
            return
        self._indexing = False
        if group.end != self._own_end or group.checkpoints.reached < group.writer.written:
            self._fail("this site's own journal went on meanwhile")
            return
        group.checkpoints.hold(HOLD, on=True)
        if group.checkpoints.running:  # of clones: it must not say after the base what is indexed
            self._after(CHECKPOINT_WAIT_S, self._install)
            return
        try:
            # Past the end that is left nothing may look as if it went on from there.
            group.writer.cut_torn()
        except OSError as error:
            self._not_installed(error)
            return
        base = self.order.base(self._lane, self.writer.written, group.end)
        timelines = lineage.new_timelines(group.timelines)
        self._indexing = self.installing = True
        group.holds.put(Holder.INSTALL, "installs a copy of what the other site has")

        def done() -> None:
            # Past the transaction there is no way back: what cannot be done now is tried until it can, and
            # done by the next start at the latest.
            try:
                take_base(group, base, timelines, lineage.records)
            except OSError as error:
                reason = f"cannot put the copy in place, which is whole: {error}"
                group.holds.put(Holder.INSTALL, reason)
                self._later(error, reason, done)
                return
            self.writer.start(base.timeline, base.lane, base.end)  # gives back what its last file did not use
            self.writer.close()
            group.holds.lift(Holder.INSTALL)
            group.checkpoints.hold(HOLD, on=False)
            if group.disk.exists(BASE_SPARE_PATH):
                group.disk.remove(BASE_SPARE_PATH)
            group.kept.leases.release(LEASE)
            group.remains.installed()
            self.installed = self._closed = True
            self.installing = False
            self.trouble = ""
            self._on_installed()

        def answered(error: Exception | None, _: tuple[int, ...]) -> None:
            if error is None:
                done()
            elif isinstance(error, Unanswered):
                again = partial(group.checkpoints.indexer.start, request, answered)
                self._later(error, f"installing the copy failed: {error}", again)
            else:
                self._not_installed(error)

        request = BaseInstall(
            timeline=base.timeline,
            end=base.end,
            utc_ns=base.utc_ns,
            digest=base.digest,
            left=base.left,
            timelines=timelines,
            parts=lineage.parts,
        )
        group.checkpoints.indexer.start(request, answered)

    def _not_installed(self, error: Exception) -> None:
        """Nothing was changed, for sure: this site is free to do without until the next try."""
        group = self._group
        self.installing = False
        group.holds.lift(Holder.INSTALL)
        group.checkpoints.hold(HOLD, on=False)
        if self._left:
            self.close()
            return
        reason = f"the copy is whole here and cannot be installed: {error}"
        self._later(error, reason, self._install)

    # -- helpers

    def _ask(self, request: IndexRequest, then: Callable[[tuple[int, ...]], None]) -> None:
        """Have the indexer do something; again later if it could not."""

        def done(error: Exception | None, figures: tuple[int, ...]) -> None:
            if self._closed:
                return
            if error is None:
                self.trouble = ""
                then(figures)
                return
            reason = f"the copy cannot be indexed: {error}"
            self._later(error, reason, lambda: self._group.checkpoints.indexer.start(request, done))

        self._group.checkpoints.indexer.start(request, done)

    def _later(self, error: Exception, trouble: str, again: Callable[[], None]) -> None:
        """Try again after a while; what is the same trouble is told once."""
        group = self._group
        if trouble != self.trouble:
            self.trouble = trouble
            group.emit("base.delayed", group=group.name, position=str(self.order.cut), error=str(error))
        self._after(RETRY_S, again)

    def _after(self, delay_s: float, again: Callable[[], None]) -> None:
        def run() -> None:
            self._timer = None
            again()

        self._timer = self._group.clock.call_later(delay_s, run)

    def _fail(self, reason: str) -> None:
        if not self._closed:
            self.failed = reason
            self.close()
            self._on_failed(reason)

    def close(self) -> None:
        """Stop; what is indexed stays for the next one of the same X. One that is `installing` goes on: the
        index may say any moment that it is done."""
        if self.installing:
            self._left = True
            return
        self._closed = True
        self.ready = False
        self._group.checkpoints.hold(HOLD, on=False)
        self._group.kept.leases.release(LEASE)
        self.writer.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
