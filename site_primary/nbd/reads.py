"""The reading half of a host's connection: READ and BLOCK_STATUS, each turn a bounded part.

Source: NBD proto.md, "NBD_CMD_READ", "NBD_CMD_BLOCK_STATUS".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType

import structlog

from engine.index.view import ReadBatch
from engine.ports.clock import Clock
from protocol.errors import FarshoreError
from protocol.limits import BLOCK_BYTES
from protocol.nbd.constants import CommandFlag, NbdError
from protocol.nbd.replies import block_status, read_reply_header
from site_primary.nbd.answers import HostAnswers
from site_primary.nbd.block_status import StatusMap
from site_primary.nbd.exports import Export
from site_primary.nbd.host_budget import HostBudget
from site_primary.nbd.large_requests import LargeRead

log = structlog.get_logger()

_DF, _REQ_ONE = int(CommandFlag.DF), int(CommandFlag.REQ_ONE)
# Blocks of a large READ at a stroke: its host is in no hurry, and those beside it may be.
PIECE_BLOCKS = 128
NO_MAPS: Mapping[int, StatusMap] = MappingProxyType({})


class HostReads(HostAnswers):
    """What one connection reads. `maps` are the metadata contexts negotiated, by their ids."""

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
        maps: Mapping[int, StatusMap],
    ) -> None:
        super().__init__(transport, client, clock, budget, buffer_bytes, export=export, structured=structured)
        self._maps = maps
        self._large_read: LargeRead | None = None

    @property
    def _unfinished(self) -> bool:
        return self._start < self._end or self._large_read is not None

    def _read(self, reads: ReadBatch, cookie: int, offset: int, length: int) -> None:
        try:
            data = self._export.view.read(reads, offset, length) if length else b""
        except (FarshoreError, OSError) as failure:
            self._read_failed(failure, offset, length)
            self._refuse(cookie, NbdError.EIO, str(failure))
            return
        self._out.append(read_reply_header(cookie, offset, length, self._structured))
        self._out.append(data)

    def _read_failed(self, failure: FarshoreError | OSError, offset: int, length: int) -> None:
        if self._budget.log.may_say("nbd.read_failed"):
            log.error("nbd.read_failed", client=self.client, export=self._export.name, offset=offset,
                      length=length, error=str(failure))  # fmt: skip
        for listener in self._export.group.history.listeners.read_failed:
            listener(failure)

    def _begin_read(self, flags: int, cookie: int, offset: int, length: int) -> None:
        """Answer it in turns of its own, before any later request."""
        self._large_read = LargeRead(
            cookie, offset, length, structured=self._structured, one_chunk=bool(flags & _DF)
        )

    def _read_on(self, reads: ReadBatch, large: LargeRead) -> None:
        length = min(large.left, min(self._budget.turn_blocks, PIECE_BLOCKS) * BLOCK_BYTES)
        offset = large.offset
        try:
            data = bytes(length) if large.failed else self._export.view.read(reads, offset, length)
        except (FarshoreError, OSError) as failure:
            self._read_failed(failure, offset, length)
            said = large.fail(int(NbdError.EIO), str(failure))
            if said is None:
                self.shut()
                return
            if said:
                self._out.append(said)
        else:
            self._out += large.take(data)
        if not large.left:
            self._large_read = None
        if self._unfinished:
            self._ask_turn()

    def _status(self, flags: int, cookie: int, offset: int, length: int) -> None:
        only_one = bool(flags & _REQ_ONE)
        try:
            found = {at: each.extents(offset, length, only_one=only_one) for at, each in self._maps.items()}
        except (FarshoreError, OSError) as failure:
            if self._budget.log.may_say("nbd.status_failed"):
                log.error(
                    "nbd.status_failed", client=self.client, export=self._export.name, error=str(failure)
                )
            self._refuse(cookie, NbdError.EIO, str(failure))
            return
        last = max(found)
        for at, extents in found.items():
            kept = extents[:1] if only_one else extents
            self._out.append(block_status(cookie, at, kept, done=at == last))
