"""Durable leases that end by themselves: what a peer asked for, and the way back from a restore.

Whoever wants a cut for a day must not keep it for ever by dying meanwhile. The end is UTC time, written in
one transaction with the lease; it is looked at once, at a start. While this program runs monotonic time
counts: a clock that is set must not end a lease early, nor keep it for years.

What peers asked for and what this site itself holds are counted apart, by name: a peer that asks for as many
as it may leaves the way back from a restore.
"""

from __future__ import annotations

from contextlib import suppress

from engine.group.core import GroupCore
from engine.ports.clock import Timer
from engine.retention.leases import Leases
from protocol.errors import Busy, FarshoreError
from protocol.limits import LEASE_S_MAX, PEER_LEASES_MAX, TIMED_LEASES_MAX
from protocol.positions import Cut

LOOK_AGAIN_S = 3600.0
ASKED = "asked by "


def asked_lease(peer: str, name: str) -> str:
    """What a lease is called here that a peer asks for under a name."""
    return f"{ASKED}{peer}: {name}"


class TimedLeases:
    """One group's; on top of its leases."""

    def __init__(self, group: GroupCore, leases: Leases) -> None:
        self._group = group
        self._leases = leases
        self._ends: dict[str, float] = {}  # monotonic
        self._timer: Timer | None = None

    def load(self) -> None:
        """Take them up after a start, and begin to let go of those whose time is over."""
        now_ns, now_s = self._group.clock.utc_ns(), self._group.clock.monotonic()
        for name, end_ns in self._group.state.lease_ends(self._group.name).items():
            self._ends[name] = now_s + min((end_ns - now_ns) / 1e9, LEASE_S_MAX)
        self._look()

    def hold(self, name: str, cut: Cut, for_s: float) -> None:
        """Keep `cut` readable for so long under a name, in place of what it held before. Trimmed; Busy if
        there are too many. Durable on return."""
        group = self._group
        if name not in self._ends:
            self._require_room(name.startswith(ASKED))
        end_ns = group.clock.utc_ns() + int(for_s * 1e9)
        self._leases.hold(name, cut, durable=True, end_utc_ns=end_ns)
        self._ends[name] = group.clock.monotonic() + for_s
        self._look()

    def _require_room(self, asked: bool) -> None:
        held = sum(name.startswith(ASKED) is asked for name in self._ends)
        if held >= (PEER_LEASES_MAX if asked else TIMED_LEASES_MAX):
            who = "peers" if asked else "this site"
            name = self._group.name
            raise Busy(f"{held} cuts of {name} are held for a time by {who} already", subject=name)

    def release(self, name: str) -> None:
        """Let go before the time; a name not held is fine."""
        if self._ends.pop(name, None) is not None:
            self._leases.release(name)

    def get(self, name: str) -> Cut | None:
        """The cut held under a name."""
        return self._leases.get(name) if name in self._ends else None

    def _look(self) -> None:
        self.close()
        now_s = self._group.clock.monotonic()
        over = [name for name, end_s in self._ends.items() if end_s <= now_s]
        for name in over:
            del self._ends[name]
        # By one commit: a peer may have all of its leases end together, and hosts wait meanwhile. What cannot
        # be taken out of the site's state holds nothing any more, and goes with the next start.
        with suppress(FarshoreError, OSError):
            self._leases.release(*over)
        if self._ends:
            left_s = min(self._ends.values()) - now_s
            self._timer = self._group.clock.call_later(min(left_s, LOOK_AGAIN_S), self._look)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
