"""When to dial a peer again: soon after a session that lived, later and later while sessions die young, or
while the same refusal comes again.

A link that comes and goes costs both sites a handshake, a look for the common place and a change of state
each time, and an operator an event each time. So the delay doubles with each session in a row that died
young, and one that lived begins anew. A dial that never became a session counts for neither: a peer that is
away is not a link that flaps.

A refusal costs both sites as much, and may be for ever. So its own, longer delay doubles too, until something
else is said or a session is welcomed.

Pure, but for the injected rng: whoever asks says what time it is.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

from protocol.limits import (
    RECONNECT_DELAY_MAX_S,
    RECONNECT_DELAY_S,
    REFUSED_DELAY_MAX_S,
    REFUSED_DELAY_S,
    SESSION_YOUNG_S,
)

# The first session that dies young is an ordinary restart; as many in a row as this are a link that flaps.
FLAPS = 4
# A session that ends because of a frame may have met a bad link, or a peer that is not ready for it yet. As
# many as this at one place, and over so long, did not.
THROWN_BACK = 3
THROWN_BACK_S = 5.0
# Two sites behind one bad link must not dial in step.
JITTER = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Dial again after `delay_s`. `flapping`: this session was the one that made the link a flapping one;
    said once, until a session lives long again."""

    delay_s: float
    flapping: bool


class _ThrownBack(NamedTuple):
    """Behind which position the peer ended sessions, how often in a row, and when first and last."""

    position: int
    times: int
    first_s: float
    last_s: float


_NEVER = _ThrownBack(-1, 0, 0.0, 0.0)


class Backoff:
    """The dialling side's memory of how its sessions with one peer ended."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._began_s: float | None = None
        self._died_young = 0
        self._refusal = ""
        self._refused = 0  # by that refusal in a row
        self._thrown_back = _NEVER

    @property
    def flapping(self) -> bool:
        """Whether so many sessions in a row died young that an operator should look at the link."""
        return self._died_young >= FLAPS

    def session_began(self, now_s: float) -> None:
        """The peer welcomed this site."""
        self._began_s = now_s
        self._refused = 0

    def ended(self, now_s: float, refusal: str = "") -> Retry:
        """The session, or the dial, is over without anybody having asked for it. `refusal` tells what ended
        it from other refusals; empty if it was none."""
        newly = False
        if self._began_s is not None:
            if now_s - self._began_s >= SESSION_YOUNG_S:
                self._died_young = 0
            else:
                self._died_young += 1
                newly = self._died_young == FLAPS
            self._began_s = None
        delay_s = _doubled(RECONNECT_DELAY_S, RECONNECT_DELAY_MAX_S, self._died_young)
        if refusal:
            self._refused = self._refused + 1 if refusal == self._refusal else 1
            self._refusal = refusal
            delay_s = max(delay_s, _doubled(REFUSED_DELAY_S, REFUSED_DELAY_MAX_S, self._refused))
        return Retry(delay_s=delay_s * (1.0 + JITTER * self._rng.random()), flapping=newly)

    def thrown_back(self, position: int, now_s: float) -> None:
        """The peer has everything up to there, and ended the session because of what comes next."""
        before = self._thrown_back
        if before.position == position:
            self._thrown_back = before._replace(times=before.times + 1, last_s=now_s)
        else:
            self._thrown_back = _ThrownBack(position, 1, now_s, now_s)

    def stuck_at(self, position: int) -> bool:
        """Whether it did so there again and again, and will the next time."""
        thrown = self._thrown_back
        lasted = thrown.times >= THROWN_BACK and thrown.last_s - thrown.first_s >= THROWN_BACK_S
        return lasted and thrown.position == position

    def reset(self) -> None:
        """An operator began, split or resynced the pair: what was before does not count."""
        self._began_s = None
        self._thrown_back = _NEVER
        self._died_young = 0
        self._refused = 0

    def peer_set(self) -> None:
        """An operator changed how the peer is sent to: it may refuse no longer."""
        self._refused = 0


def _doubled(first_s: float, most_s: float, times: int) -> float:
    """The delay after so many in a row."""
    return min(first_s * 2.0 ** min(max(times - 1, 0), 16), most_s)
