"""What this site knows of its peers' clocks, and what it says when one differs from its own.

The sites tell each other their time in CLOCK_TOLD messages, each with the time that was last heard of the
other and how long ago. What is heard back of one's own message gives the round trip, and the other's clock to
within half of it, as in NTP (RFC 5905, section 8). It is kept in relation to monotonic time, so that a step
of this site's own clock does not change it.

Nothing is ordered by it: positions are. It says how far times of the other's can be believed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from engine.group.listeners import Emit
from engine.ports.clock import Clock
from protocol.limits import CLOCK_ASK_EVERY_S, CLOCK_SKEW_S, CLOCK_TRIP_S_MAX
from protocol.messages import ClockTold

NS = 1_000_000_000
# The mode of a heartbeat that says: this site exchanges clocks. One of an earlier version keeps the mode that
# it knows, and is never sent what it could not read.
SPEAKS = "clocks"
CLOCK_SKEW, CLOCK_RIGHT = "peer.clock_skew", "peer.clock_right"


class Skew(NamedTuple):
    """By how much a peer's clock is ahead of this site's, to within so much."""

    ahead_s: float
    within_s: float

    @property
    def certain_s(self) -> float:
        """What it differs at least, in either direction."""
        return max(0.0, abs(self.ahead_s) - self.within_s)

    def text(self, peer: str) -> str:
        """`b's clock is 600.0 s behind this site's`."""
        word = "ahead of" if self.ahead_s > 0 else "behind"
        return f"{peer}'s clock is {abs(self.ahead_s):.1f} s {word} this site's"


class PeerClock:
    """One peer's, of this run. `speaks`: whether it can read CLOCK_TOLD; `wrong`: that it differs from this
    site's was said."""

    def __init__(self, peer: str, emit: Emit = lambda *_, **__: None) -> None:
        self.speaks = self.wrong = False
        self._peer = peer
        self._emit = emit
        self._sent = (0, 0.0)  # what was told last: UTC ns, and when (monotonic)
        self._heard = (0, 0.0)  # the same of what was heard
        self._asked_s: float | None = None
        self._offset_ns: float | None = None  # its UTC less this site's monotonic time
        self._within_s = 0.0

    def due(self, clock: Clock) -> bool:
        """Whether it is time to tell the time again, to whichever of the peer's sessions asks first."""
        now_s = clock.monotonic()
        if self._asked_s is not None and now_s - self._asked_s < CLOCK_ASK_EVERY_S:
            return False
        self._asked_s = now_s
        return True

    def told(self, clock: Clock, session: int) -> ClockTold:
        """The message that tells it now."""
        now_s = clock.monotonic()
        self._sent = (clock.utc_ns(), now_s)
        heard_ns, heard_s = self._heard
        held_ns = int((now_s - heard_s) * NS)
        if held_ns > CLOCK_TRIP_S_MAX * NS:
            heard_ns = held_ns = 0
        return ClockTold(session=session, utc_ns=self._sent[0], heard_ns=heard_ns, held_ns=held_ns)

    def hear(self, clock: Clock, message: ClockTold) -> None:
        """What the peer told."""
        now_s = clock.monotonic()
        self.speaks = True
        self._heard = (message.utc_ns, now_s)
        sent_ns, sent_s = self._sent
        trip_s = now_s - sent_s - message.held_ns / NS
        if not sent_ns or message.heard_ns != sent_ns or not 0 <= trip_s <= CLOCK_TRIP_S_MAX:
            return
        self._sent = (0, 0.0)
        self._offset_ns = message.utc_ns + (trip_s / 2 - now_s) * NS
        self._within_s = trip_s / 2
        self._look(clock)

    def utc_ns(self, clock: Clock) -> int | None:
        """What it shows now, if that is known."""
        return None if self._offset_ns is None else int(self._offset_ns + clock.monotonic() * NS)

    def skew(self, clock: Clock) -> Skew | None:
        """By how much it differs now, if that is known."""
        peer_ns = self.utc_ns(clock)
        if peer_ns is None:
            return None
        return Skew((peer_ns - clock.utc_ns()) / NS, self._within_s)

    def _look(self, clock: Clock) -> None:
        skew = self.skew(clock)
        if skew is None:
            return
        said = {"object": self._peer, "skew_s": round(skew.ahead_s, 3), "within_s": round(skew.within_s, 3)}
        if not self.wrong and skew.certain_s > CLOCK_SKEW_S:
            self.wrong = True
            self._emit(CLOCK_SKEW, **said, reason=skew.text(self._peer))
        elif self.wrong and abs(skew.ahead_s) < CLOCK_SKEW_S / 2:
            self.wrong = False
            self._emit(CLOCK_RIGHT, **said)


class PeerClocks:
    """Those of all peers of a site, by name."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._clocks: dict[str, PeerClock] = {}

    def of(self, peer: str) -> PeerClock:
        """That of one peer; for all groups the same."""
        return self._clocks.setdefault(peer, PeerClock(peer, self._emit))

    def take_up(self, wrong: Iterable[str]) -> None:
        """The last run said so of these peers, and did not take it back: it is not said again, and its end
        is."""
        for peer in wrong:
            self.of(peer).wrong = True

    def wrong(self) -> list[str]:
        """Peers whose clocks are known to differ."""
        return sorted(peer for peer, clock in self._clocks.items() if clock.wrong)
