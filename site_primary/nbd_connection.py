"""One host's NBD connection in transmission: bytes in, batches to the write path, replies out.

All complete requests of a wake-up are one batch: reads are answered as they come, writes go into one frame,
and one send carries every reply. The receive buffer is used again and again; slices of it are only held
until the batch is committed, within the same wake-up.

A write is acknowledged once its frame is in the journal, a FLUSH or FUA once the journal is durable up to
where it was then: as one daemon orders all connections, that covers them all (multi-conn). While the group's
gate is closed (synchronous modes), each waits until the same is so at the peer too.

Source: NBD proto.md, "Transmission phase".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import MappingProxyType

import structlog

from engine.ports.disk import Buffer
from engine.view import ReadBatch
from protocol.errors import FarshoreError, NoSpace
from protocol.limits import NBD_RECEIVE_BUFFER_BYTES, NBD_REQUEST_BYTES_MAX, NBD_UNANSWERED_MAX
from protocol.nbd.constants import REQUEST_MAGIC, Command, CommandFlag, NbdError, nbd_error
from protocol.nbd.exports import Negotiated
from protocol.nbd.replies import block_status, error_reply, read_reply_header, simple_replies, simple_reply
from protocol.nbd.requests import REQUEST, REQUEST_BYTES, request_check
from site_primary.block_status import StatusMap
from site_primary.exports import Export
from site_primary.write_path import WriteBatch

log = structlog.get_logger()

_READ, _WRITE, _DISC = int(Command.READ), int(Command.WRITE), int(Command.DISC)
_FLUSH, _TRIM, _CACHE = int(Command.FLUSH), int(Command.TRIM), int(Command.CACHE)
_WRITE_ZEROES, _BLOCK_STATUS = int(Command.WRITE_ZEROES), int(Command.BLOCK_STATUS)
_CHANGING = frozenset({_WRITE, _TRIM, _WRITE_ZEROES})
_FUA, _REQ_ONE = int(CommandFlag.FUA), int(CommandFlag.REQ_ONE)
_NO_MAPS: Mapping[int, StatusMap] = MappingProxyType({})
REPLY_BYTES_BEFORE_SEND = 4 << 20
PIPELINED_DEPTH = 3
DEPTH_DECAY = 0.98
COLLECT_BYTES_MAX = 512 << 10


class NbdConnection(asyncio.BufferedProtocol):
    """See the module's docstring. Begins with the bytes that came behind the handshake. `maps` are the
    metadata contexts negotiated, by their ids."""

    def __init__(
        self,
        transport: asyncio.Transport,
        export: Export,
        negotiated: Negotiated,
        client: str,
        on_closed: Callable[[], None],
        maps: Mapping[int, StatusMap] = _NO_MAPS,
    ) -> None:
        self.client = client
        self._transport = transport
        self._export = export
        self._gate = export.gate
        self._size = export.volume.size_bytes
        self._read_only = export.read_only
        self._structured = negotiated.structured_replies
        self._check = request_check(
            size_bytes=self._size,
            read_only=export.read_only,
            structured_replies=negotiated.structured_replies,
            contexts=bool(maps),
        )
        self._maps = maps
        self._on_closed = on_closed
        self._batch = self._new_batch()
        self._buffer = bytearray(NBD_RECEIVE_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = 0  # of what is not yet handled
        self._end = 0  # of what was received
        self._depth = 0.0  # requests that this host lately had under way at once
        self._collecting = False
        self._seen = 0
        self._clock = export.group.clock
        self._skip = 0  # bytes of a refused write still to come
        self._needed = REQUEST_BYTES
        self._written: list[int] = []  # cookies of writes to acknowledge after the commit
        self._forced: list[int] = []  # the same with FUA
        self._flushes: list[int] = []
        self._unanswered = 0  # writes that wait for the peer
        self._out: list[Buffer] = []
        self._out_bytes = 0
        self._paused_for: set[str] = set()
        self._closing = False
        export.connections[self] = None

    def _new_batch(self) -> WriteBatch:
        export = self._export
        return WriteBatch(export.group, export.volume.id, self._size, export.current_view)

    # -- asyncio.BufferedProtocol

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: after what is there, moved to the front when there is no room left."""
        if self._start == self._end:
            self._start = self._end = 0
        if self._start + self._needed > len(self._buffer) or self._end == len(self._buffer):
            self._make_room()
        return self._view[self._end :]

    def _make_room(self) -> None:
        held = self._end - self._start
        if self._needed > len(self._buffer):
            # A bigger buffer for as long as this host sends requests of that size, at most 32 MiB each.
            grown = bytearray(2 * self._needed)
            grown[:held] = self._view[self._start : self._end]
            self._buffer = grown
            self._view = memoryview(grown)
        else:
            self._view[:held] = bytes(self._view[self._start : self._end])
        self._start, self._end = 0, held

    def buffer_updated(self, nbytes: int) -> None:
        """Handle every complete request. From a host that pipelines, once a round of the loop brings no more:
        its next requests are on their way, and a frame for each would cost ten times what one for all
        does."""
        self._end += nbytes
        if self._depth < PIPELINED_DEPTH or self._end == len(self._buffer):
            self._handle()
        elif not self._collecting:
            self._collecting = True
            self._seen = self._end
            self._clock.call_soon(self._collect)

    def _collect(self) -> None:
        if self._closing:
            return
        if self._end > self._seen and self._end - self._start < COLLECT_BYTES_MAX:
            self._seen = self._end
            self._clock.call_soon(self._collect)
        else:
            self._handle()

    def take(self, data: bytes) -> None:
        """Handle bytes that came with the handshake."""
        while data and not self._closing:
            room = self.get_buffer(-1)
            part = data[: len(room)]
            room[: len(part)] = part
            data = data[len(part) :]
            self.buffer_updated(len(part))

    def eof_received(self) -> bool:
        """The host is gone; close our side too."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection. What was acknowledged stays; what was not may or may not be there."""
        self._closing = True
        # Who still waits for the disk or the peer holds this object, and need not hold its buffer.
        self._buffer = bytearray()
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        for each in self._maps.values():
            each.close()
        self._export.leave(self)
        self._on_closed()

    def pause_writing(self) -> None:
        """The host does not take its replies: take no more requests until it does."""
        self._pause("replies")

    def resume_writing(self) -> None:
        """It does again."""
        self._unpause("replies")

    # -- what an export asks

    def shut(self) -> None:
        """Close at once; requests in flight stay unanswered."""
        self._closing = True
        self._transport.abort()

    def resume(self) -> None:
        """The group takes writes again."""
        self._unpause("overload")

    def _pause(self, why: str) -> None:
        if not self._paused_for and not self._closing:
            self._transport.pause_reading()
        self._paused_for.add(why)

    def _unpause(self, why: str) -> None:
        if why in self._paused_for:
            self._paused_for.discard(why)
            if not self._paused_for and not self._closing:
                self._transport.resume_reading()

    # -- requests

    def _handle(self) -> None:
        self._collecting = False
        if self._skip:
            skipped = min(self._skip, self._end - self._start)
            self._start += skipped
            self._skip -= skipped
        reads = self._export.view.batch()
        with reads:
            handled = self._requests(reads)
        self._depth = max(handled, self._depth * DEPTH_DECAY)
        if self._written or self._forced:
            self._commit()
        if self._flushes or self._forced:
            self._await_durable()
        self._send()
        if self._export.group.overloaded and not self._read_only:
            self._pause("overload")

    def _requests(self, reads: ReadBatch) -> int:
        """Walk the buffer; `_start` ends at the first incomplete request. Returns how many were handled."""
        handled = 0
        view, at, end, check = self._view, self._start, self._end, self._check
        refusing = self._gate.closed and self._gate.admit() is not None
        while end - at >= REQUEST_BYTES:
            magic, flags, command, cookie, offset, length = REQUEST.unpack_from(view, at)
            if magic != REQUEST_MAGIC or (command == _WRITE and length > NBD_REQUEST_BYTES_MAX):
                log.warning("nbd.garbage", client=self.client, export=self._export.name)
                self.shut()
                return handled
            handled += 1
            whole = REQUEST_BYTES + length if command == _WRITE else REQUEST_BYTES
            error = check(flags, command, offset, length)
            if refusing and not error and command in _CHANGING:
                error = int(NbdError.EIO)
            if error and command == _WRITE:
                self._refuse(cookie, error)
                self._skip = max(0, whole - (end - at))
                at = min(at + whole, end)
                continue
            if end - at < whole:
                self._start, self._needed = at, whole
                return handled
            if error:
                self._refuse(cookie, error)
            elif command == _WRITE:
                self._write(flags, cookie, offset, view[at + REQUEST_BYTES : at + whole])
            elif command == _READ:
                self._read(reads, cookie, offset, length)
            elif command == _DISC:
                self._closing = True
                self._start = end
                return handled
            else:
                self._other(command, flags, cookie, offset, length)
            at += whole
        self._start, self._needed = at, REQUEST_BYTES
        return handled

    def _write(self, flags: int, cookie: int, offset: int, data: memoryview) -> None:
        (self._forced if flags & _FUA else self._written).append(cookie)
        try:
            self._batch.write(offset, data)
        except (FarshoreError, OSError) as failure:
            self._failed(failure)

    def _read(self, reads: ReadBatch, cookie: int, offset: int, length: int) -> None:
        try:
            data = self._export.view.read(reads, offset, length) if length else b""
        except (FarshoreError, OSError) as failure:
            log.error("nbd.read_failed", client=self.client, export=self._export.name, offset=offset,
                      length=length, error=str(failure))  # fmt: skip
            self._export.group.history.damage.read_failed(failure)
            self._refuse(cookie, NbdError.EIO, str(failure))
            return
        self._out.append(read_reply_header(cookie, offset, length, self._structured))
        self._out.append(data)
        self._out_bytes += length
        if self._out_bytes > REPLY_BYTES_BEFORE_SEND:
            self._send()

    def _other(self, command: int, flags: int, cookie: int, offset: int, length: int) -> None:
        if command == _FLUSH:
            self._flushes.append(cookie)
        elif command == _CACHE:
            self._out.append(simple_reply(cookie))
        elif command == _BLOCK_STATUS:
            self._status(flags, cookie, offset, length)
        else:
            (self._forced if flags & _FUA else self._written).append(cookie)
            try:
                self._batch.zero(offset, length, trim=command == _TRIM)
            except (FarshoreError, OSError) as failure:
                self._failed(failure)

    def _status(self, flags: int, cookie: int, offset: int, length: int) -> None:
        only_one = bool(flags & _REQ_ONE)
        try:
            found = {at: each.extents(offset, length, only_one=only_one) for at, each in self._maps.items()}
        except (FarshoreError, OSError) as failure:
            log.error("nbd.status_failed", client=self.client, export=self._export.name, error=str(failure))
            self._refuse(cookie, NbdError.EIO, str(failure))
            return
        last = max(found)
        for at, extents in found.items():
            kept = extents[:1] if only_one else extents
            self._out.append(block_status(cookie, at, kept, done=at == last))

    # -- committing and answering

    def _commit(self) -> None:
        try:
            self._batch.commit()
        except (FarshoreError, OSError) as failure:
            self._failed(failure)
            return
        if self._written:
            cookies, self._written = self._written, []
            if self._gate.closed:
                self._await_peer(cookies)
            else:
                self._out.append(simple_replies(cookies))

    def _await_peer(self, cookies: list[int]) -> None:
        """Answer a batch of writes once the peer has everything written by now."""

        def at_peer(error: OSError | None) -> None:
            self._unanswered -= len(cookies)
            self._answer(cookies, error)
            if self._unanswered <= NBD_UNANSWERED_MAX // 2:
                self._unpause("peer")

        self._unanswered += len(cookies)
        if self._unanswered > NBD_UNANSWERED_MAX:
            self._pause("peer")
        self._gate.wait(self._export.group.writer.written, at_peer)

    def _answer(self, cookies: list[int], error: OSError | None) -> None:
        if self._closing:
            return
        if error is None:
            self._out.append(simple_replies(cookies))
        else:
            for cookie in cookies:
                self._refuse(cookie, NbdError.EIO, str(error))
        self._send()

    def _failed(self, failure: Exception) -> None:
        """None of the writes since the last commit is in the journal: say so to each. Large writes that were
        committed in part fail as a whole, which the protocol allows."""
        if isinstance(failure, NoSpace):
            error = int(NbdError.ENOSPC)
        elif isinstance(failure, OSError) and failure.errno is not None:
            error = int(nbd_error(failure.errno))
        else:
            error = int(NbdError.EIO)
        if error != NbdError.ENOSPC:
            log.error("nbd.write_failed", client=self.client, export=self._export.name, error=str(failure))
        self._batch = self._new_batch()
        for cookie in self._written + self._forced:
            self._refuse(cookie, error, str(failure))
        self._written = []
        self._forced = []

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
        if not self._gate.closed:
            group.when_durable(lambda error: self._answer(cookies, error))
            return
        outcomes: list[OSError | None] = []

        def durable(error: OSError | None) -> None:
            outcomes.append(error)
            if len(outcomes) == 2:
                self._answer(cookies, outcomes[0] or outcomes[1])

        # The peer first: it works while the disk here does.
        self._gate.wait_durable(group.writer.written, durable)
        group.when_durable(durable)

    def _refuse(self, cookie: int, error: int, message: str = "") -> None:
        self._out.append(error_reply(cookie, int(error), message, structured=self._structured))

    def _send(self) -> None:
        if self._out and not self._transport.is_closing():
            self._transport.writelines(self._out)
        self._out = []
        self._out_bytes = 0
        if self._closing:
            self._transport.close()
