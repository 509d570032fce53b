"""Time as a port: logic never reads a clock of its own.

`utc_ns` may jump; it only hints and is written into frames. `monotonic` drives every timeout.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A pending call."""

    def cancel(self) -> None:
        """Forget the call; doing so twice, or after it ran, is fine."""


class Clock(Protocol):
    """What the engine may know of time."""

    def utc_ns(self) -> int:
        """Nanoseconds since the Unix epoch, UTC."""

    def monotonic(self) -> float:
        """Seconds that never go back."""

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
        return time.time_ns()

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return monotonic_s()

    def call_soon(self, callback: Callable[[], None]) -> Timer:
        """See `Clock.call_soon`."""
        return self._loop.call_soon(callback)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """See `Clock.call_later`."""
        return self._loop.call_later(delay_s, callback)


def monotonic_s() -> float:
    """`Clock.monotonic` of this machine, for what runs without a loop: the log."""
    return time.monotonic()
