"""Receiving a group's journal: every frame checked, stored as it is, acknowledged by position.

A frame is taken only if it continues this site's own timeline, position and digest; otherwise the session is
reset and the two sides compare again. Acknowledgements are cumulative and coalesced: one for everything that
a wake-up brought, one more when an fdatasync made it durable.

Everything runs in callbacks on one loop; time and the network are ports.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum

from engine.group.group import Group
from engine.group.head import NotContiguous
from engine.history.lineage import frames_of_a_message, lineage_rows, shared_ns
from engine.journal.reader import BadFrame
from engine.peering.pair_states import Mode, PairState
from engine.peering.peer_clocks import SPEAKS, PeerClock
from engine.ports.transport import Caller
from engine.retention.journal_space import ReplicationSlot
from protocol.base_messages import READS_SEEDS, BaseMessage, FromSource
from protocol.errors import Diverged, FarshoreError, RemoteProtocolError, Trimmed
from protocol.frames import Buffer, FrameError, frames_in
from protocol.limits import HEARTBEAT_TIMEOUT_S
from protocol.messages import (
    Ack,
    ClockTold,
    Fetch,
    Fetched,
    FrameMessage,
    Heartbeat,
    Hello,
    MakeDurable,
    Message,
    Refused,
    Reset,
    Welcome,
)
from protocol.positions import NO_TIMELINE, Cut
from site_secondary.base_receiver import BaseReceiver, BaseSeedUse

PENDING_BEATS_MAX = 64


class ReceiverChange(Enum):
    """What a receiver tells the site."""

    ENGAGED = "engaged"  # the peer is about to change this site's history: hosts must go
    STATE = "state"


class Receiver:
    """One group from one peer. `complete_until_ns`: this site holds every frame up to that time, which came
    in at `complete_since_s` (monotonic). `on_change` is called before the peer's first frames or questions of
    a session change anything here, and when the pair's state at the peer is another."""

    def __init__(
        self,
        group: Group,
        peer: str,
        on_change: Callable[[ReceiverChange], None] = lambda _: None,
        peer_clock: PeerClock | None = None,
        seeds: BaseSeedUse | None = None,
    ) -> None:
        self.peer = peer
        self.peer_clock = peer_clock or PeerClock(peer, group.emit)
        self.mode = Mode.ASYNC
        self.complete_until_ns = 0
        self.complete_since_s: float | None = None
        self.heard_at: float | None = None
        self.received_bytes = 0
        self.remote_written = 0
        self.disowned = False  # the peer was asked, and shares the group no more
        self._on_change = on_change
        self._remote_state = ""
        self._leave = False  # an operator chose the peer's history
        self._history = 0  # where the peer's journal ended as this session began
        self._engaged = False  # whether this session has changed anything here
        self._welcomed = Cut(0, 0)  # where this site said that it is, in this session
        self._reason = ""
        self._group = group
        self._session = 0
        self._caller: Caller | None = None
        self._ack_pending = False
        self._durable_goal = 0  # a host waits until this much is durable here; 0: none does
        self._acknowledged = 0  # the last position said to be written here, in this session
        # (end there, time, horizon, when it came: monotonic), to be reached
        self._beats: deque[tuple[Cut, int, int, float]] = deque()
        self._base = BaseReceiver(
            group,
            on_installed=lambda: on_change(ReceiverChange.STATE),
            on_failed=self._base_failed,
            seeds=seeds,
        )
        self._horizon = 0
        slot = ReplicationSlot(
            confirmed=lambda: group.space.cut_at(self._horizon),
            detach=lambda: None,
            remember=False,
            lets_go=lambda: self._session != 0 and group.end != self._welcomed,  # else a base may be to come
        )
        group.space.hold(f"history of {peer}", slot)
        group.listeners.durable.append(self._ack_soon)
        group.listeners.relief.append(self._ack_soon)
        group.listeners.view.append(self._sync_record)

    @property
    def connected(self) -> bool:
        """Whether the peer was heard lately."""
        heard = self.heard_at
        return heard is not None and self._group.clock.monotonic() - heard <= HEARTBEAT_TIMEOUT_S

    @property
    def state(self) -> PairState:
        """The pair's state as far as this site knows."""
        if self.trouble:
            return PairState.SUSPENDED
        if self._remote_state == PairState.SPLIT.value:
            return PairState.SPLIT
        if self.disowned or not self.connected:
            return PairState.SUSPENDED
        try:
            return PairState(self._remote_state)
        except ValueError:
            return PairState.COPYING

    @property
    def reason(self) -> str:
        """Why the state is what it is."""
        if self.trouble:
            return self.trouble
        if self.disowned:
            name, goes_on = self._group.name, "takeover" if self._group.head else "pair delete"
            done = "goes on with it here" if self._group.head else "ends it here, where nothing of it came"
            return (
                f"{self.peer} shares it no more: pair or group was deleted there; `farshore {goes_on} "
                f"{name} --confirm {name}` {done}; a new pair made there makes it a copy again"
            )
        if not self.connected:
            return f"{self.peer} is silent"
        unheard = self._remote_state == PairState.SUSPENDED.value
        return f"{self.peer} does not hear this site" if unheard else ""

    @property
    def trouble(self) -> str:
        """Why what comes from the peer is not taken in here just now; it is tried again and again."""
        return self._reason or self._base.trouble

    @property
    def applied_age_s(self) -> float:
        """Seconds since the newest frame held here was written there."""
        return max(0.0, (self.peer_utc_ns - self._group.head.utc_ns) / 1e9)

    @property
    def peer_utc_ns(self) -> int:
        """What the peer's clock shows now; this site's, as long as that is not known."""
        there_ns = self.peer_clock.utc_ns(self._group.clock)
        return self._group.clock.utc_ns() if there_ns is None else there_ns

    def on_message(self, caller: Caller, message: Message, payload: Buffer | None) -> None:
        """One message of the peer."""
        if isinstance(message, Hello):
            self._on_hello(caller, message)
        elif message.session != self._session or self._session == 0:
            return
        elif isinstance(message, FrameMessage) and payload is not None:
            self.heard_at = self._group.clock.monotonic()
            self._on_frames(message, payload)
        elif isinstance(message, Heartbeat):
            self.heard_at = self._group.clock.monotonic()
            if message.mode == SPEAKS:
                self._tell_time(caller)
            elif message.mode == READS_SEEDS:
                self._base.source_reads_seeds()
            else:
                self._on_heartbeat(message)
        elif isinstance(message, FromSource):
            self.heard_at = self._group.clock.monotonic()
            self._on_base(message, payload)
        elif isinstance(message, Fetch):
            self.heard_at = self._group.clock.monotonic()
            self._on_fetch(message)
        elif isinstance(message, ClockTold):
            self.peer_clock.hear(self._group.clock, message)
            self._tell_time(caller)
        elif isinstance(message, MakeDurable):
            self.heard_at = self._group.clock.monotonic()
            self._durable_goal = max(self._durable_goal, message.position)
            self._make_durable()

    def told_of_end(self, *, shared: bool) -> None:
        """The peer, which ships nothing now, said whether it shares the group. What came of a base is for
        nothing if not: another pair begins another."""
        self.disowned = not shared
        if not shared:
            self._base.not_needed()

    def _tell_time(self, caller: Caller) -> None:
        caller.send(self.peer_clock.told(self._group.clock, self._session).encode())

    def _on_hello(self, caller: Caller, hello: Hello) -> None:
        if self._group.failed:
            refused = Refused(session=hello.session, code="wrong-state", message=self._group.failed)
            caller.send(refused.encode())
            return
        self._session = hello.session
        self._caller = caller
        self._reason, self.disowned = "", False
        self.heard_at = self._group.clock.monotonic()
        self._beats.clear()
        self._leave = hello.adopt
        self._history = hello.written
        self._engaged = False
        self._durable_goal = 0
        group = self._group
        self._acknowledged = group.writer.written
        self._welcomed = group.end
        was_split = self._remote_state == PairState.SPLIT.value
        if was_split:
            self._remote_state = ""  # from here on nobody may detach this site any more
        # A writer that restarted with its clock set back may write what is older than the last one promised.
        before_ns = max(0, shared_ns(group, hello.lineage, hello.written) - 1)
        if before_ns < self.complete_until_ns:
            self.complete_until_ns, self.complete_since_s = before_ns, None
        welcome = Welcome(
            session=hello.session,
            lineage=lineage_rows(group),
            written=group.writer.written,
            durable=group.writer.durable,
            digest=group.head.digest,
        )
        self._base.attach(hello.session, caller.send, leave=hello.adopt)
        caller.send(welcome.encode())
        if was_split:
            self._on_change(ReceiverChange.STATE)

    def _on_frames(self, message: FrameMessage, payload: Buffer) -> None:
        try:
            if self._base.installing:
                raise NotContiguous("a base is being installed")
            self._engage()
            self._base.not_needed()
            payload = message.unpacked(payload)
            for frame in frames_in(payload):
                history = frame.prefix.end <= self._history
                self._group.follow(frame.prefix, frame.raw, leave=self._leave, history=history)
        except (NotContiguous, FrameError, RemoteProtocolError) as error:
            self._end_session(Reset(session=self._session, reason=str(error)), str(error))
            return
        except (Trimmed, Diverged) as error:
            # A revert to what is not here: a base can go on. Or what only an operator may leave.
            text = f"cannot follow: {error}"
            self._end_session(Refused(session=self._session, code=error.code, message=text), text)
            return
        except (FarshoreError, OSError) as error:
            text = f"cannot store the journal: {error}"
            self._reason = text
            self._end_session(Refused(session=self._session, code="failed", message=text), text)
            return
        self.received_bytes += len(payload)
        self._reach()
        self._make_durable()
        self._ack_soon()

    def _on_base(self, message: BaseMessage, payload: Buffer | None) -> None:
        try:
            self._engage()
            self._base.on_message(message, payload)
        except (NotContiguous, FrameError, RemoteProtocolError) as error:
            self._end_session(Reset(session=self._session, reason=str(error)), str(error))
        except (FarshoreError, OSError) as error:
            code = error.code if isinstance(error, Trimmed | Diverged) else "failed"
            text = f"cannot take a base: {error}"
            if code == "failed":
                self._reason = text
            self._end_session(Refused(session=self._session, code=code, message=text), text)

    def _base_failed(self, reason: str) -> None:
        if self._session:
            self._end_session(Reset(session=self._session, reason=reason), reason)

    def _engage(self) -> None:
        if not self._engaged:
            self._engaged = True
            self._on_change(ReceiverChange.ENGAGED)

    def _try_engage(self) -> bool:
        """The same where nothing else would answer the peer; False if it could not be."""
        try:
            self._engage()
        except (FarshoreError, OSError) as error:
            text = f"hosts here cannot be sent away: {error}"
            self._end_session(Refused(session=self._session, code="failed", message=text), text)
            return False
        return True

    def _on_fetch(self, fetch: Fetch) -> None:
        """Give frames of this site's own lineage, as many as one message takes."""
        try:
            self._engage()
            frames, done = frames_of_a_message(self._group, Cut(fetch.timeline, fetch.position))
        except (BadFrame, FarshoreError, OSError) as error:
            code = error.code if isinstance(error, Trimmed) else "failed"
            text = f"the journal cannot be read here: {error}"
            self._end_session(Refused(session=self._session, code=code, message=text), text)
            return
        if self._caller is not None:
            self._caller.send(Fetched(session=self._session, done=done).encode(), b"".join(frames))

    def _make_durable(self) -> None:
        """Once all that a host waits for is written, begin; what becomes durable is acknowledged."""
        if 0 < self._durable_goal <= self._group.writer.written:
            self._durable_goal = 0
            self._group.when_durable(lambda _: None)

    def _end_session(self, message: Reset | Refused, reason: str) -> None:
        self._group.emit("pair.session_ended", group=self._group.name, peer=self.peer, reason=reason)
        if self._caller is not None:
            self._caller.send(message.encode())
        self._session = 0
        self._base.detach()

    def _on_heartbeat(self, beat: Heartbeat) -> None:
        if not self._engaged and beat.state in (PairState.COPYING.value, PairState.PAIRED.value):
            # The peer takes this site to be where it said: hosts of a detached one go, if it still is there.
            if self._group.end != self._welcomed:
                text = f"this site was written to: it is at {self._group.end}"
                self._end_session(Reset(session=self._session, reason=text), text)
                return
            if not self._try_engage():
                return
        before = (self._remote_state, self.mode)
        self._remote_state = beat.state
        self.mode = next((mode for mode in Mode if mode.value == beat.mode), self.mode)
        self.remote_written = beat.written
        if (self._remote_state, self.mode) != before:
            self._on_change(ReceiverChange.STATE)
        if len(self._beats) == PENDING_BEATS_MAX:
            self._beats.pop()
        end, came_s = Cut(beat.timeline, beat.written), self._group.clock.monotonic()
        self._beats.append((end, beat.utc_ns, beat.horizon, came_s))
        self._reach()
        self._ack_soon()

    def _reach(self) -> None:
        """Heartbeats whose end is held here by now."""
        group = self._group
        while self._beats and self._beats[0][0].position <= group.writer.written:
            if not group.holds_cut(self._beats[0][0]):
                return
            _, utc_ns, horizon, came_s = self._beats.popleft()
            if utc_ns >= self.complete_until_ns:
                self.complete_until_ns, self.complete_since_s = utc_ns, came_s
            # The writer may go back to any cut from its horizon on and to those that it keeps, which are
            # known here by now: they must be whole here, too.
            self._horizon = horizon

    def _sync_record(self) -> None:
        """A record was taken in: a backup or a restore waits at the other site until it is durable here."""
        if self._session:
            self._group.when_durable(lambda _: None)

    def _ack_soon(self) -> None:
        """Acknowledge once for everything that this wake-up brings."""
        if not self._ack_pending and self._session:
            self._ack_pending = True
            self._group.clock.call_soon(self._ack)

    def _ack(self) -> None:
        """While a checkpoint must catch up say no more than before: the sender's bound holds the rest back,
        and it hears that this site lives. Nor may it take for followed what hosts here may still write to:
        until they are gone, that is all it hears."""
        self._ack_pending = False
        if not self._session or self._caller is None:
            return
        writer = self._group.writer
        if not self._group.overloaded:
            self._acknowledged = writer.written
        timeline, written = self._group.head.timeline, min(self._acknowledged, writer.written)
        if not self._engaged:
            timeline, written = NO_TIMELINE, 0
        ack = Ack(
            session=self._session, timeline=timeline, written=written, durable=min(writer.durable, written)
        )
        self._caller.send(ack.encode())

    def close(self) -> None:
        """Stop listening to the group."""
        self._session = 0
        self._base.close()
        self._group.space.release(f"history of {self.peer}")
        if self._sync_record in self._group.listeners.view:
            self._group.listeners.view.remove(self._sync_record)
        for listeners in (self._group.listeners.durable, self._group.listeners.relief):
            if self._ack_soon in listeners:
                listeners.remove(self._ack_soon)
