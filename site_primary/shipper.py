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
from contextlib import suppress

from engine.group.group import Group
from engine.history.watermarks import PeerMarks
from engine.peering.pair_states import TRANSITIONS, PairState, PairVerb, next_state
from engine.ports.clock import Timer
from engine.ports.disk import Buffer
from engine.ports.transport import PeerAddress, Transport
from protocol.base_messages import BaseAck
from protocol.errors import Diverged, FarshoreError, Trimmed
from protocol.frames import Frame
from protocol.limits import HEARTBEAT_INTERVAL_S, HEARTBEAT_TIMEOUT_S
from protocol.messages import SUPERSEDED, Ack, Fetched, MakeDurable, Message, Refused, Reset, Welcome
from protocol.positions import Cut
from site_primary.announce import heartbeat_of, hello_of, writes_here
from site_primary.base_shipment import BaseShipment
from site_primary.carrier import Carrier, PeerTraffic
from site_primary.fetcher import Fetcher
from site_primary.host_wait import HostWait
from site_primary.journal_hold import JournalHold
from site_primary.outbox import Outbox
from site_primary.peer_link import PeerLink
from site_primary.ship_start import Choice, Known, Start, Verdict, where_to_start
from site_primary.sync_gate import SyncGate
from site_primary.turns import Turns

SPLIT_LINGER_S = 0.5
# Two heartbeats before silence counts as loss: then the peer is told that it is not heard.
UNHEARD_AFTER_S = HEARTBEAT_TIMEOUT_S - 2 * HEARTBEAT_INTERVAL_S


