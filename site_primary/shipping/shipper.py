"""One group to one peer: what the pair is, what the peer has, and what follows from its answers.

A session begins with HELLO; the peer's WELCOME says where its journal ends and with which digest, and only if
this site's own journal has that digest there does shipping go on from that place (invariant 7: in sync means
equal timeline, position and digest, nothing else). From then on frames go from the group straight into the
send window; what comes back are positions. Hosts never wait, unless the sync gate says so.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from engine.group.group import Group
from engine.history.watermarks import PeerMarks
from engine.peering.pair_states import TRANSITIONS, PairState, PairVerb, next_state
from protocol.base_messages import BaseAck, BaseDigests, BaseSeeds
from protocol.errors import Diverged, FarshoreError, Trimmed
from protocol.messages import SUPERSEDED, Ack, Fetched, Message, Refused, Reset, Welcome
from site_primary.shipping.base_shipment import BaseShipment
from site_primary.shipping.comparison import (
    NOT_COMPARED,
    Choice,
    Known,
    Start,
    Verdict,
    heartbeat_of,
    hello_of,
    where_to_start,
)
from site_primary.shipping.fetcher import Fetcher
from site_primary.shipping.host_wait import HostWait
from site_primary.shipping.journal_lease import JournalLease
from site_primary.shipping.send_window import SendWindow
from site_primary.shipping.session import Payload, Session
from site_primary.shipping.session_phases import ANSWERS, HEARD, Phase, Step
from site_primary.sync_gate import SyncGate


class Shipper:
    """`state` is the pair's; `marks` what the peer has, `compared` where its journal and this one met last;
    `hosts` whether hosts wait for it; `followed_at` when the peer last spoke as one that follows, monotonic.
    `on_superseded`: the peer writes the group by a newer authority; this shipper is then to be closed."""

    def __init__(
        self,
        *,
        group: Group,
        group_id: str,
        session: Session,
        rng: random.Random,
        gate: SyncGate,
        on_change: Callable[[], None],
        on_superseded: Callable[[], None] = lambda: None,
    ) -> None:
        self.state = PairState.SIMPLEX
        self.reason = ""
        self.marks = PeerMarks()
        self.compared = NOT_COMPARED
        self.followed_at: float | None = None
        self.session = session
        self.gate = gate
        self.hosts = HostWait(group.holds, session.peer)
        self._group = group
        self._group_id = group_id
        self._on_change = on_change
        self._on_superseded = on_superseded
        self._parted: Start | None = None  # a comparison past whose fork the peer left nothing
        self._goal = 0  # written when the session began: reached means caught up
        self._lease = JournalLease(group, session.peer, lambda: self.marks.remote_durable, self._filling)
        self.window = SendWindow(group, session, self._lease, self._fail)
        # Once the peer's journal is here, or a base is there, the two compare again.
        self._fetcher = Fetcher(group, session, on_done=self._connect, on_failed=self._fail)
        self._base = BaseShipment(group, session, rng, self._connect, self._fail)
        session.listen(self._on_message, self._on_noise, self._on_due)
        self._lease.hold()

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
        self._parted = self._parted if choice is Choice.LOCAL else None  # what it could not give is given up
        self._move(PairVerb.RESYNC)
        self.session.backoff.reset()
        self._connect()

    def split(self) -> None:
        """Pause at whatever the peer has."""
        next_state(self.state, PairVerb.SPLIT, self._group.name)
        self.gate.suspend("split")
        self._move(PairVerb.SPLIT)
        self.window.stop()
        self._fetcher.stop()
        self.hosts.choose(Choice.NONE)
        self.hosts.serve()
        self.session.part()
        # The last word: the peer then knows a split from a silence.
        self.heartbeat()

    def readdressed(self, *, anew: bool) -> None:
        """The session has another address of the peer, or name; `anew`: of another, empty site."""
        self._lease.renamed(self.peer)
        self.hosts.peer = self.peer
        if anew:
            self.compared, self.marks, self._parted = NOT_COMPARED, PeerMarks(), None
            if self.state in (PairState.PAIRED, PairState.COPYING):
                self._move(PairVerb.PEER_LOST, f"{self.peer} is another site now")
        if self.session.phase not in (Phase.IDLE, Phase.PARTING):
            self.session.backoff.reset()
            self._connect()

    def wait_no_longer(self) -> None:
        """Hosts have waited for the peer long enough; while its journal is taken in they wait on."""
        self.hosts.no_longer(taking_in=self.session.phase is Phase.FETCHING)

    def close(self) -> None:
        """Stop for good."""
        self._end(Step.HANG_UP)
        self._base.end()
        self.window.close()
        self._lease.close()
        self.hosts.close()

    @property
    def peer(self) -> str:
        """Its name."""
        return self.session.peer

    @property
    def connected(self) -> bool:
        """Whether both go on together: `marks` are what the peer has now."""
        return self.session.connected

    @property
    def sends_base(self) -> bool:
        """Whether the peer gets changed blocks in place of the journal."""
        return self.session.phase is Phase.BASE

    @property
    def heard_at(self) -> float | None:
        """When the peer was last heard, monotonic."""
        return self.session.heard_at

    @property
    def lag_bytes(self) -> int:
        """Journal bytes that the peer does not have."""
        return max(0, self._group.writer.written - self.marks.remote_written)

    @property
    def left_bytes(self) -> int:
        """Still to be sent until the peer has everything. The journal after a base is small beside that."""
        return self._base.left_bytes if self.session.phase is Phase.BASE else self.lag_bytes

    @property
    def sent_bytes(self) -> int:
        """Bytes of frames sent since this shipper was made."""
        return self.window.sent_bytes + self._base.sent_bytes

    def _move(self, verb: PairVerb, reason: str = "") -> None:
        before = self.state
        self.state = next_state(self.state, verb, self._group.name)
        self.reason = reason
        if self.state is not before:
            states = {"state": self.state.value, "before": before.value, "position": str(self._group.end)}
            self._group.emit("pair.state", group=self._group.name, peer=self.peer, reason=reason, **states)
        self._on_change()

    def _connect(self) -> None:
        self._end(Step.HANG_UP)
        self.session.dial()
        self._say_hello()

    def _end(self, step: Step) -> None:
        """The session is over; `step` says what follows."""
        self.session.end(step)
        self.window.stop()
        self._fetcher.stop()
        self._base.interrupt()
        self.marks.session_over()
        self.gate.on_session(connected=False)
        self.hosts.ended()

    def _retry(self, refusal: str = "") -> None:
        """Dial again later, if there is a session to try again."""
        if not self.session.may(Step.RETRY):
            return
        self._end(Step.RETRY)
        retry = self.session.retry(refusal)
        if retry.flapping:
            self._group.emit("pair.flapping", group=self._group.name, peer=self.peer, delay_s=retry.delay_s)

    def _fail(self, reason: str, *, diverged: bool = False, code: str = "") -> None:
        """Stop with a reason, and try again later: later and later while the peer refuses by that code."""
        if self.state not in (PairState.DIVERGED, PairState.SPLIT):
            self._move(PairVerb.DIVERGE if diverged else PairVerb.FAIL, reason)
        # Not by the reason: it may name a place or a number, another one each time.
        self._retry(refusal=f"{self.state.value}: {code}")

    def _filling(self, filling: bool, reason: str) -> None:
        verb = PairVerb.FILL if filling else PairVerb.RELIEVE
        if (self.state, verb) in TRANSITIONS:
            self._move(verb, reason)

    def _on_due(self) -> None:
        """See the table in `session_phases`."""
        match self.session.phase:
            case Phase.PARTING:
                self._end(Step.HANG_UP)
            case Phase.WAITING:
                self._connect()
            case _ if self.session.lost:
                self._lose()
            case Phase.GREETING:
                self._say_hello()
            case Phase.FETCHING:
                # No heartbeat: what it promises of times is not so while older frames still come in.
                self.session.tick()
            case Phase.BASE | Phase.SHIPPING:
                self._pump()
                self.heartbeat()
                self.session.tell_time()

    def _lose(self) -> None:
        why = f"{self.peer}: {self.session.silence}"
        if self.state in (PairState.PAIRED, PairState.COPYING):
            self._move(PairVerb.PEER_LOST, why)
            self._filling(self._lease.filling, why)
        elif self.state in (PairState.SUSPENDED, PairState.FILLING):
            self.reason = why  # what it is now; the first cause may be mended
        self._retry()

    def _say_hello(self) -> None:
        adopt = self.hosts.choice is Choice.LOCAL
        self.session.send(hello_of(self._group, self.session.id, self._group_id, adopt=adopt).encode())
        self.session.tick()

    def heartbeat(self) -> None:
        """Tell the peer where the journal ends, and what the pair is."""
        # If only the way back is dead, this is the last that the peer will hear for as long again.
        unheard = self.session.unheard and self.state is not PairState.SPLIT
        state = PairState.SUSPENDED if unheard else self.state
        self.window.flush()  # what the beat says is written goes before it
        self.session.beat(heartbeat_of(self._group, self.session.id, state, self.gate.mode))

    def _on_noise(self, error: str) -> None:
        self._fail(f"{self.peer} sent what it may not: {error}")

    def _on_message(self, message: Message, payload: Payload) -> None:
        superseded = isinstance(message, Refused) and message.code == SUPERSEDED
        if self.session.phase is Phase.PARTING and not superseded:
            return
        if not isinstance(message, Refused):
            self.followed_at = self._group.clock.monotonic()
        if isinstance(message, Reset):
            self._group.emit("pair.reset", group=self._group.name, peer=self.peer, reason=message.reason)
            self._on_reset(message.reason)
        elif isinstance(message, Refused):
            self._on_refused(message.code, message.message)
        elif not isinstance(message, ANSWERS):
            self._fail(f"{self.peer} sent a message of the other direction")
        elif isinstance(message, HEARD.get(self.session.phase, ())):
            self._on_answer(message, payload)

    def _on_answer(self, message: Message, payload: Payload) -> None:
        match message:
            case Welcome():
                self._on_welcome(message)
            case Fetched():
                self._fetcher.take(message, payload or b"")
            case BaseAck() | BaseSeeds() | BaseDigests():
                self.hosts.peer_follows(caught_up=False)
                self._base.on_message(message, payload)
            case Ack():
                self._on_ack(message)

    def _on_reset(self, reason: str) -> None:
        if self.session.phase is Phase.SHIPPING:
            now_s = self._group.clock.monotonic()
            self.session.backoff.thrown_back(self.marks.remote_written, now_s)
        if self._stuck and self.state in (PairState.PAIRED, PairState.COPYING):
            self._move(PairVerb.FAIL, f"{self.peer} takes nothing more: {reason}")
        self._retry()

    @property
    def _stuck(self) -> bool:
        """Whether the peer throws what comes next back, each time."""
        has = self.marks.remote_written
        return has < self._group.writer.written and self.session.backoff.stuck_at(has)

    def _on_refused(self, code: str, text: str) -> None:
        fetching = self.session.phase is Phase.FETCHING
        if code == SUPERSEDED:
            self.hosts.settled = True
            try:
                self._on_superseded()
            except (FarshoreError, OSError) as error:
                self._fail(f"{self.peer}: {text}; this site cannot give up writing: {error}", code=code)
        elif code == Trimmed.code and not fetching and self._base.refused():
            self._retry()
        else:
            if not fetching:  # what is fetched is known to be lacking: hosts go on waiting for it
                self._settle()
            parted = code == Diverged.code or (code == Trimmed.code and fetching)
            self._parted = self.compared if parted else None
            self._fail(f"{self.peer}: {text}", diverged=parted, code=code)

    def _settle(self) -> None:
        self.hosts.settle()
        self._on_change()

    def _on_welcome(self, welcome: Welcome) -> None:
        self.session.welcomed()
        hosts = self.hosts
        parted = self._parted.fork if self._parted is not None else None
        try:
            known = Known(confirmed=self._lease.last_confirmed, parted=parted)
            start = where_to_start(self._group, welcome, known, choice=hosts.choice, serving=hosts.serving)
        except (FarshoreError, OSError) as error:
            self._fail(f"this site cannot tell where {self.peer} is: {error}")
            return
        start = self._base.judged(start)
        self._compared(start, welcome)
        match start.verdict:
            case Verdict.DIVERGED:
                self._settle()
                self._fail(f"{self.peer} {start.difference(welcome)}", diverged=True)
            case Verdict.FETCH:
                self.session.step(Step.FETCH)
                self._back()
                hosts.taking_in()
                self._fetcher.begin(start.cut, leave=hosts.choice is Choice.REMOTE)
            case Verdict.SHIP | Verdict.BASE:
                self._ship(start)

    def _compared(self, start: Start, welcome: Welcome) -> None:
        """What the peer has of this head is known anew: nothing that an earlier session said counts now."""
        self.compared = start
        held = min(welcome.written, start.equal_to)
        self.marks = PeerMarks(
            shipped=start.cut.position, remote_written=held, remote_durable=min(welcome.durable, held)
        )
        self.gate.on_compared(held, self.marks.remote_durable)

    def _back(self) -> None:
        if self.state not in (PairState.COPYING, PairState.PAIRED) and not self._stuck:
            self._move(PairVerb.PEER_BACK)
        cut = str(self.compared.cut)
        self._group.emit("pair.session", group=self._group.name, peer=self.peer, position=cut)

    def _ship(self, start: Start) -> None:
        """The peer takes this site's history in: the journal, or a base first."""
        needs_base = start.verdict is Verdict.BASE
        self.session.step(Step.SEND_BASE if needs_base else Step.SHIP)
        self.session.stop_timer()
        self._goal = self._group.writer.written
        self._settle()
        self._group.head.sealed = self._group.head.sealed or self._group.writes
        self._back()
        if needs_base:
            self._lease.let_go()  # it needs no frame before the base
            self._base.begin(start.cut)
        else:
            self._lease.hold()
            self.window.start(start.cut, self.marks)
            self.gate.on_session(connected=True)
            self.gate.on_marks(self.marks.remote_written, self.marks.remote_durable)
            self._pump()
        self.heartbeat()

    def _on_ack(self, ack: Ack) -> None:
        end = self._group.leaves(ack.timeline)  # what it is about to leave does not count
        written = min(ack.written, end)
        progress = self.marks.acknowledge(written, min(ack.durable, end))
        if ack.timeline:
            self.hosts.peer_follows(caught_up=self.marks.remote_written >= self._goal)
        if not progress:
            return
        self.window.acknowledged(written)
        if self.state is PairState.SUSPENDED and not self._stuck:
            self._move(PairVerb.PEER_BACK)  # it was, and goes on
        self.gate.on_marks(written, self.marks.remote_durable)
        if self.state is PairState.COPYING and self.marks.remote_written >= self._goal:
            self._move(PairVerb.CAUGHT_UP)
        self._on_change()
        self._pump()

    def _pump(self) -> None:
        self._base.pump()
        self.window.pump()
