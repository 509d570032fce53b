"""The answering half of a host's connection: what is acknowledged when, and how much may wait.

A write is acknowledged once its frame is in the journal, a FLUSH or FUA once the journal is durable up to
where it was then: as one daemon orders all connections, that covers them all (multi-conn). While the group's
gate is closed (synchronous modes), each waits until the same is so at the peer too.

Source: NBD proto.md, "Ordering of messages and writes".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from engine.ports.clock import Clock
from engine.ports.disk import Buffer
from protocol.limits import NBD_UNANSWERED_MAX
from protocol.nbd.constants import NbdError
from protocol.nbd.replies import error_reply, simple_replies
from site_primary.nbd.exports import Export
from site_primary.nbd.host_budget import HostBudget
from site_primary.nbd.latency import Histogram
from site_primary.nbd.stream import HostStream, Pause


class HostAnswers(HostStream):
    """Answers of one connection, in the order that is promised. Who derives from it fills the lists of
    cookies, and `_out`."""

    def __init__(
        self,
        transport: asyncio.Transport,
        client: str,
        clock: Clock,
        budget: HostBudget,
        buffer_bytes: int,
        *,
        export: Export,
        structured: bool,
    ) -> None:
        super().__init__(transport, client, clock, budget, buffer_bytes)
        self._export = export
        self._gate = export.gate
        self._read_only = export.read_only
        self._structured = structured
        self._written: list[int] = []  # cookies of writes to acknowledge after the commit
        self._forced: list[int] = []  # the same with FUA
        self._flushes: list[int] = []
        self._unanswered = 0  # requests that wait for the disk or the peer
        self._out: list[Buffer] = []

    def _await_peer(self, cookies: list[int]) -> None:
        """Answer a batch of writes once the peer has everything written by now."""
        self._unanswer(cookies)
        waited = self._timed(self._export.latency.peer, cookies)
        self._gate.wait(self._export.group.writer.written, waited)

    def _timed(self, histogram: Histogram, cookies: list[int]) -> Callable[[OSError | None], None]:
        """Answers them later, and counts how long that took."""
        began_s = self._clock.monotonic()

        def late(error: OSError | None) -> None:
            histogram.add(self._clock.monotonic() - began_s, len(cookies))
            self._answer_late(cookies, error)

        return late

    def _unanswer(self, cookies: list[int]) -> None:
        """These wait; a host with too many such is not read from."""
        self._unanswered += len(cookies)
        if self._unanswered > NBD_UNANSWERED_MAX:
            self._pause(Pause.PEER)

    def _answer_late(self, cookies: list[int], error: OSError | None) -> None:
        self._guarded(self._answer_waiting, cookies, error)

    def _answer_waiting(self, cookies: list[int], error: OSError | None) -> None:
        self._unanswered -= len(cookies)
        self._answer(cookies, error)
        if self._unanswered <= NBD_UNANSWERED_MAX // 2:
            self._unpause(Pause.PEER)

    def _answer(self, cookies: list[int], error: OSError | None) -> None:
        if self._closing:
            return
        if error is None:
            self._out.append(simple_replies(cookies))
        else:
            for cookie in cookies:
                self._refuse(cookie, NbdError.EIO, str(error))
        self._send()

    def _await_durable(self) -> None:
        """Answer FLUSH and FUA once everything written by now is durable, and at the peer too while writes
        wait for it."""
        cookies = self._flushes + self._forced
        self._flushes = []
        self._forced = []
        if self._read_only:
            self._out.append(simple_replies(cookies))
            return

        group = self._export.group
        self._unanswer(cookies)
        late = self._timed(self._export.latency.durable, cookies)
        position = group.writer.written
        if not self._gate.closed:

            def durable_here(error: OSError | None) -> None:
                if error is None and self._gate.closed:  # a mode came in force while the disk worked
                    self._gate.wait_durable(position, late)
                else:
                    late(error)

            group.when_durable(durable_here)
            return
        outcomes: list[OSError | None] = []

        def durable(error: OSError | None) -> None:
            outcomes.append(error)
            if len(outcomes) == 2:
                late(outcomes[0] or outcomes[1])

        # The peer first: it works while the disk here does.
        self._gate.wait_durable(position, durable)
        group.when_durable(durable)

    def _refuse(self, cookie: int, error: int, message: str = "") -> None:
        self._out.append(error_reply(cookie, int(error), message, structured=self._structured))

    def _send(self) -> None:
        if self._out and not self._transport.is_closing():
            self._transport.writelines(self._out)
        self._out = []
        if self._closing:
            self._transport.close()
