"""Time as a port: logic never reads a clock of its own.

`utc_ns` may jump; it only hints and is written into frames. `monotonic` drives every timeout.
"""

from __future__ import annotations

import asyncio
import functools
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")


class Timer(Protocol):
    """A pending call."""

    def cancel(self) -> None:
        """Forget the call; doing so twice, or after it ran, is fine."""


class Uptime(NamedTuple):
    """How long the machine has been up and awake, and in which of its lives: only times of one and the same
    `boot` can be compared."""

    boot: str
    ns: int


class Clock(Protocol):
    """What the engine may know of time."""

    def utc_ns(self) -> int:
        """Nanoseconds since the Unix epoch, UTC."""

    def monotonic(self) -> float:
        """Seconds that never go back."""

    def uptime(self) -> Uptime:
        """Nanoseconds that nobody can set or slew, counted on while this program does not run."""

    def call_soon(self, callback: Callable[[], None]) -> Timer:
        """Run `callback` once everything that is ready now has run."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Run `callback` after `delay_s` seconds of monotonic time."""


class SystemClock:
    """The machine's clock, with callbacks on one asyncio loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def utc_ns(self) -> int:
        """See `Clock.utc_ns`."""
        return utc_now_ns()

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return monotonic_s()

    def uptime(self) -> Uptime:
        """See `Clock.uptime`. Not CLOCK_BOOTTIME: who sets the time may have that run faster."""
        return Uptime(_boot_id(), time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW))

    def call_soon(self, callback: Callable[[], None]) -> Timer:
        """See `Clock.call_soon`."""
        return self._loop.call_soon(callback)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """See `Clock.call_later`."""
        return self._loop.call_later(delay_s, callback)


def utc_now_ns() -> int:
    """`Clock.utc_ns` of this machine, where there is no loop."""
    return time.time_ns()


def monotonic_s() -> float:
    """`Clock.monotonic` of this machine, for what runs without a loop: the log."""
    return time.monotonic()


@functools.cache
def _boot_id() -> str:
    """The kernel's name for this run of the machine; where it has none, one for this run of the program."""
    try:
        return BOOT_ID_FILE.read_text(encoding="ascii").strip()[:64] or uuid.uuid4().hex
    except (OSError, UnicodeDecodeError):
        return uuid.uuid4().hex
