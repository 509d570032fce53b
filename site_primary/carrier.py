"""How a payload gets onto the wire: smaller where an operator wants that, and no faster than the peer's pace.

The pace counts what travels, after compression. It holds back whole messages and never half of one: once
`ready` said no, `on_turn` comes when the next message may go (site_primary.turns).

Runs in callbacks on one loop; time and the network are ports.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.group.compartment import Defect
from engine.ports.clock import Clock
from engine.ports.disk import Buffer
from protocol.compress import Compression, compress
from protocol.messages import FrameMessage
from site_primary.progress import Progress
from site_primary.turns import Turns


@dataclass(slots=True)
class PeerTraffic:
    """What an operator chose for everything that goes to one peer; shared by the peer's groups."""

    turns: Turns
    compression: Compression = Compression.NONE

    def pack(self, payload: Buffer) -> tuple[Compression, Buffer]:
        """How a payload travels, and as which bytes."""
        if self.compression is Compression.ZSTD and (packed := compress(payload)) is not None:
            return Compression.ZSTD, packed
        return Compression.NONE, payload


class Carrier:
    """See the module's docstring. `send` takes a header and a payload. `wire_bytes` is what payloads became,
    over all sessions. `on_defect` is told what `on_turn` raised that nobody expected."""

    def __init__(
        self,
        clock: Clock,
        traffic: PeerTraffic,
        send: Callable[[bytes, Buffer], None],
        on_turn: Callable[[], None],
        on_defect: Defect = lambda _: None,
    ) -> None:
        self.wire_bytes = 0
        self._payload_bytes = 0
        self._progress = Progress()
        self._clock = clock
        self._traffic = traffic
        self._send = send
        self._on_turn = on_turn
        self._on_defect = on_defect
        self._frame_headers: dict[Compression, bytes] = {}

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
        self._traffic.turns.leave(self)

    def eta_s(self, left_bytes: int) -> float | None:
        """Seconds until so many more bytes of payload are sent, at the session's pace; None while unknown."""
        return self._progress.eta_s(self._clock.monotonic(), self._payload_bytes, left_bytes)

    def ready(self) -> bool:
        """Whether a message may go now; if not, `on_turn` is called when it may."""
        return self._traffic.turns.may_send(self)

    def take_turn(self) -> None:
        """See `Sender.take_turn`."""
        self._on_turn()

    def turn_failed(self, defect: Exception) -> None:
        """See `Sender.turn_failed`."""
        self._on_defect(defect)

    def send_frames(self, payload: Buffer) -> None:
        """Send one message of frames now."""
        self.send(self._frame_headers.__getitem__, payload)

    def send(self, header: Callable[[Compression], bytes], payload: Buffer) -> None:
        """Send one message now. `header` gives the header that says how the payload travels."""
        used, wire = self._traffic.pack(payload)
        self._send(header(used), wire)
        self.wire_bytes += len(wire)
        self._payload_bytes += len(payload)
        self._traffic.turns.sent(len(wire))
