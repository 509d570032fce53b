"""Requests of all hosts of a group that are ready in one round of the loop: one frame for all of them.

A frame costs more than all else of a small write, so that 64 hosts with one write each would pay 64 times
what one host with 64 pays. While several hosts write at once, each is therefore put on a list as its bytes
come, and after what is ready now the list is handled at one stroke: every host's requests, one commit, every
host's answers. Nothing else runs in between, so what holds as a host's requests are looked at (views, gates,
sizes, whether it is still there) holds when they are committed.

A lone host would wait for nothing: it is handled at once. Whether there are others is tried now and then.

What a host has merged or zeroed must follow what those before it wrote: see `WriteBatch`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from engine.group.compartment import attempt
from engine.ports.disk import Buffer
from protocol.errors import FarshoreError
from protocol.events import Row
from protocol.limits import FRAME_EVENTS_MAX, FRAME_PAYLOAD_BYTES_MAX, NBD_TURN_BLOCKS, NBD_WHOLE_WRITE_BYTES
from site_primary.hosted import Hosted
from site_primary.write_path import WriteBatch

# Hosts in a round, as a mean that follows growth at once: from here on they are gathered.
WORTHWHILE = 1.5
DECAY = 0.9
# Wake-ups handled at once, until it is tried again whether others come in the same round.
TRY_EVERY = 32


class Gathered(Protocol):
    """A host's connection. Requests that it begins with are in its batch until somebody takes them out."""

    batch: WriteBatch

    def handle(self) -> None:
        """Handle what is there, alone."""

    def begin(self, now_s: float) -> int:
        """Look at what is there, up to the commit: how many requests that were, or -1 if there is nothing to
        end, as of one that is shut. `now_s`: when the stroke began, which each of them counts from."""

    def acknowledge(self) -> None:
        """What it wrote is in the journal."""

    def refuse(self, failure: Exception) -> None:
        """None of what it wrote since the last commit is."""

    def end(self, now_s: float, *, overloaded: bool) -> None:
        """Send the answers, and settle. Read no more if the group is `overloaded`."""

    def shut(self) -> None:
        """Close it: a defect in it is its own."""


class Gathering:
    """Of one group, or clone. `call_soon` runs a callback once everything that is ready now has run."""

    def __init__(self, group: Hosted, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._group = group
        self._call_soon = call_soon
        self._ready: list[Gathered] = []
        self._mean = 1.0
        self._tries = TRY_EVERY
        # Of the stroke that runs: hosts in order, who of them wrote what is not committed yet, and that.
        self._begun: list[Gathered] = []
        self._lot: list[int] = []
        self._failures: dict[int, Exception] = {}
        self._rows: list[Row] = []
        self._pieces: list[Buffer] = []
        self._payload_bytes = 0
        self._handled = 0
        self._began_s = 0.0

    def ready(self, host: Gathered) -> None:
        """Something came from a host: handle it now, or with others."""
        if self._ready:
            self._ready.append(host)
        elif self._mean < WORTHWHILE and self._tries:
            self._tries -= 1
            host.handle()
        else:
            self._tries = TRY_EVERY
            self._ready.append(host)
            self._call_soon(self._run)

    def _run(self) -> None:
        ready, self._ready = self._ready, []
        self._mean = max(float(len(ready)), self._mean * DECAY)
        if len(ready) == 1:
            if attempt("connection.defect", ready[0].handle) is not None:
                ready[0].shut()
            return
        self._began_s = self._group.clock.monotonic()
        self._begin(ready)
        self.commit()
        begun, self._begun = self._begun, []
        failures, self._failures = self._failures, {}
        now_s, overloaded = self._group.clock.monotonic(), self._group.overloaded
        for at, host in enumerate(begun):
            if attempt("connection.defect", _answer, host, failures.get(at), now_s, overloaded) is not None:
                host.shut()

    def _begin(self, ready: list[Gathered]) -> None:
        """Begin with as many hosts as make one turn of work; the others come in the next round."""
        room = NBD_TURN_BLOCKS
        for at, host in enumerate(ready):
            if room <= 0 or self._payload_bytes >= NBD_WHOLE_WRITE_BYTES:
                self._ready = ready[at:]
                self._call_soon(self._run)
                return
            if attempt("connection.defect", self._begin_one, host) is not None:
                host.shut()
            room -= self._handled

    def _begin_one(self, host: Gathered) -> None:
        self._handled = 0
        handled = host.begin(self._began_s)
        if handled < 0:
            return
        self._handled = handled
        rows, pieces, payload_bytes = host.batch.take()
        if rows:
            if (
                len(self._rows) + len(rows) > FRAME_EVENTS_MAX
                or self._payload_bytes + payload_bytes > FRAME_PAYLOAD_BYTES_MAX
            ):
                self.commit()
            self._lot.append(len(self._begun))
            self._rows += rows
            self._pieces += pieces
            self._payload_bytes += payload_bytes
        self._begun.append(host)

    def commit(self) -> None:
        """Put what was gathered so far into the journal. Who fails with it is told at the end."""
        if not self._rows:
            return
        lot, self._lot = self._lot, []
        defect = attempt("connection.defect", self._append, lot)
        if defect is not None:
            self._failures |= dict.fromkeys(lot, defect)
            for at in lot:
                self._begun[at].shut()

    def _append(self, lot: list[int]) -> None:
        rows, pieces, payload_bytes = self._rows, self._pieces, self._payload_bytes
        self._rows, self._pieces, self._payload_bytes = [], [], 0
        try:
            self._group.append(rows, pieces, payload_bytes)
        except (FarshoreError, OSError) as failure:
            self._failures |= dict.fromkeys(lot, failure)


def _answer(host: Gathered, failure: Exception | None, now_s: float, overloaded: bool) -> None:
    if failure is None:
        host.acknowledge()
    else:
        host.refuse(failure)
    host.end(now_s, overloaded=overloaded)
