"""How a payload gets onto the wire: smaller where an operator wants that, and no faster than the peer's pace.

The pace counts what travels, after compression. It holds back whole messages and never half of one: once
`ready` said no, `on_ready` comes when the next message may go.

Runs in callbacks on one loop; time and the network are ports.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from engine.ports.clock import Clock, Timer
from engine.ports.disk import Buffer
from protocol.compress import Compression, compress
from protocol.limits import SHIP_MESSAGE_BYTES
from protocol.messages import FrameMessage
from site_primary.pace import Pace
from site_primary.progress import Progress


@dataclass(slots=True)
class PeerTraffic:
    """What an operator chose for everything that goes to one peer; shared by the peer's groups."""

    pace: Pace = field(default_factory=Pace)
    compression: Compression = Compression.NONE


class Carrier:
    """See the module's docstring. `send` takes a header and a payload. `wire_bytes` is what payloads became,
    over all sessions."""

    def __init__(
        self,
        clock: Clock,
        traffic: PeerTraffic,
        send: Callable[[bytes, Buffer], None],
        on_ready: Callable[[], None],
    ) -> None:
        self.wire_bytes = 0
        self._payload_bytes = 0
        self._progress = Progress()
        self._clock = clock
        self._traffic = traffic
        self._send = send
        self._on_ready = on_ready
        self._frame_headers: dict[Compression, bytes] = {}
        self._timer: Timer | None = None

    def open(self, session: int) -> None:
        """A session began."""
        self.close()
        self._progress.begin(self._clock.monotonic(), self._payload_bytes)
        self._frame_headers = {
            compression: FrameMessage(session=session, compression=compression).encode()
            for compression in Compression
        }

    def close(self) -> None:
        """The session is over; nobody waits for the pace any longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def eta_s(self, left_bytes: int) -> float | None:
        """Seconds until so many more bytes of payload are sent, at the session's pace; None while unknown."""
        return self._progress.eta_s(self._clock.monotonic(), self._payload_bytes, left_bytes)

    def ready(self, held_bytes: int) -> bool:
        """Whether the pace lets more in after the `held_bytes` that wait for their message; if not,
        `on_ready` is called when it does."""
        if self._timer is not None:
            return False
        pace = self._traffic.pace
        if not pace.rate_bytes_s:
            return True
        now_s = self._clock.monotonic()
        if pace.wait_s(held_bytes + 1, now_s) == 0.0:
            return True
        # For a whole message, so that a slow pace does not send single frames.
        wait_s = pace.wait_s(held_bytes + SHIP_MESSAGE_BYTES, now_s)
        self._timer = self._clock.call_later(wait_s, self.pace_changed)
        return False

    def pace_changed(self) -> None:
        """More may go now, or sooner than was thought."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._on_ready()

    def send_frames(self, payload: Buffer) -> None:
        """Send one message of frames now."""
        self.send(self._frame_headers.__getitem__, payload)

    def send(self, header: Callable[[Compression], bytes], payload: Buffer) -> None:
        """Send one message now. `header` gives the header that says how the payload travels."""
        used, wire = Compression.NONE, payload
        if self._traffic.compression is Compression.ZSTD and (packed := compress(payload)) is not None:
            used, wire = Compression.ZSTD, packed
        self._send(header(used), wire)
        self.wire_bytes += len(wire)
        self._payload_bytes += len(payload)
        self._traffic.pace.spend(len(wire), self._clock.monotonic())