class Shipper:
    """One group to one peer. `state` is the pair's; `marks` what the peer has; `hosts` whether hosts wait for
    it. `on_superseded` is told that the peer writes the group by a newer authority; this shipper is then to
    be closed."""

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
        on_superseded: Callable[[], None] = lambda: None,
        traffic: PeerTraffic | None = None,
    ) -> None:
        self.peer = address.name
        self.state = PairState.SIMPLEX
        self.reason = ""
        self.marks = PeerMarks()
        self.connected = False
        self.fork: Cut | None = None  # where the peer's journal left this one, if it did
        self._parted: Cut | None = None  # a fork past which the peer left nothing
        self.tail_bytes = 0
        self.followed_at: float | None = None  # when the peer last spoke as one that follows, monotonic
        self._group = group
        self._group_id = group_id
        self.gate = gate
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
        self.reconnect = self._link.reconnect
        traffic = traffic or PeerTraffic(Turns(group.clock))
        stop = lambda defect: group.on_defect(defect)  # noqa: E731
        self.carrier = Carrier(group.clock, traffic, self._link.send, self._take_turn, stop)
        unreadable = lambda error: self._fail(f"this site's journal cannot be read: {error}")  # noqa: E731
        self._outbox = Outbox(group, self._send_frames, self.carrier.ready, unreadable)
        self._goal = 0  # written when the session began: reached means caught up
        self.hosts = HostWait(group.holds, address.name)
        # Once the peer's journal is here the two compare again.
        done, failed = self._connect, self._fail
        self.fetcher = Fetcher(group, self.peer, self._link.send, on_done=done, on_failed=failed)
        self.base = BaseShipment(group, address.name, rng, self._connect, self._fail)
        self._timer: Timer | None = None
        group.listeners.frame.append(self._on_frame)
        self._journal = JournalHold(group, self.peer, lambda: self.marks.remote_written, self._filling)
        self._journal.hold()

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
        self.hosts.choose(choice)
        self._parted = None
        self._move(PairVerb.RESYNC)
        self.reconnect.reset()
        self._connect()

    def split(self) -> None:
        """Pause at whatever the peer has."""
        next_state(self.state, PairVerb.SPLIT, self._group.name)
        self.gate.suspend("split")
        self._move(PairVerb.SPLIT)
        self._outbox.stop()
        self.fetcher.stop()
        self.hosts.choose(Choice.NONE)
        self.hosts.serve()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_later(SPLIT_LINGER_S, self._disconnect)
        # The last word: the peer then knows a split from a silence.
        self._heartbeat()

    def close(self) -> None:
        """Stop for good."""
        self._disconnect()
        self.base.end()
        self._journal.close()
        self.hosts.close()
        with suppress(ValueError):
            self._group.listeners.frame.remove(self._on_frame)

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
        return self._outbox.sent_bytes + self.base.sent_bytes

    # -- sessions

    def _move(self, verb: PairVerb, reason: str = "") -> None:
        before = self.state
        self.state = next_state(self.state, verb, self._group.name)
        self.reason = reason
        if self.state is not before:
            group, states = self._group, {"state": self.state.value, "before": before.value}
            end = str(group.end)
            group.emit("pair.state", group=group.name, peer=self.peer, reason=reason, position=end, **states)
        self._on_change()

    def _connect(self) -> None:
        self._disconnect()
        self._link.dial()
        self.carrier.open(self._link.session)
        self._say_hello()

    def _disconnect(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._link.hang_up()
        self._outbox.stop()
        self.carrier.close()
        self.fetcher.stop()
        self.base.interrupt()
        self.connected = False
        self.marks.session_over()
        self.gate.on_session(connected=False)
        self.hosts.ended()

    def _reconnect_later(self, refusal: str = "") -> None:
        self._disconnect()
        retry = self.reconnect.ended(self._clock.monotonic(), refusal)
        if retry.flapping:
            self._group.emit("pair.flapping", group=self._group.name, peer=self.peer, delay_s=retry.delay_s)
        self._timer = self._clock.call_later(retry.delay_s, self._connect)

    def _say_hello(self) -> None:
        adopt = self.hosts.choice is Choice.LOCAL
        hello = hello_of(self._group, self._link.session, self._group_id, adopt=adopt)
        self._link.send(hello.encode())
        self._timer = self._clock.call_later(HEARTBEAT_INTERVAL_S, self._tick)

    def _tick(self) -> None:
        """Once a second: notice silence, say where we are."""
        self._timer = None
        if self._link.lost or self._link.silent_s > HEARTBEAT_TIMEOUT_S:
            if self.state in (PairState.PAIRED, PairState.COPYING):
                self._move(PairVerb.PEER_LOST, f"{self.peer}: {self._link.silence}")
                self._filling(self._journal.filling, self.reason)
            self._reconnect_later()
        elif self._outbox.open or self.base.active:
            self._pump()
            self._heartbeat()
        elif self.fetcher.active:
            # No heartbeat: what it promises of times is not so while older frames still come in.
            self._timer = self._clock.call_later(HEARTBEAT_INTERVAL_S, self._tick)
        else:
            self._say_hello()

    def _heartbeat(self) -> None:
        # If only the way back is dead, this is the last that the peer will hear for as long again.
        unheard = self._link.silent_s > UNHEARD_AFTER_S and self.state is not PairState.SPLIT
        state = PairState.SUSPENDED if unheard else self.state
        self._outbox.flush()  # what the beat says is written goes before it
        self._link.send(heartbeat_of(self._group, self._link.session, state, self.gate.mode).encode())
        if self._timer is None:
            self._timer = self._clock.call_later(HEARTBEAT_INTERVAL_S, self._tick)

    def _on_message(self, message: Message, payload: bytes | None) -> None:
        superseded = isinstance(message, Refused) and message.code == SUPERSEDED
        if self.state is PairState.SPLIT and not superseded:
            return
        if not isinstance(message, Refused):
            self.followed_at = self._clock.monotonic()
        match message:
            case Welcome():
                if not (self._outbox.open or self.fetcher.active or self.base.active):
                    self._on_welcome(message)
            case Fetched():
                self.fetcher.take(message, payload or b"")
            case Ack():
                self._on_ack(message)
            case BaseAck():
                self.hosts.peer_follows(caught_up=False)
                self.base.on_ack(message)
            case Reset(reason=reason):
                self._group.emit("pair.reset", group=self._group.name, peer=self.peer, reason=reason)
                self._reconnect_later()
            case Refused(code=code):
                self._on_refused(code, message.message)
            case _:
                self._fail(f"{self.peer} sent a message of the other direction")

    def _fail(self, reason: str, *, diverged: bool = False, code: str = "") -> None:
        """Stop with a reason, and try again later: later and later while the peer refuses by that code."""
        verb = PairVerb.DIVERGE if diverged else PairVerb.FAIL
        if self.state is not PairState.DIVERGED and self.state is not PairState.SPLIT:
            self._move(verb, reason)
        # Not by the reason: it may name a place or a number, another one each time.
        self._reconnect_later(refusal=f"{self.state.value}: {code}")

    def _filling(self, filling: bool, reason: str) -> None:
        verb = PairVerb.FILL if filling else PairVerb.RELIEVE
        if (self.state, verb) in TRANSITIONS:
            self._move(verb, reason)

    def _settle(self) -> None:
        self.hosts.settle()
        self._on_change()

    def _on_refused(self, code: str, text: str) -> None:
        if code == SUPERSEDED:
            self.hosts.settled = True
            try:
                self._on_superseded()
            except (FarshoreError, OSError) as error:
                self._fail(f"{self.peer}: {text}; this site cannot give up writing: {error}", code=code)
        elif code == Trimmed.code and not self.fetcher.active and self.base.refused():
            self._reconnect_later()
        else:
            if not self.fetcher.active:  # what is fetched is known to be lacking: hosts go on waiting for it
                self._settle()
            parted = code == Diverged.code or (code == Trimmed.code and self.fetcher.active)
            self._parted = self.fork if parted else None
            self._fail(f"{self.peer}: {text}", diverged=parted, code=code)

    def _on_welcome(self, welcome: Welcome) -> None:
        self.reconnect.session_began(self._clock.monotonic())
        try:
            known = Known(confirmed=self._journal.last_confirmed, parted=self._parted)
            hosts = self.hosts
            start = where_to_start(self._group, welcome, known, choice=hosts.choice, serving=hosts.serving)
        except (FarshoreError, OSError) as error:
            self._fail(f"this site cannot tell where {self.peer} is: {error}")
            return
        self.fork, self.tail_bytes = (start.cut if start.tail else None), start.tail_bytes
        start = self.base.judged(start)
        self._compared(start, welcome)
        match start.verdict:
            case Verdict.DIVERGED:
                self._settle()
                self._fail(f"{self.peer} {start.difference(welcome)}", diverged=True)
            case Verdict.FETCH:
                self._back(start.cut)
                self.hosts.taking_in()
                self.fetcher.begin(self._link.session, start.cut, leave=self.hosts.choice is Choice.REMOTE)
            case Verdict.SHIP | Verdict.BASE:
                self._ship(start)

    def _compared(self, start: Start, welcome: Welcome) -> None:
        """What the peer has of this head is known anew: nothing that an earlier session said counts now."""
        held = min(welcome.written, start.equal_to)
        durable = min(welcome.durable, held)
        self.marks = PeerMarks(shipped=start.cut.position, remote_written=held, remote_durable=durable)
        self.gate.on_compared(held, durable)
        self.connected = start.verdict is not Verdict.DIVERGED

    def _back(self, cut: Cut) -> None:
        if self.state not in (PairState.COPYING, PairState.PAIRED):
            self._move(PairVerb.PEER_BACK)
        self._group.emit("pair.session", group=self._group.name, peer=self.peer, position=str(cut))

    def _ship(self, start: Start) -> None:
        cut = start.cut
        self._goal = self._group.writer.written
        self._settle()
        self._group.head.sealed = self._group.head.sealed or writes_here(self._group)
        self._back(cut)
        if start.verdict is Verdict.BASE:
            self._journal.let_go()  # it needs no frame before the base
            self.base.begin(cut, self._link.session, self._link.send, self.carrier)
        else:
            self._journal.hold()
            self._outbox.start(cut)
            self.gate.on_session(connected=True)
            self.gate.on_marks(self.marks.remote_written, self.marks.remote_durable)
            self._caught_up()
            self._pump()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._heartbeat()

    # -- the journal goes to the peer

    def _on_ack(self, ack: Ack) -> None:
        if not self._outbox.open:
            return
        end = self._group.leaves(ack.timeline)  # what it is about to leave does not count
        written = min(ack.written, end)
        self.marks.shipped = self._outbox.shipped
        progress = self.marks.acknowledge(written, min(ack.durable, end))
        if ack.timeline:
            self.hosts.peer_follows(caught_up=self.marks.remote_written >= self._goal)
        if not progress:
            return
        self._outbox.acknowledged(written)
        self.gate.on_marks(written, self.marks.remote_durable)
        self._caught_up()
        self._on_change()
        self._pump()

    def _caught_up(self) -> None:
        if self.state is PairState.COPYING and self.marks.remote_written >= self._goal:
            self._move(PairVerb.CAUGHT_UP)

    def _on_frame(self, frame: Frame) -> None:
        self._outbox.on_frame(frame)
        self.marks.shipped = self._outbox.shipped

    def _pump(self) -> None:
        self.base.pump()
        if self._outbox.open:
            self._outbox.pump()
            self.marks.shipped = self._outbox.shipped

    def _take_turn(self) -> None:
        self.base.take_turn()
        self._outbox.take_turn()
        self._pump()

    def ask_durable(self, position: int) -> None:
        """A host waits until everything before `position` is durable at the peer."""
        self._outbox.flush()
        self._link.send(MakeDurable(session=self._link.session, position=position).encode())

    def _send_frames(self, payload: Buffer) -> None:
        try:
            self._journal.note_head()
        except (FarshoreError, OSError) as error:
            self._fail(f"this site cannot remember what {self.peer} is sent: {error}")
            return
        self.carrier.send_frames(payload)
