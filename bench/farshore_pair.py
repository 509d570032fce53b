"""Two real sites on the loopback, CURVE on, one mirrored volume, set up by the commands of an operator.

fio ── unix ── farshore site a ── ZeroMQ, TCP loopback, CURVE ── farshore site b
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tests.support.sites import Site, running_sites

SETTLE_TIMEOUT_S = 300.0


class FarshorePair:
    """A paired volume of `size` (as `volume create` takes it) in `mode`; a context manager."""

    volume = "bench/v"
    group = "bench"

    def __init__(self, *, size: str, mode: str) -> None:
        self.name = f"farshore {mode}"
        self.uri = ""
        self._size = size
        self._mode = mode
        self._sites: list[Site] = []
        self._stack = ExitStack()

    @property
    def primary(self) -> Site:
        """The site that hosts write to."""
        return self._sites[0]

    @property
    def secondary(self) -> Site:
        """The site that holds the mirror."""
        return self._sites[1]

    def __enter__(self) -> Self:
        with self._stack:
            self._sites = self._stack.enter_context(running_sites("a", "b"))
            self.uri = self.primary.create_volume(self.volume, self._size)
            self.primary.farshore("pair", "create", self.group, "--with", "b", "--mode", self._mode)
            self.primary.farshore("wait", self.group, "--state", "paired", "--timeout", "60")
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def pids(self) -> list[int]:
        """Of both daemons."""
        return [site.pid for site in self._sites]

    def settle(self) -> float:
        """Wait until both sites hold all that is written; seconds, the command's start included."""
        began = time.monotonic()
        timeout = str(int(SETTLE_TIMEOUT_S))
        self.primary.farshore("wait", self.group, "--timeout", timeout, timeout_s=SETTLE_TIMEOUT_S + 60)
        return time.monotonic() - began
