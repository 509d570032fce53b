"""Receiving a group's journal: every frame checked, stored as it is, acknowledged by position.

A frame is taken only if it continues this site's own timeline, position and digest; otherwise the session is
reset and the two sides compare again. Acknowledgements are cumulative and coalesced: one for everything that
a wake-up brought, one more when an fdatasync made it durable.

Everything runs in callbacks on one loop; time and the network are ports.
"""

from __future__ import annotations

from collections import deque

from engine.group import Group
from engine.head_moves import NotContiguous
from engine.pair_states import PairState
from engine.ports.transport import Caller
from protocol.errors import FarshoreError, RemoteProtocolError
from protocol.frames import FrameError, parse_prefix
from protocol.limits import HEARTBEAT_TIMEOUT_S
from protocol.messages import (
    Ack,
    FrameMessage,
    Heartbeat,
    Hello,
    MakeDurable,
    Message,
    Refused,
    Reset,
    Welcome,
)
from protocol.positions import Cut

PENDING_BEATS_MAX = 64


class Receiver:
    """One group from one peer. `complete_until_ns`: this site holds every frame up to that time."""

    def __init__(self, group: Group, peer: str) -> None:
        self.peer = peer
        self.complete_until_ns = 0
        self.heard_at: float | None = None
        self.received_bytes = 0
        self.remote_written = 0
        self._remote_state = ""
        self._reason = ""
        self._group = group
        self._session = 0
        self._caller: Caller | None = None
        self._ack_pending = False
        self._durable_goal = 0  # a host waits until this much is durable here; 0: none does
        self._acknowledged = 0  # the last position said to be written here, in this session
        self._beats: deque[tuple[Cut, int]] = deque()  # (end there, its time), not yet reached here
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
        if self._reason:
            return PairState.SUSPENDED
        if self._remote_state == PairState.SPLIT.value:
            return PairState.SPLIT
        if not self.connected:
            return PairState.SUSPENDED
        try:
            return PairState(self._remote_state)
        except ValueError:
            return PairState.COPYING

    @property
    def reason(self) -> str:
        """Why the state is what it is."""
        if self._reason:
            return self._reason
        return "" if self.connected else f"{self.peer} is silent"

    @property
    def applied_age_s(self) -> float:
        """Seconds since the newest frame held here was written there."""
        return max(0.0, (self._group.clock.utc_ns() - self._group.utc_ns) / 1e9)

    def on_message(self, caller: Caller, message: Message, payload: bytes | None) -> None:
        """One message of the peer."""
        if isinstance(message, Hello):
            self._on_hello(caller, message)
        elif message.session != self._session or self._session == 0:
            return
        elif isinstance(message, FrameMessage) and payload is not None:
            self.heard_at = self._group.clock.monotonic()
            self._on_frames(payload)
        elif isinstance(message, Heartbeat):
            self.heard_at = self._group.clock.monotonic()
            self._on_heartbeat(message)
        elif isinstance(message, MakeDurable):
            self.heard_at = self._group.clock.monotonic()
            self._durable_goal = max(self._durable_goal, message.position)
            self._make_durable()

    def _on_hello(self, caller: Caller, hello: Hello) -> None:
        if self._group.failed:
            refused = Refused(session=hello.session, code="wrong-state", message=self._group.failed)
            caller.send(refused.encode())
            return
        self._session = hello.session
        self._caller = caller
        self._reason = ""
        self.heard_at = self._group.clock.monotonic()
        self._beats.clear()
        self._durable_goal = 0
        group = self._group
        self._acknowledged = group.writer.written
        # A writer that restarted with its clock set back may write what is older than the last one promised.
        self.complete_until_ns = min(self.complete_until_ns, group.utc_ns - 1)
        welcome = Welcome(
            session=hello.session,
            timeline=group.head,
            written=group.writer.written,
            durable=group.writer.durable,
            digest=group.digest,
        )
        caller.send(welcome.encode())

    def _on_frames(self, payload: bytes) -> None:
        view = memoryview(payload)
        at = 0
        try:
            while at < len(view):
                prefix = parse_prefix(view, at)
                self._group.follow(prefix, view[at : at + prefix.frame_bytes])
                at += prefix.frame_bytes
        except (NotContiguous, FrameError, RemoteProtocolError) as error:
            self._end_session(Reset(session=self._session, reason=str(error)), str(error))
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

    def _on_heartbeat(self, beat: Heartbeat) -> None:
        self._remote_state = beat.state
        self.remote_written = beat.written
        if len(self._beats) == PENDING_BEATS_MAX:
            self._beats.pop()
        self._beats.append((Cut(beat.timeline, beat.written), beat.utc_ns))
        self._reach()
        self._ack_soon()

    def _reach(self) -> None:
        """Heartbeats whose end is held here by now."""
        group = self._group
        while self._beats and self._beats[0][0].position <= group.writer.written:
            if not group.holds_cut(self._beats[0][0]):
                return
            self.complete_until_ns = max(self.complete_until_ns, self._beats.popleft()[1])

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
        and it hears that this site lives."""
        self._ack_pending = False
        if not self._session or self._caller is None:
            return
        writer = self._group.writer
        if not self._group.overloaded:
            self._acknowledged = writer.written
        written = min(self._acknowledged, writer.written)
        ack = Ack(
            session=self._session,
            timeline=self._group.head,
            written=written,
            durable=min(writer.durable, written),
        )
        self._caller.send(ack.encode())

    def close(self) -> None:
        """Stop listening to the group."""
        self._session = 0
        if self._sync_record in self._group.listeners.view:
            self._group.listeners.view.remove(self._sync_record)
        for listeners in (self._group.listeners.durable, self._group.listeners.relief):
            if self._ack_soon in listeners:
                listeners.remove(self._ack_soon)
