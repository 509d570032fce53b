"""A peer's connection and what goes over it: made anew for every session, silent once lost.

Messages of another session than the present one are dropped here, so that what a dead connection still
delivers changes nothing. Payloads go as the operator chose for the peer: compressed where that gains, in turn
where a rate limits them (`rate_limit`). One timer says when something is due; `session_phases` says what.

Runs in callbacks on one loop; time, randomness and the network are ports.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from engine.peering.link_pool import LinkPool
from engine.peering.peer_clocks import SPEAKS, PeerClock
from engine.ports.clock import Clock, Timer
from engine.ports.disk import Buffer
from engine.ports.transport import Link, NoLink, PeerAddress
from engine.ports.transport import Payload as Payload  # also for who sends by a session
from protocol.compress import Compression, compress
from protocol.errors import RemoteProtocolError
from protocol.limits import HEARTBEAT_INTERVAL_S, HEARTBEAT_TIMEOUT_S
from protocol.messages import ClockTold, FrameMessage, Heartbeat, Message, decode_message
from site_primary.shipping.backoff import Backoff, Retry
from site_primary.shipping.rate_limit import Sender, SendQueue
from site_primary.shipping.session_phases import CONNECTED, TRANSITIONS, Phase, Step, next_phase

SPLIT_LINGER_S = 0.5
# Two heartbeats before silence counts as loss: then the peer is told that it is not heard.
UNHEARD_AFTER_S = HEARTBEAT_TIMEOUT_S - 2 * HEARTBEAT_INTERVAL_S
# A session is not judged by what it sent in its first moments.
ETA_AFTER_S = 1.0


@dataclass(slots=True)
class PeerTraffic:
    """What an operator chose for everything that goes to one peer; shared by the peer's groups."""

    queue: SendQueue
    compression: Compression = Compression.NONE

    def pack(self, payload: Buffer) -> tuple[Compression, Buffer]:
        """How a payload travels, and as which bytes."""
        if self.compression is Compression.ZSTD and (packed := compress(payload)) is not None:
            return Compression.ZSTD, packed
        return Compression.NONE, payload


