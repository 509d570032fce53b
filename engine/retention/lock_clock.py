"""The clock of retention locks: time that nobody can move forward, and that does not stand still for ever.

It counts nanoseconds during which this machine was up and awake (`Clock.uptime`), from one look to the next
within one boot. So

    the wall clock is set, forward or back                      no difference: it is not asked
    the daemon is off, or restarts, while the machine is up     counts: the kernel has counted on
    the machine is off, asleep, or boots                        does not count

Wall time cannot tell twenty days of downtime from a clock set forward by twenty days, so neither counts: a
lock never ends early, and one that the machine slept through ends that much later (docs/decisions/0017).

    locks "\\0clock"    row (boot, uptime in ns, lock clock in ns): what it was at one moment of a boot

Every group of a site reads the same row, and within one boot all of them go on from it alike.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from engine.group.site_state import SiteState
from engine.ports.clock import Clock, Uptime
from protocol.bounds import LockNs
from protocol.errors import RemoteProtocolError
from protocol.rows import pack_row
from protocol.wire import RowType

LOCK_TABLE = "locks"
CLOCK_KEY = b"\0clock"
SAVE_EVERY_NS = 60_000_000_000

_Boot = Annotated[str, Meta(max_length=64)]
CLOCK = RowType(tuple[_Boot, LockNs, LockNs])


class LockClock:
    """The lock's time in nanoseconds, which goes on over restarts. `load` first."""

    def __init__(self, state: SiteState, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._since = Uptime("", 0)
        self._then_ns = 0  # what this clock said at that moment
        self._saved_ns: int | None = None

    def load(self, at_least_ns: int = 0) -> None:
        """Go on from what is stored; a row that is bad counts as none. It was `at_least_ns` already."""
        uptime = self._clock.uptime()
        value = self._state.notes(LOCK_TABLE, CLOCK_KEY).get(CLOCK_KEY)
        try:
            boot, up_ns, then_ns = ("", 0, 0) if value is None else CLOCK.decode(value)
        except RemoteProtocolError:
            boot, up_ns, then_ns = "", 0, 0
        passed_ns = max(0, uptime.ns - up_ns) if boot == uptime.boot else 0
        self._since, self._then_ns = uptime, max(at_least_ns, then_ns + passed_ns)
        self._saved_ns = None

    def now_ns(self) -> int:
        """Nanoseconds; they mean nothing but their differences."""
        uptime = self._clock.uptime()
        if uptime.boot != self._since.boot:
            return self._then_ns
        return self._then_ns + max(0, uptime.ns - self._since.ns)

    @property
    def due(self) -> bool:
        """Whether it should be written down: what is not when the machine goes down, is lost."""
        return self._saved_ns is None or self.now_ns() - self._saved_ns >= SAVE_EVERY_NS

    def save_with(self, rows: dict[bytes, bytes]) -> None:
        """Write down what it says, in one transaction with rows that name times of it. OSError or
        FarshoreError if that cannot be."""
        now_ns, uptime = self.now_ns(), self._clock.uptime()
        value = pack_row((uptime.boot, uptime.ns, now_ns))
        self._state.put_notes(LOCK_TABLE, {**rows, CLOCK_KEY: value})
        self._saved_ns = now_ns
