"""Sending a base (engine.history.bases): the blocks that a peer's cut A and a cut B of this head may differ
in, with B's timelines and records, so that the peer can go on from B with the journal.

B is a cut up to which the index holds everything. From there on the journal is held for the peer; if it runs
full, the base is gone on with all the same, as B itself stays readable, also once the peer has it: what
changed since B is then sent as the next base, so that each is smaller than the one before. What is
sent is found by one walk over each volume's changed blocks (engine.index.changes); a block whose newest
version is the same at both cuts is left out, one that reads as zeroes at B goes as a row without bytes.
Frames are made as they are needed and forgotten: a mark for each says where the walk was, so that after a
lost connection, or a restart of the peer, it goes on from where the peer is. What the peer has in a seed is
left out of a frame as it is sent (`base_seeding`); what X is does not depend on that.

A step makes at most one frame of `BASE_PAYLOAD_BYTES`, or looks at a few slices; then hosts have their turn.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from engine.group.group import Group
from engine.index.changes import ChangeScan
from engine.journal.reader import time_at
from engine.retention.journal_space import ReplicationSlot, lease_of
from protocol.base_messages import (
    BaseAck,
    BaseBegin,
    BaseEnd,
    BaseFrames,
    BaseHoled,
    BasePart,
    FromTarget,
    parts_digest,
)
from protocol.compress import Compression
from protocol.errors import FarshoreError
from protocol.events import WRITE, Row
from protocol.frames import NO_DIGEST, Buffer, encode_frame
from protocol.limits import (
    BASE_PAYLOAD_BYTES,
    BLOCK_BYTES,
    FRAME_EVENTS_MAX,
    SHIP_IN_FLIGHT_BYTES_MAX,
)
from protocol.positions import Cut
from site_primary.shipping.base_seeding import JudgedFrame, Seeding
from site_primary.shipping.base_state import state_parts
from site_primary.shipping.base_walk import VolumeWalk
from site_primary.shipping.session import Session

SLICES_A_STEP = 4


class _Mark(NamedTuple):
    """Where the walk was when X ended at `end` with `digest`: before `block` of the volume at `volume`."""

    end: int
    digest: bytes
    volume: int
    block: int


class BaseSender:
    """One base to one peer, over any number of sessions. `cut` is B once it is known; `sent_bytes` counts
    frames, those sent again included. `on_done` is called once the peer has installed it, `on_failed` if this
    site cannot make it, `on_outlasted` when the journal from B on cannot be held any more."""

    def __init__(
        self,
        group: Group,
        session: Session,
        start: Cut | None,
        rng: random.Random,
        *,
        on_done: Callable[[], None],
        on_failed: Callable[[str], None],
        on_outlasted: Callable[[], None] = lambda: None,
    ) -> None:
        self.start_cut = start
        self.timeline = rng.getrandbits(63) | 1
        self.cut: Cut | None = None
        self.done = False
        self.sent_bytes = 0
        self.sent_blocks = 0
        self._group = group
        self._session = session
        self._holder = f"base:{session.peer}"
        self._on_done = on_done
        self._on_failed = on_failed
        self._on_outlasted = on_outlasted
        self._attached = False  # to the session
        self._frame: JudgedFrame | None = None  # made, and not sent yet
        self._seeding = Seeding(session, self.timeline)
        self._going = False  # the peer said from where on
        self._begun: tuple[bytes, int] = (NO_DIGEST, 0)  # digest and time at B
        self._parts: list[bytes] = []
        self._walks: list[VolumeWalk] = []
        self._at = _Mark(0, NO_DIGEST, 0, 0)
        release_written(group, session.peer)
        self._marks: deque[_Mark] = deque([self._at])
        self._scan: ChangeScan | None = None
        self._candidates: deque[int] = deque()
        self._acknowledged = 0
        self._end_sent = False
        self._pumping = False
        self._closed = False
        self._asked = False

    @property
    def blocks_left(self) -> int:
        """Blocks of the volumes that the walk has not come to: the most that may still be sent."""
        total = sum(walk.blocks for walk in self._walks[self._at.volume :])
        return total - min(self._at.block, total)

    def _choose(self, cut: Cut) -> None:
        """B is known: what a session begins with, and the walk."""
        if self._closed:
            return
        group = self._group
        try:
            self._hold(cut)
            self._begun = (
                group.reader.digest_at(group.timelines, cut.timeline, cut.position),
                time_at(group.reader, group.timelines, cut),
            )
            self._parts = state_parts(group, cut)
            volumes = group.volumes.at(group.timelines.lineage(cut.timeline, cut.position))
            self._walks = [
                VolumeWalk(group, volume, cut, self.start_cut) for _, volume in sorted(volumes.items())
            ]
        except (FarshoreError, OSError) as error:
            self._fail(f"a base at {cut} cannot be made: {error}")
            return
        self.cut = cut
        group.space.hold(self._holder, ReplicationSlot(confirmed=lambda: cut, detach=self._detached))
        group.emit(
            "base.begun",
            group=group.name,
            position=str(cut),
            start=str(self.start_cut) if self.start_cut else "",
        )
        self._open()

    def _hold(self, cut: Cut) -> None:
        """Both cuts stay readable. Trimmed if one is not."""
        leases = self._group.kept.leases
        leases.hold(self._holder, cut)
        if self.start_cut is not None:
            leases.hold(f"{self._holder}:start", self.start_cut)

    def _release(self) -> None:
        self._group.space.release(self._holder)
        for name in (self._holder, f"{self._holder}:start"):
            self._group.kept.leases.release(name)
        release_written(self._group, self._session.peer)

    def _detached(self) -> None:
        """The journal does not lead on from B any more."""
        self._on_outlasted()

    def _keep_for_peer(self, cut: Cut) -> None:
        """The peer has B: it is what the next base to it can stand on, whatever is truncated meanwhile."""
        leases, name = self._group.kept.leases, lease_of(self._session.peer)
        try:
            leases.hold(name, cut, durable=True)
        except (FarshoreError, OSError):
            leases.hold(name, cut)  # until a restart; then the next one stands on less

    # -- sessions

    def attach(self) -> None:
        """Begin, or go on, in the session that began."""
        self._attached = True
        self._going = False
        self._seeding.reset()
        if not self._asked:
            self._asked = True
            self._group.checkpoints.when_indexed(self._choose)
        else:
            self._open()

    def detach(self) -> None:
        """The session is lost."""
        self._attached = self._going = False
        self._frame = None
        self._session.leave(self)

    def _open(self) -> None:
        if not self._attached or self.cut is None:
            return
        digest, utc_ns = self._begun
        begin = BaseBegin(
            session=self._session.id,
            base=self.timeline,
            cut=self.cut,
            start=self.start_cut,
            digest=digest,
            utc_ns=utc_ns,
            parts=len(self._parts),
            parts_digest=parts_digest(self._parts),
        )
        self._session.send(begin.encode())
        for number, part in enumerate(self._parts):
            header = BasePart(session=self._session.id, base=self.timeline, number=number)
            self._session.send(header.encode(), part)

    def on_message(self, message: FromTarget, payload: Buffer | None) -> None:
        """What the peer says of X, and of its seeds."""
        if message.base != self.timeline or self.done or self._closed:
            return
        if isinstance(message, BaseAck):
            self._on_ack(message)
        else:
            self._seeding.on_message(message, payload)
            self.pump()

    def _on_ack(self, ack: BaseAck) -> None:
        if ack.installed:
            self.finish()
            return
        if not self._going:
            mark = next((mark for mark in self._marks if mark.end == ack.written), None)
            if mark is None:
                self._fail(
                    f"the peer has {ack.written} bytes of a base, which is no place that it was sent to"
                )
                return
            self._going = True
            self._go_back(mark)
        self._acknowledged = max(self._acknowledged, ack.written)
        while len(self._marks) > 1 and self._marks[1].end <= ack.indexed:
            self._marks.popleft()
        self.pump()

    def _go_back(self, mark: _Mark) -> None:
        while self._marks[-1].end > mark.end:
            self._marks.pop()
        self._at = mark
        self._scan = None
        self._candidates.clear()
        self._acknowledged = mark.end
        self._end_sent = False

    def finish(self) -> None:
        """The peer has it installed."""
        if not self.done:
            self.done = True
            if self.cut is not None:
                self._keep_for_peer(self.cut)
            self.close()
            self._on_done()

    def close(self) -> None:
        """Stop, and hold nothing any more."""
        self._closed = True
        self._release()
        self.detach()
        self._walks = []
        self._candidates.clear()

    def _fail(self, reason: str) -> None:
        if not self._closed:
            self.close()
            self._on_failed(reason)

    # -- frames

    def pump(self) -> None:
        """Send what there is room for, a step at a time."""
        if not self._pumping and self._going:
            self._pumping = True
            self._group.clock.call_soon(self._turn)

    def _turn(self) -> None:
        self._pumping = False
        if not self._going or self._end_sent:
            return
        if self._frame is not None:
            self.take_turn()
            return
        if self._at.end - self._acknowledged >= SHIP_IN_FLIGHT_BYTES_MAX:
            return
        try:
            self._step()
        except (FarshoreError, OSError) as error:
            self._fail(f"a block of the base cannot be read: {error}")
            return
        self.pump()

    def _step(self) -> None:
        """One frame, or a few slices that lead to none, or the end."""
        if self._at.volume == len(self._walks):
            self._send_end()
            return
        rows: list[Row] = []
        payload: list[bytes] = []
        at = self._at
        walk = self._walks[at.volume]
        room = BASE_PAYLOAD_BYTES // BLOCK_BYTES
        slices = 0
        with walk.after.batch() as batch:
            while room > 0 and len(rows) < FRAME_EVENTS_MAX:
                if not self._candidates:
                    if self._scan is None:
                        self._scan = walk.scan(at.block)
                    if self._scan.done or slices == SLICES_A_STEP:
                        at = at._replace(block=walk.blocks if self._scan.done else self._scan.next_block)
                        break
                    self._candidates.extend(self._scan.slice())
                    slices += 1
                    continue
                kind, first, count = walk.run(batch, self._candidates, room)
                at = at._replace(block=first + count)
                if kind == WRITE:
                    payload.append(walk.after.read(batch, first * BLOCK_BYTES, count * BLOCK_BYTES))
                    room -= count
                if kind:
                    rows.append((kind, walk.volume.id, first, count))
        self._at = at
        if rows:
            self._make_frame(rows, payload, walk)
        if self._at.block >= walk.blocks and not self._candidates:
            self._at = self._at._replace(volume=self._at.volume + 1, block=0)
            self._scan = None
            self._marks[-1] = self._at  # no frame in between: the same place

    def _make_frame(self, rows: list[Row], payload: list[bytes], walk: VolumeWalk) -> None:
        payload_bytes = sum(map(len, payload))
        frame = encode_frame(
            timeline=self.timeline,
            position=self._at.end,
            utc_ns=self._begun[1],
            durable=0,
            previous_digest=self._at.digest,
            rows=rows,
            payload=payload,
            payload_bytes=payload_bytes,
        )
        self._at = self._at._replace(end=frame.prefix.end, digest=frame.prefix.digest)
        self._marks.append(self._at)
        self.sent_bytes += frame.prefix.frame_bytes
        self.sent_blocks += payload_bytes // BLOCK_BYTES
        self._frame = JudgedFrame(frame, rows, walk)

    def take_turn(self) -> None:
        """See `Sender.take_turn`: send the frame that waits, if it may go now; then the next one is made."""
        frame = self._frame
        if frame is None:
            return
        try:
            judged = self._seeding.judge(frame)
        except (FarshoreError, OSError) as error:
            self._fail(f"a block of the base cannot be read: {error}")
            return
        if not judged and self._seeding.waiting:
            return  # the answer goes on
        if judged:
            if not self._session.ready(self):
                return
            self._frame = None
            self._send_frame(frame)
        self.pump()

    def _send_frame(self, frame: JudgedFrame) -> None:
        if not frame.holes:
            self._session.send_payload(self._frame_header, frame.raw)
            return
        frame_bytes, holes = len(frame.raw), tuple(frame.holes)

        def header(compression: Compression) -> bytes:
            about = {"session": self._session.id, "base": self.timeline}
            return BaseHoled(**about, compression=compression, frame_bytes=frame_bytes, holes=holes).encode()

        self._session.send_payload(header, frame.left(), stands_for_bytes=frame_bytes)

    def turn_failed(self, defect: Exception) -> None:
        """See `Sender.turn_failed`."""
        self._group.on_defect(defect)

    def _frame_header(self, compression: Compression) -> bytes:
        message = BaseFrames(session=self._session.id, base=self.timeline, compression=compression)
        return message.encode()

    def _send_end(self) -> None:
        end = BaseEnd(session=self._session.id, base=self.timeline, end=self._at.end, digest=self._at.digest)
        self._end_sent = True
        self._session.send(end.encode())


def release_written(group: Group, peer: str) -> None:
    """Let go of what reclaim wrote down for a base to a peer, perhaps in a run that ended in its middle."""
    try:
        group.kept.leases.release(lease_of(f"base:{peer}"))
    except OSError:
        pass  # it keeps a cut too many, until the next session with this peer
