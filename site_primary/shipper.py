"""Shipping a group's journal to a peer: sessions, what to send next, and what the peer has.

A session begins with HELLO; the peer's WELCOME says where its journal ends and with which digest, and only if
this site's own journal has that digest there does shipping go on from that place (invariant 7: in sync means
equal timeline, position and digest, nothing else). Frames go out as they are written while the peer keeps
up; when it does not, what is in flight stays bounded and the rest is read from the journal later. Hosts
never wait.

Everything runs in callbacks on one loop; time, randomness and the network are ports.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from engine.group import Group
from engine.journal.reader import BadFrame
from engine.pair_states import PairState, PairVerb, next_state
from engine.ports.clock import Timer
from engine.ports.disk import Buffer
from engine.ports.transport import Link, PeerAddress, Transport
from engine.watermarks import PeerMarks
from protocol.errors import FarshoreError, RemoteProtocolError
from protocol.frames import Frame
from protocol.limits import (
    FRAME_BYTES_MAX,
    HEARTBEAT_INTERVAL_S,
    HEARTBEAT_TIMEOUT_S,
    RECONNECT_DELAY_S,
    SHIP_HOLD_S,
    SHIP_IN_FLIGHT_BYTES_MAX,
    SHIP_IN_FLIGHT_FRAMES_MAX,
    SHIP_MESSAGE_BYTES,
    SHIP_READ_BYTES,
)
from protocol.messages import (
    Ack,
    FrameMessage,
    Heartbeat,
    Hello,
    MakeDurable,
    Refused,
    Reset,
    Welcome,
    decode_message,
)
from protocol.positions import Cut
from site_primary.ship_start import where_to_start
from site_primary.sync_gate import SyncGate

RETRY_REFUSED_S = 5.0
SPLIT_LINGER_S = 0.5
HELLO_TIMELINES_MAX = 256


class Shipper:
    """One group to one peer. `state` is the pair's; `marks` what the peer has."""

    def __init__(
        self,
        *,
        group: Group,
        group_id: str,
        address: PeerAddress,
        transport: Transport,
        rng: random.Random,
        gate: SyncGate,
        on_change: Callable[[], None],
    ) -> None:
        self.peer = address.name
        self.state = PairState.SIMPLEX
        self.reason = ""
        self.marks = PeerMarks()
        self.connected = False
        self.heard_at: float | None = None
        self.sent_bytes = 0
        self._group = group
        self._group_id = group_id
        self._address = address
        self._transport = transport
        self._rng = rng
        self._gate = gate
        self._on_change = on_change
        self._clock = group.clock
        self._link: Link | None = None
        self._session = 0
        self._dialled_at = 0.0
        self._frame_header = b""
        self._next: Cut | None = None  # what to send next; None until the peer said where it is
        self._goal = 0  # written when the session began: reached means caught up
        self._in_flight: deque[tuple[int, int]] = deque()  # (end position, bytes)
        self._in_flight_bytes = 0
        self._held: list[Buffer] = []  # frames of the next message
        self._held_bytes = 0
        self._hold_timer: Timer | None = None
        self._timer: Timer | None = None
        self._pumping = False
        group.listeners.frame.append(self._on_frame)

    # -- verbs

    def start(self) -> None:
        """Begin, or go on after a split."""
        self._move(PairVerb.CREATE if self.state is PairState.SIMPLEX else PairVerb.RESYNC)
        self._connect()

    def split(self) -> None:
        """Pause at whatever the peer has."""
        self._move(PairVerb.SPLIT)
        self._gate.suspend("split")
        self._next = None
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_later(SPLIT_LINGER_S, self._disconnect)
        # The last word: the peer then knows a split from a silence.
        self._heartbeat()

    def start_split(self) -> None:
        """Begin as split, after a restart."""
        self.state = PairState.SPLIT

    def close(self) -> None:
        """Stop for good."""
        self._disconnect()
        if self._on_frame in self._group.listeners.frame:
            self._group.listeners.frame.remove(self._on_frame)

    @property
    def lag_bytes(self) -> int:
        """Journal bytes that the peer does not have."""
        return max(0, self._group.writer.written - self.marks.remote_written)

    # -- sessions

    def _move(self, verb: PairVerb, reason: str = "") -> None:
        before = self.state
        self.state = next_state(self.state, verb, self._group.name)
        self.reason = reason
        if self.state is not before:
            self._group.emit(
                "pair.state",
                group=self._group.name,
                peer=self.peer,
                state=self.state.value,
                before=before.value,
                reason=reason,
                position=str(self._group.end),
            )
        self._on_change()

    def _connect(self) -> None:
        self._disconnect()
        self._session = self._rng.getrandbits(62) | 1
        self._frame_header = FrameMessage(session=self._session).encode()
        session = self._session
        self._dialled_at = self._clock.monotonic()
        self._link = self._transport.dial(self._address, lambda header, _: self._on_message(session, header))
        self._say_hello()

    def _disconnect(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None
        self._held = []
        self._held_bytes = 0
        self._session = 0
        self._next = None
        self._in_flight.clear()
        self._in_flight_bytes = 0
        self.connected = False
        self._gate.on_session(connected=False)

    def _reconnect_later(self, delay_s: float) -> None:
        self._disconnect()
        self._timer = self._clock.call_later(delay_s, self._connect)

    def _say_hello(self) -> None:
        group = self._group
        lineage = tuple(
            (t.id, t.parent, t.fork, t.generation)
            for t in (group.timelines.get(span.timeline) for span in group.spans()[-HELLO_TIMELINES_MAX:])
        )
        hello = Hello(
            session=self._session,
            group=group.name,
            group_id=self._group_id,
            site=group.site,
            lineage=lineage,
            written=group.writer.written,
        )
        if self._link is not None:
            self._link.send(hello.encode())
        self._timer = self._clock.call_later(HEARTBEAT_INTERVAL_S, self._tick)

    def _tick(self) -> None:
        """Once a second: notice silence, say where we are."""
        self._timer = None
        silent_s = self._clock.monotonic() - max(self.heard_at or 0.0, self._dialled_at)
        lost = self._link is None or self._link.ended
        if lost or silent_s > HEARTBEAT_TIMEOUT_S:
            if self.state in (PairState.PAIRED, PairState.COPYING):
                trouble = self._link.trouble if self._link is not None else ""
                silence = f"{silent_s:.0f} s of silence"
                why = "the connection was lost" if lost else trouble or silence
                self._move(PairVerb.PEER_LOST, f"{self.peer}: {why}")
            self._reconnect_later(RECONNECT_DELAY_S)
        elif self._next is None:
            self._say_hello()
        else:
            self._pump()
            self._heartbeat()

    def _heartbeat(self) -> None:
        if self._link is not None:
            beat = Heartbeat(
                session=self._session,
                timeline=self._group.head,
                written=self._group.writer.written,
                utc_ns=self._group.promise_utc_ns(),
                state=self.state.value,
            )
            self._link.send(beat.encode())
        if self._timer is None:
            self._timer = self._clock.call_later(HEARTBEAT_INTERVAL_S, self._tick)

    def _on_message(self, session: int, header: bytes) -> None:
        if session != self._session or self.state is PairState.SPLIT:
            return
        try:
            message = decode_message(header)
        except RemoteProtocolError as error:
            self._fail(f"{self.peer} sent what it may not: {error}")
            return
        if message.session != session:
            return
        self.heard_at = self._clock.monotonic()
        match message:
            case Welcome():
                if self._next is None:
                    self._on_welcome(message)
            case Ack():
                self._on_ack(message)
            case Reset(reason=reason):
                self._group.emit("pair.reset", group=self._group.name, peer=self.peer, reason=reason)
                self._reconnect_later(RECONNECT_DELAY_S)
            case Refused(code=code, message=text):
                self._fail(f"{self.peer}: {text}", diverged=code == "diverged")
            case _:
                self._fail(f"{self.peer} sent a message of the other direction")

    def _fail(self, reason: str, *, diverged: bool = False) -> None:
        """Stop with a reason, and try again later."""
        verb = PairVerb.DIVERGE if diverged else PairVerb.FAIL
        if self.state is not PairState.DIVERGED and self.state is not PairState.SPLIT:
            self._move(verb, reason)
        self._reconnect_later(RETRY_REFUSED_S)

    def _on_welcome(self, welcome: Welcome) -> None:
        self.connected = True
        try:
            start = where_to_start(self._group, welcome)
        except (FarshoreError, OSError) as error:
            self._fail(f"this site cannot tell where {self.peer} is: {error}")
            return
        if start is None:
            held = Cut(welcome.timeline, welcome.written)
            self._fail(f"{self.peer} has {held}, which is not in this journal", diverged=True)
            return
        self._next = start
        self._goal = self._group.writer.written
        position = min(start.position, welcome.written)
        self.marks = PeerMarks(
            shipped=position, remote_written=position, remote_durable=min(position, welcome.durable)
        )
        if self.state in (PairState.SUSPENDED, PairState.DIVERGED):
            self.state = PairState.SUSPENDED
            self._move(PairVerb.PEER_BACK)
        self._group.emit("pair.session", group=self._group.name, peer=self.peer, position=str(start))
        self._gate.on_session(connected=True)
        self._gate.on_marks(self.marks.remote_written, self.marks.remote_durable)
        self._caught_up()
        self._pump()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._heartbeat()

    def _on_ack(self, ack: Ack) -> None:
        if self._next is None:
            return
        end = self._group.writer.written
        if ack.timeline != self._group.head:
            # Of a tail that the peer is about to leave, only what lies before the fork counts.
            end = next((span.end for span in self._group.spans() if span.timeline == ack.timeline), 0)
        written = min(ack.written, end)
        if not self.marks.acknowledge(written, min(ack.durable, end)):
            return
        self._gate.on_marks(written, self.marks.remote_durable)
        while self._in_flight and self._in_flight[0][0] <= written:
            self._in_flight_bytes -= self._in_flight.popleft()[1]
        self._flush()
        self._caught_up()
        self._on_change()
        self._pump()

    def _caught_up(self) -> None:
        if self.state is PairState.COPYING and self.marks.remote_written >= self._goal:
            self._move(PairVerb.CAUGHT_UP)

    def ask_durable(self, position: int) -> None:
        """A host waits until everything before `position` is durable at the peer."""
        self._flush()
        if self._link is not None:
            self._link.send(MakeDurable(session=self._session, position=position).encode())

    # -- frames

    def _on_frame(self, frame: Frame) -> None:
        """A frame was written here: ship it at once if it is what comes next and there is room."""
        if self._next is None:
            return
        prefix = frame.prefix
        if self._next.position == prefix.position and self._next.timeline == prefix.timeline and self._room():
            self._send(frame)
        else:
            self._pump()

    def _room(self) -> bool:
        return (
            self._in_flight_bytes < SHIP_IN_FLIGHT_BYTES_MAX
            and len(self._in_flight) < SHIP_IN_FLIGHT_FRAMES_MAX
        )

    def _send(self, frame: Frame) -> None:
        """Put a frame into the next message. It goes at once if nothing is in flight, else with those that
        follow before the peer answers."""
        prefix = frame.prefix
        if self._held_bytes + prefix.frame_bytes > FRAME_BYTES_MAX:
            self._flush()
        self._held.append(frame.raw)
        self._held_bytes += prefix.frame_bytes
        self._next = Cut(prefix.timeline, prefix.end)
        self.marks.shipped = prefix.end
        self._in_flight.append((prefix.end, prefix.frame_bytes))
        self._in_flight_bytes += prefix.frame_bytes
        if self._held_bytes >= SHIP_MESSAGE_BYTES or self._held_bytes == self._in_flight_bytes:
            self._flush()
        elif self._hold_timer is None:
            self._hold_timer = self._clock.call_later(SHIP_HOLD_S, self._flush)

    def _flush(self) -> None:
        """Send what is held."""
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None
        if self._link is not None and self._held:
            payload = self._held[0] if len(self._held) == 1 else b"".join(self._held)
            self._link.send(self._frame_header, payload)
            self.sent_bytes += self._held_bytes
        self._held = []
        self._held_bytes = 0

    def _pump(self) -> None:
        """Send what the journal holds from `_next` on, as far as there is room; a slice at a time, so that a
        peer far behind does not keep the loop from hosts."""
        if self._next is None or self._pumping:
            return
        budget = SHIP_READ_BYTES
        try:
            while self._room() and budget > 0 and self._turn_corner():
                at = self._next
                end = next(
                    s.end for s in self._group.spans(self._group.writer.written) if s.timeline == at.timeline
                )
                for frame in self._group.reader.frames(at.timeline, at.position, end, None):
                    self._send(frame)
                    budget -= frame.prefix.frame_bytes
                    if not self._room() or budget <= 0:
                        break
        except BadFrame as error:
            self._fail(f"this site's journal cannot be read: {error}")
            return
        if budget <= 0 and self._room():
            self._pumping = True
            self._clock.call_soon(self._pump_on)

    def _pump_on(self) -> None:
        self._pumping = False
        self._pump()

    def _turn_corner(self) -> bool:
        """Move `_next` into the child timeline where its own ends; False if everything written was sent."""
        if self._next is None:
            return False
        spans = self._group.spans(self._group.writer.written)
        for at, span in enumerate(spans):
            if span.timeline == self._next.timeline or self._next.timeline == 0:
                if self._next.timeline == 0:
                    self._next = Cut(span.timeline, 0)
                if self._next.position < span.end:
                    return True
                if at + 1 < len(spans):
                    self._next = Cut(spans[at + 1].timeline, spans[at + 1].start)
        return False
