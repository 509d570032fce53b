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
from collections.abc import Callable

from engine.group import Group
from engine.head_moves import NotContiguous, begin_timeline
from engine.journal_space import JournalHolder
from engine.lineage import lineage_rows
from engine.pair_states import Mode, PairState, PairVerb, next_state
from engine.ports.clock import Timer
from engine.ports.disk import Buffer
from engine.ports.transport import PeerAddress, Transport
from engine.watermarks import PeerMarks
from protocol.errors import FarshoreError, RemoteProtocolError
from protocol.frames import Frame, FrameError
from protocol.limits import HEARTBEAT_INTERVAL_S, HEARTBEAT_TIMEOUT_S, RECONNECT_DELAY_S
from protocol.messages import (
    SUPERSEDED,
    Ack,
    Fetched,
    FrameMessage,
    Heartbeat,
    Hello,
    Message,
    Refused,
    Reset,
    Welcome,
)
from protocol.positions import Cut
from site_primary.fetcher import Fetcher
from site_primary.outbox import Outbox
from site_primary.peer_link import PeerLink
from site_primary.ship_start import Choice, Verdict, where_to_start

RETRY_REFUSED_S = 5.0
SPLIT_LINGER_S = 0.5


class Shipper:
    """One group to one peer. `state` is the pair's; `marks` what the peer has. `settled`: the peer answered
    once, and what it has was compared. `on_superseded` is told that the peer writes the group by a newer
    authority; this shipper is then to be closed."""

    def __init__(
        self,
        *,
        group: Group,
        group_id: str,
        address: PeerAddress,
        transport: Transport,
        rng: random.Random,
        mode: Mode,
        on_change: Callable[[], None],
        on_superseded: Callable[[], None] = lambda: None,
    ) -> None:
        self.peer = address.name
        self.mode = mode
        self.state = PairState.SIMPLEX
        self.reason = ""
        self.marks = PeerMarks()
        self.connected = False
        self.settled = False
        self.serving = False
        self.fork: Cut | None = None  # where the peer's journal left this one, if it did
        self.tail_bytes = 0
        self._group = group
        self._group_id = group_id
        self._on_change = on_change
        self._on_superseded = on_superseded
        self._clock = group.clock
        self._link = PeerLink(
            transport=transport,
            address=address,
            clock=group.clock,
            rng=rng,
            on_message=self._on_message,
            on_noise=lambda error: self._fail(f"{self.peer} sent what it may not: {error}"),
        )
        self._frame_header = b""
        self._outbox = Outbox(group, self._send_frames, self._unreadable)
        self._said_head = group.state.shipped(group.name)
        self._goal = 0  # written when the session began: reached means caught up
        self._choice = Choice.NONE
        self._fetcher = Fetcher(group, address.name, self._link.send)
        self._timer: Timer | None = None
        group.listeners.frame.append(self._on_frame)
        self._hold_journal()

    def _hold_journal(self) -> None:
        """Frames that the peer lacks stay in the journal, while there is room for them."""
        holder = JournalHolder(confirmed=self._confirmed, detach=lambda: None)
        self._group.folding.space.holders[self.peer] = holder

    def _confirmed(self) -> Cut | None:
        """The last cut that the peer is known to have."""
        position = self.marks.remote_written
        spans = self._group.spans(self._group.writer.written)
        return next((Cut(s.timeline, position) for s in spans if s.start < position <= s.end), None)

    # -- verbs

    def start(self, state: PairState = PairState.SIMPLEX) -> None:
        """Begin; `state` is where the pair stood when this site stopped, or a takeover began."""
        self.state = state
        if state is PairState.SPLIT:
            self._settle()
            return
        if state is not PairState.TAKEN_OVER:
            self.state = PairState.SIMPLEX
            self._move(PairVerb.CREATE)
        self._connect()

    def resync(self, choice: Choice) -> None:
        """Go on after a split, an error or a divergence; `choice` says whose history stays if both wrote."""
        self._move(PairVerb.RESYNC)
        self._choice = choice
        self._connect()

    def split(self) -> None:
        """Pause at whatever the peer has."""
        self._move(PairVerb.SPLIT)
        self._outbox.stop()
        self._fetcher.end()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_later(SPLIT_LINGER_S, self._disconnect)
        # The last word: the peer then knows a split from a silence.
        self._heartbeat()

    def close(self) -> None:
        """Stop for good."""
        self._disconnect()
        self._fetcher.end()
        self._group.folding.space.holders.pop(self.peer, None)
        if self._on_frame in self._group.listeners.frame:
            self._group.listeners.frame.remove(self._on_frame)

    @property
    def waits_strictly(self) -> bool:
        """Whether nothing may be served before the peer answered."""
        return False

    @property
    def heard_at(self) -> float | None:
        """When the peer was last heard, monotonic."""
        return self._link.heard_at

    @property
    def lag_bytes(self) -> int:
        """Journal bytes that the peer does not have."""
        return max(0, self._group.writer.written - self.marks.remote_written)

    @property
    def sent_bytes(self) -> int:
        """Bytes of frames sent since this shipper was made."""
        return self._outbox.sent_bytes

    @property
    def fetching(self) -> bool:
        """Whether this site takes the peer's history in."""
        return self._fetcher.active

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
        self._link.dial()
        self._frame_header = FrameMessage(session=self._link.session).encode()
        self._say_hello()

    def _disconnect(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._link.hang_up()
        self._outbox.stop()
        self._fetcher.interrupt()
        self.connected = False

    def _reconnect_later(self, delay_s: float) -> None:
        self._disconnect()
        self._timer = self._clock.call_later(delay_s, self._connect)

    def _say_hello(self) -> None:
        group = self._group
        hello = Hello(
            session=self._link.session,
            group=group.name,
            group_id=self._group_id,
            site=group.site,
            lineage=lineage_rows(group),
            written=group.writer.written,
            adopt=self._choice is Choice.LOCAL,
        )
        self._link.send(hello.encode())
        self._timer = self._clock.call_later(HEARTBEAT_INTERVAL_S, self._tick)

    def _tick(self) -> None:
        """Once a second: notice silence, say where we are."""
        self._timer = None
        if self._link.lost or self._link.silent_s > HEARTBEAT_TIMEOUT_S:
            if self.state in (PairState.PAIRED, PairState.COPYING):
                self._move(PairVerb.PEER_LOST, f"{self.peer}: {self._link.silence}")
            self._reconnect_later(RECONNECT_DELAY_S)
        elif self._outbox.open:
            self._outbox.pump()
            self._heartbeat()
        elif self._fetcher.active:
            # No heartbeat: what it promises of times is not so while older frames still come in.
            self._timer = self._clock.call_later(HEARTBEAT_INTERVAL_S, self._tick)
        else:
            self._say_hello()

    def _heartbeat(self) -> None:
        group = self._group
        beat = Heartbeat(
            session=self._link.session,
            timeline=group.head,
            written=group.writer.written,
            utc_ns=group.promise_utc_ns(),
            state=self.state.value,
            mode=self.mode.value,
        )
        self._link.send(beat.encode())
        if self._timer is None:
            self._timer = self._clock.call_later(HEARTBEAT_INTERVAL_S, self._tick)

    def _on_message(self, message: Message, payload: bytes | None) -> None:
        if self.state is PairState.SPLIT:
            return
        match message:
            case Welcome():
                if not self._outbox.open and not self._fetcher.active:
                    self._on_welcome(message)
            case Fetched():
                self._on_fetched(message, payload or b"")
            case Ack():
                self._on_ack(message)
            case Reset(reason=reason):
                self._group.emit("pair.reset", group=self._group.name, peer=self.peer, reason=reason)
                self._reconnect_later(RECONNECT_DELAY_S)
            case Refused(code=code):
                self._on_refused(code, message.message)
            case _:
                self._fail(f"{self.peer} sent a message of the other direction")

    def _fail(self, reason: str, *, diverged: bool = False) -> None:
        """Stop with a reason, and try again later."""
        verb = PairVerb.DIVERGE if diverged else PairVerb.FAIL
        if self.state is not PairState.DIVERGED and self.state is not PairState.SPLIT:
            self._move(verb, reason)
        self._reconnect_later(RETRY_REFUSED_S)

    def _settle(self) -> None:
        """The peer was heard: hosts need not wait for it any longer."""
        self.settled = True
        self.serve()
        self._on_change()

    def serve(self) -> None:
        """Let hosts in, once."""
        if not self.serving:
            self.serving = True
            self._group.held_back = ""

    def _on_refused(self, code: str, text: str) -> None:
        if code == SUPERSEDED:
            self.settled = True
            self._disconnect()
            self._on_superseded()
        else:
            self._settle()
            self._fail(f"{self.peer}: {text}", diverged=code == "diverged")

    def _on_welcome(self, welcome: Welcome) -> None:
        self.connected = True
        group = self._group
        try:
            start = where_to_start(group, welcome, choice=self._choice, serving=self.serving)
        except (FarshoreError, OSError) as error:
            self._fail(f"this site cannot tell where {self.peer} is: {error}")
            return
        self.fork, self.tail_bytes = (start.cut, start.tail_bytes) if start.tail else (None, 0)
        match start.verdict:
            case Verdict.DIVERGED:
                self._settle()
                self._fail(f"{self.peer} {start.difference(welcome)}", diverged=True)
            case Verdict.FETCH:
                self._back(start.cut)
                self._fetcher.begin(self._link.session, start.cut, leave=self._choice is Choice.REMOTE)
            case Verdict.SHIP:
                self._ship(start.cut, welcome)

    def _back(self, cut: Cut) -> None:
        if self.state in (PairState.SUSPENDED, PairState.DIVERGED, PairState.TAKEN_OVER):
            self._move(PairVerb.PEER_BACK)
        self._group.emit("pair.session", group=self._group.name, peer=self.peer, position=str(cut))

    def _ship(self, cut: Cut, welcome: Welcome) -> None:
        held = min(welcome.written, cut.position)
        self.marks = PeerMarks(
            shipped=cut.position, remote_written=held, remote_durable=min(welcome.durable, held)
        )
        self._goal = self._group.writer.written
        self._hold_journal()
        self._settle()
        self._group.sealed = True
        self._choice = Choice.NONE
        self._outbox.start(cut)
        self._back(cut)
        self._caught_up()
        self._outbox.pump()
        self.marks.shipped = self._outbox.shipped
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._heartbeat()

    # -- the journal comes from the peer

    def _on_fetched(self, fetched: Fetched, payload: bytes) -> None:
        if not self._fetcher.active:
            return
        try:
            done = self._fetcher.take(fetched, payload)
            if done and self._choice is Choice.REMOTE:
                begin_timeline(self._group, authority=True)
        except (NotContiguous, FrameError, RemoteProtocolError, FarshoreError, OSError) as error:
            self._fail(f"what {self.peer} holds cannot be taken in: {error}")
            return
        self._on_change()
        if done:
            group = self._group
            self._choice = Choice.NONE
            group.emit("pair.fetched", group=group.name, peer=self.peer, position=str(group.end))
            self._connect()

    # -- the journal goes to the peer

    def _on_ack(self, ack: Ack) -> None:
        if not self._outbox.open:
            return
        end = self._group.writer.written
        if ack.timeline != self._group.head:
            # Of a tail that the peer is about to leave, only what lies before the fork counts.
            end = next((span.end for span in self._group.spans() if span.timeline == ack.timeline), 0)
        written = min(ack.written, end)
        self.marks.shipped = self._outbox.shipped
        if not self.marks.acknowledge(written, min(ack.durable, end)):
            return
        self._outbox.acknowledged(written)
        self._caught_up()
        self._on_change()
        self._outbox.pump()

    def _caught_up(self) -> None:
        if self.state is PairState.COPYING and self.marks.remote_written >= self._goal:
            self._move(PairVerb.CAUGHT_UP)

    def _on_frame(self, frame: Frame) -> None:
        self._outbox.on_frame(frame)
        self.marks.shipped = self._outbox.shipped

    def _send_frames(self, payload: Buffer) -> None:
        group = self._group
        if self._said_head != group.head:
            group.state.set_shipped(group.name, group.head)
            self._said_head = group.head
        self._link.send(self._frame_header, payload)

    def _unreadable(self, error: str) -> None:
        self._fail(f"this site's journal cannot be read: {error}")
