"""Frames on their way to a peer: what comes next, what is in flight, and what waits to share a message.

Frames go out as they are written while the peer keeps up; when it does not, what is in flight stays bounded
and the rest is read from the journal later, a slice at a time, so that a peer far behind does not keep the
loop from hosts. While something is in flight, small frames share one message.

With a rate for the peer a message waits for its turn, and nothing is gathered behind it; when the turn comes,
what was written meanwhile goes along.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from engine.group.group import Group
from engine.history.lineage import frames_after, next_place
from engine.history.watermarks import PeerMarks
from engine.journal.reader import BadFrame
from engine.ports.clock import Timer
from engine.ports.disk import Buffer
from protocol.errors import FarshoreError
from protocol.frames import Frame
from protocol.limits import (
    FRAME_BYTES_MAX,
    SHIP_HOLD_S,
    SHIP_IN_FLIGHT_BYTES_MAX,
    SHIP_IN_FLIGHT_FRAMES_MAX,
    SHIP_MESSAGE_BYTES,
    SHIP_READ_BYTES,
)
from protocol.messages import MakeDurable
from protocol.positions import Cut
from site_primary.shipping.journal_lease import JournalLease
from site_primary.shipping.session import Session


class SendWindow:
    """`session` carries the messages, `lease` remembers what the peer may hold. `on_failed` is told why
    nothing more can be sent. `sent_bytes` counts frames over all sessions."""

    def __init__(
        self, group: Group, session: Session, lease: JournalLease, on_failed: Callable[[str], None]
    ) -> None:
        self.sent_bytes = 0
        self._group = group
        self._session = session
        self._lease = lease
        self._on_failed = on_failed
        self._clock = group.clock
        self._marks = PeerMarks()
        self._next: Cut | None = None  # None: nothing is sent
        self._in_flight: deque[tuple[int, int]] = deque()  # (end position, bytes)
        self._in_flight_bytes = 0
        self._held: list[Buffer] = []  # frames of the next message
        self._held_bytes = 0
        self._hold_timer: Timer | None = None
        self._waits = False  # what is held, for its turn
        self._pumping = False
        group.listeners.frame.append(self._on_frame)

    def close(self) -> None:
        """Nothing is sent any more; twice is fine."""
        self.stop()
        if self._on_frame in self._group.listeners.frame:
            self._group.listeners.frame.remove(self._on_frame)

    def start(self, cut: Cut, marks: PeerMarks) -> None:
        """Send everything after `cut`, and what is written from now on. `marks.shipped` follows."""
        self._next = cut
        self._marks = marks
        marks.shipped = cut.position

    def stop(self) -> None:
        """Send nothing more and forget what is in flight."""
        self._session.leave(self)
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None
        self._held = []
        self._held_bytes = 0
        self._waits = False
        self._next = None
        self._in_flight.clear()
        self._in_flight_bytes = 0

    def acknowledged(self, position: int) -> None:
        """The peer has everything before `position`."""
        while self._in_flight and self._in_flight[0][0] <= position:
            self._in_flight_bytes -= self._in_flight.popleft()[1]
        self.flush()

    def _on_frame(self, frame: Frame) -> None:
        """A frame was written here: ship it at once if it is what comes next and there is room."""
        if self._next is None:
            return
        prefix = frame.prefix
        if self._next.position == prefix.position and self._next.timeline == prefix.timeline and self._room():
            self._put(frame)
        else:
            self.pump()

    def ask_durable(self, position: int) -> None:
        """Have the peer make everything before `position` durable."""
        self.flush()
        self._session.send(MakeDurable(session=self._session.id, position=position).encode())

    def _room(self) -> bool:
        return (
            self._in_flight_bytes < SHIP_IN_FLIGHT_BYTES_MAX
            and len(self._in_flight) < SHIP_IN_FLIGHT_FRAMES_MAX
            and not self._waits
        )

    def _put(self, frame: Frame, *, gather: bool = False) -> bool:
        """Put a frame into the next message. It goes at once if nothing is in flight and more is not to be
        gathered, else with those that follow before the peer answers. False if no more can be taken: it
        does not fit into the message that waits, or sending failed."""
        prefix = frame.prefix
        if self._held_bytes + prefix.frame_bytes > FRAME_BYTES_MAX:
            self.flush()
            if self._waits:
                return False
        self._held.append(frame.raw)
        self._held_bytes += prefix.frame_bytes
        self._next = Cut(prefix.timeline, prefix.end)
        self._marks.shipped = prefix.end
        self._in_flight.append((prefix.end, prefix.frame_bytes))
        self._in_flight_bytes += prefix.frame_bytes
        alone = self._held_bytes == self._in_flight_bytes and not gather
        if self._held_bytes >= SHIP_MESSAGE_BYTES or alone:
            self.flush()
        elif self._hold_timer is None:
            self._hold_timer = self._clock.call_later(SHIP_HOLD_S, self.flush)
        return self._next is not None

    def flush(self) -> None:
        """Send what is held, at once or in its turn."""
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None
        if not self._held:
            return
        self._waits = not self._session.ready(self)
        if self._waits:
            return
        try:
            self._lease.note_head()
        except (FarshoreError, OSError) as error:
            self._on_failed(f"this site cannot remember what {self._session.peer} is sent: {error}")
            return
        self._session.send_frames(self._held[0] if len(self._held) == 1 else b"".join(self._held))
        self.sent_bytes += self._held_bytes
        self._held = []
        self._held_bytes = 0

    def take_turn(self) -> None:
        """See `Sender.take_turn`: send what waits, filled up from the journal."""
        self._waits = False
        if self._held_bytes >= SHIP_MESSAGE_BYTES:
            self.flush()
        self.pump(gather=True)
        self.flush()
        self.pump()

    def turn_failed(self, defect: Exception) -> None:
        """See `Sender.turn_failed`."""
        self._group.on_defect(defect)

    def pump(self, *, gather: bool = False) -> None:
        """Send what the journal holds from `_next` on, as far as there is room, a slice at a time; with
        `gather` in messages as large as may be."""
        if self._next is None or self._pumping or not self._room():
            return
        group = self._group
        if self._next == group.end or next_place(group.spans(group.writer.written), self._next) is None:
            return
        budget = SHIP_READ_BYTES
        try:
            for frame in frames_after(group, self._next):
                if not self._put(frame, gather=gather):
                    break
                budget -= frame.prefix.frame_bytes
                if not self._room() or budget <= 0:
                    break
        except BadFrame as error:
            self._on_failed(f"this site's journal cannot be read: {error}")
            return
        if budget <= 0 and self._room():
            self._pumping = True
            self._clock.call_soon(self._pump_on)

    def _pump_on(self) -> None:
        self._pumping = False
        self.pump()