class Session:
    """One peer's connection at a time. `id` is 0 while there is no connection; `heard_at` is monotonic;
    `wire_bytes` counts what payloads became, over all sessions; `address` is what the next one dials. Silent
    until `listen`."""

    def __init__(
        self,
        *,
        links: LinkPool,
        address: PeerAddress,
        clock: Clock,
        rng: random.Random,
        traffic: PeerTraffic,
        peer_clock: PeerClock | None = None,
    ) -> None:
        self.address = address
        self.id = 0
        self.phase = Phase.IDLE
        self.heard_at: float | None = None
        self.backoff = Backoff(rng)
        self.wire_bytes = 0
        self._payload_bytes = 0
        self._payload_before = 0  # of earlier sessions
        self._links = links
        self._clock = clock
        self._rng = rng
        self._traffic = traffic
        self._peer_clock = peer_clock or PeerClock(address.name)
        self._link: Link | None = None
        self._beat: Heartbeat | None = None
        self._dialled_at = 0.0
        self._timer: Timer | None = None
        self._frame_headers: dict[Compression, bytes] = {}

    def listen(
        self,
        on_message: Callable[[Message, Payload], None],
        on_noise: Callable[[str], None],
        on_due: Callable[[], None],
    ) -> None:
        """`on_message` is given what decodes, `on_noise` why something did not; `on_due` is called when the
        timer runs out."""
        self._on_message = on_message
        self._on_noise = on_noise
        self._on_due = on_due

    @property
    def peer(self) -> str:
        """Its name."""
        return self.address.name

    # -- phases

    @property
    def connected(self) -> bool:
        """Whether the peer was compared, and the two go on together."""
        return self.phase in CONNECTED

    def step(self, step: Step) -> None:
        """Go to the phase that the table says."""
        self.phase = next_phase(self.phase, step)

    def dial(self) -> None:
        """Begin a session."""
        self.end(Step.DIAL)
        self.id = session = self._rng.getrandbits(62) | 1
        self._dialled_at = self._clock.monotonic()
        self._peer_clock.speaks = False  # the peer may be of an earlier version by now
        self._payload_before = self._payload_bytes
        self._frame_headers = {
            compression: FrameMessage(session=session, compression=compression).encode()
            for compression in Compression
        }
        if not self.address.endpoint:
            self._link = NoLink(f"where {self.peer} listens is not known: `farshore peer list`")
            return
        self._link = self._links.dial(
            self.address, session, lambda header, payload: self.take(session, header, payload)
        )

    def end(self, step: Step) -> None:
        """Hang up; `step` says what follows."""
        self.step(step)
        self.stop_timer()
        if self._link is not None:
            self._link.close()
            self._link = None
        self.id = 0

    def may(self, step: Step) -> bool:
        """Whether the table knows that step from here."""
        return (self.phase, step) in TRANSITIONS

    def welcomed(self) -> None:
        """The peer answered the HELLO."""
        self.backoff.session_began(self._clock.monotonic())

    def retry(self, refusal: str) -> Retry:
        """After a session that ended: dial is due after a while. `refusal` as in `Backoff.ended`."""
        retry = self.backoff.ended(self._clock.monotonic(), refusal)
        self._due_in(retry.delay_s)
        return retry

    def part(self) -> None:
        """A split: hang up when what was said last is on its way."""
        self.step(Step.PART)
        self.stop_timer()
        self._due_in(SPLIT_LINGER_S)

    # -- the timer

    def tick(self) -> None:
        """Something is due a heartbeat from now, unless something is earlier."""
        if self._timer is None:
            self._due_in(HEARTBEAT_INTERVAL_S)

    def stop_timer(self) -> None:
        """Nothing is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due_in(self, delay_s: float) -> None:
        self._timer = self._clock.call_later(delay_s, self._due)

    def _due(self) -> None:
        self._timer = None
        self._on_due()

    # -- hearing

    def take(self, session: int, header: bytes, payload: Payload = None) -> None:
        """What came by a connection that was made for `session`."""
        if session != self.id:
            return
        try:
            message = decode_message(header)
        except RemoteProtocolError as error:
            self._on_noise(str(error))
            return
        if message.session == session:
            self.heard_at = self._clock.monotonic()
            if isinstance(message, ClockTold):
                self._peer_clock.hear(self._clock, message)
            else:
                self._on_message(message, payload)

    @property
    def lost(self) -> bool:
        """Whether the connection is gone, or nothing was heard by it for too long."""
        return self._ended or self._silent_s > HEARTBEAT_TIMEOUT_S

    @property
    def unheard(self) -> bool:
        """Whether it is about to be lost."""
        return self._silent_s > UNHEARD_AFTER_S

    @property
    def silence(self) -> str:
        """Why nothing is heard, as far as is known."""
        if self._ended:
            return "the connection was lost"
        trouble = self._link.trouble if self._link is not None else ""
        return trouble or f"{self._silent_s:.0f} s of silence"

    @property
    def _ended(self) -> bool:
        return self._link is None or self._link.ended

    @property
    def _silent_s(self) -> float:
        """Since anything was heard, or since the session began."""
        return self._clock.monotonic() - max(self.heard_at or 0.0, self._dialled_at)

    # -- sending

    def send(self, header: bytes, payload: Payload = None) -> None:
        """Queue a message as it is, if there is a session."""
        if self._link is not None:
            self._link.send(header, payload)

    def beat(self, heartbeat: Heartbeat) -> None:
        """Send it; something is due a heartbeat from now."""
        self._beat = heartbeat
        self.send(heartbeat.encode())
        self.tick()

    def tell_time(self) -> None:
        """Tell the peer this site's clock, if it is due and the peer can read that. Whether it can, its own
        first message says; until then the last heartbeat once more, in another mode, says that this site
        does."""
        if self._beat is None or not self._peer_clock.due(self._clock):
            return
        if self._peer_clock.speaks:
            self.send(self._peer_clock.told(self._clock, self.id).encode())
        else:
            self.send(replace(self._beat, mode=SPEAKS).encode())

    def ready(self, sender: Sender) -> bool:
        """Whether `sender` may send a payload now; if not, it is its turn later (`Sender.take_turn`)."""
        return self._traffic.queue.may_send(sender)

    def leave(self, sender: Sender) -> None:
        """It waits for no turn any more."""
        self._traffic.queue.leave(sender)

    def send_frames(self, payload: Buffer) -> None:
        """Send one message of frames now."""
        self.send_payload(self._frame_headers.__getitem__, payload)

    def send_payload(
        self, header: Callable[[Compression], bytes], payload: Buffer, stands_for_bytes: int = 0
    ) -> None:
        """Send one message now, as large things go to this peer. `header` gives the header that says how the
        payload travels; it may stand for more bytes than it has, which the peer need not be sent."""
        used, wire = self._traffic.pack(payload)
        self.send(header(used), wire)
        self.wire_bytes += len(wire)
        self._payload_bytes += stands_for_bytes or len(payload)
        self._traffic.queue.sent(len(wire))

    def eta_s(self, left_bytes: int) -> float | None:
        """Seconds until so many more bytes of payload are sent, at the session's pace; None while unknown."""
        if left_bytes <= 0:
            return 0.0
        elapsed_s = self._clock.monotonic() - self._dialled_at
        sent = self._payload_bytes - self._payload_before
        if elapsed_s < ETA_AFTER_S or sent <= 0:
            return None
        return left_bytes * elapsed_s / sent
