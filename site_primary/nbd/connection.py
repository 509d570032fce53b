"""One host's NBD connection in transmission: requests to batches for the write path, and to replies.

All complete requests of a wake-up are one batch: reads are answered as they come, writes go into one frame,
and one send carries every reply. Slices of the receive buffer are only held until the batch is committed,
within the same wake-up. `HostStream` receives, `HostAnswers` acknowledges, `HostReads` reads.

A wake-up does a bounded amount of work (`HostBudget.turn_blocks`); what is left waits for a turn, or until
the host takes its replies. Requests too large for that go in pieces (`large_requests`): of a WRITE longer
than `NBD_WHOLE_WRITE_BYTES` some pieces may be in the journal, and the rest not, if it is never acknowledged.

Source: NBD proto.md, "Transmission phase".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

import structlog

from engine.index.view import ReadBatch
from protocol.errors import FarshoreError, NoSpace
from protocol.hosts import NOBODY
from protocol.limits import (
    BLOCK_BYTES,
    NBD_FIRST_BUFFER_BYTES,
    NBD_PARKED_BYTES,
    NBD_REQUEST_BYTES_MAX,
    NBD_TURN_BLOCKS,
    NBD_TURN_BLOCKS_MIN,
    NBD_WHOLE_WRITE_BYTES,
)
from protocol.nbd.constants import REQUEST_MAGIC, Command, CommandFlag, NbdError, nbd_error
from protocol.nbd.exports import Negotiated
from protocol.nbd.replies import simple_replies, simple_reply
from protocol.nbd.requests import REQUEST, REQUEST_BYTES, request_check
from site_primary.nbd.block_status import StatusMap
from site_primary.nbd.exports import Export
from site_primary.nbd.host_budget import HostBudget
from site_primary.nbd.large_requests import LargeWrite
from site_primary.nbd.reads import NO_MAPS, HostReads
from site_primary.nbd.stream import DEPTH_DECAY, Pause
from site_primary.write_path import WriteBatch

log = structlog.get_logger()

_READ, _WRITE, _DISC = int(Command.READ), int(Command.WRITE), int(Command.DISC)
_FLUSH, _TRIM, _CACHE = int(Command.FLUSH), int(Command.TRIM), int(Command.CACHE)
_WRITE_ZEROES, _BLOCK_STATUS = int(Command.WRITE_ZEROES), int(Command.BLOCK_STATUS)
_CHANGING = frozenset({_WRITE, _TRIM, _WRITE_ZEROES})
_FUA, _REQ_ONE = int(CommandFlag.FUA), int(CommandFlag.REQ_ONE)


class NbdConnection(HostReads):
    """Serves one host's requests. `maps` are the metadata contexts negotiated, by their ids; a connection
    that is served alone has a `budget` of its own. `who`: the host (protocol/hosts.py); it may be one that
    may only read what others write."""

    def __init__(
        self,
        transport: asyncio.Transport,
        export: Export,
        negotiated: Negotiated,
        client: str,
        on_closed: Callable[[], None],
        maps: Mapping[int, StatusMap] = NO_MAPS,
        budget: HostBudget | None = None,
        who: str = NOBODY,
    ) -> None:
        self.who = who
        self.writes = not (export.read_only or negotiated.export.read_only)
        clock = export.group.clock
        budget = budget or HostBudget(clock.call_soon, clock.call_later)
        stream = (transport, client, clock, budget, NBD_FIRST_BUFFER_BYTES)
        super().__init__(*stream, export=export, structured=negotiated.structured_replies, maps=maps)
        self._size = self._negotiated_size = export.volume.size_bytes
        self._check_of = partial(
            request_check,
            read_only=not self.writes,
            structured_replies=negotiated.structured_replies,
            contexts=bool(maps),
        )
        self._check = self._check_of(size_bytes=self._size)
        self._on_closed = on_closed
        self._gathering = budget.gathering(export.group)
        self._gathered = False  # on its list
        self.batch = self._new_batch()
        self._began_s = 0.0
        self._handled = 0  # requests, and bytes up to `_start`, since then
        self._came_from = 0
        self._skip = 0  # bytes of a refused write still to come
        self._large_write: LargeWrite | None = None
        export.connections[self] = None

    def _new_batch(self) -> WriteBatch:
        export = self._export
        gathered = self._gathering.commit
        return WriteBatch(export.group, export.volume.id, self._size, export.current_view, gathered)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection. What was acknowledged stays; what was not may or may not be there."""
        # Who still waits for the disk or the peer holds this object, and need not hold its buffer.
        self._forget()
        for each in self._maps.values():
            each.close()
        self._export.leave(self)
        self._on_closed()

    def resized(self, size_bytes: int) -> None:
        """The volume has another size. What was negotiated stays the most that this host may ask for."""
        size_bytes = min(size_bytes, self._negotiated_size)
        if size_bytes != self._size:
            self._size = size_bytes
            self._check = self._check_of(size_bytes=size_bytes)
            self.batch = self._new_batch()

    def resume(self) -> None:
        """The group takes writes again."""
        self._unpause(Pause.OVERLOAD)

    # -- requests

    @property
    def _half_request(self) -> bool:
        # All that came of a large or a refused WRITE may be handled; the rest is still to come.
        return self._start < self._end or self._large_write is not None or self._skip > 0

    def _handle_soon(self) -> None:
        if not self._gathered:
            self._gathered = True
            self._gathering.ready(self)

    def handle(self) -> None:
        """See `Gathered`."""
        if self.begin(self._clock.monotonic()) < 0:
            return
        if self._written or self._forced or not self.batch.empty:
            self._commit()
        self.end(self._clock.monotonic(), overloaded=self._export.group.overloaded)

    def begin(self, now_s: float) -> int:
        """See `Gathered`."""
        self._collecting = self._gathered = False
        if self._closing or (self._paused_for and self._must_wait):
            return -1
        self._came_from, self._began_s, self._handled = self._start, now_s, 0
        if self._skip:
            skipped = min(self._skip, self._end - self._start)
            self._start += skipped
            self._skip -= skipped
        reads = self._export.view.batch()
        with reads:
            if self._large_read is not None:
                self._read_on(reads, self._large_read)
            else:
                self._handled = self._requests(reads)
                self._depth = max(self._handled, self._depth * DEPTH_DECAY)
        return self._handled

    def end(self, now_s: float, *, overloaded: bool) -> None:
        """See `Gathered`."""
        if self._flushes or self._forced:
            self._await_durable()
        moved = self._start != self._came_from
        self._send()
        if self._handled:
            self._export.latency.served.add(now_s - self._began_s, self._handled)
        self._settle(moved=moved)
        if overloaded and self.writes:
            self._pause(Pause.OVERLOAD)

    def _requests(self, reads: ReadBatch) -> int:
        """Walk the buffer; `_start` ends at the first incomplete request, or where this turn does. Returns
        how many were handled."""
        handled = 0
        refusing = self._gate.closed and self._gate.admit() is not None
        if self._large_write is not None and not self._write_on(self._large_write, refusing):
            return 0
        view, at, end, check = self._view, self._start, self._end, self._check
        room = self._budget.turn_blocks
        while end - at >= REQUEST_BYTES and room > 0:
            magic, flags, command, cookie, offset, length = REQUEST.unpack_from(view, at)
            if magic != REQUEST_MAGIC or (command == _WRITE and length > NBD_REQUEST_BYTES_MAX):
                if self._budget.log.may_say("nbd.garbage"):
                    log.warning("nbd.garbage", client=self.client, export=self._export.name)
                self.shut()
                return handled
            handled += 1
            room -= 1
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
                self._incomplete(flags, cookie, offset, length)
                return handled
            if error:
                self._refuse(cookie, error)
            elif command == _WRITE:
                self._write(flags & _FUA, cookie, offset, view[at + REQUEST_BYTES : at + whole])
            elif command == _READ:
                room -= length // BLOCK_BYTES
                if length > self._budget.turn_blocks * BLOCK_BYTES:
                    self._begin_read(flags, cookie, offset, length)
                else:
                    self._read(reads, cookie, offset, length)
            elif command == _DISC:
                self._closing = True
                self._start = end
                return handled
            else:
                room -= self._other(command, flags, cookie, offset, length)
            at += whole
        self._start, self._needed = at, REQUEST_BYTES
        if room <= 0 and self._unfinished:
            self._ask_turn()
        return handled

    def _write(self, forced: int, cookie: int, offset: int, data: memoryview) -> None:
        (self._forced if forced else self._written).append(cookie)
        try:
            self.batch.write(offset, data)
        except (FarshoreError, OSError) as failure:
            self.refuse(failure)

    # -- large requests

    def _incomplete(self, flags: int, cookie: int, offset: int, length: int) -> None:
        """The rest of a WRITE is still to come, with `_start` at its header. What is too large to be waited
        for is taken as it comes."""
        held = self._end - self._start - REQUEST_BYTES
        if length > NBD_WHOLE_WRITE_BYTES or (self._budget.tight and held > NBD_PARKED_BYTES // 2):
            self._start += REQUEST_BYTES
            large = LargeWrite(cookie=cookie, forced=bool(flags & _FUA), offset=offset, left=length)
            self._large_write = large
            self._write_on(large, refusing=False)

    def _write_on(self, large: LargeWrite, refusing: bool) -> bool:
        """Take what has come of a large WRITE, in whole blocks. True once it is all there."""
        length = min(self._end - self._start, large.left)
        if refusing:
            self._give_up(large, int(NbdError.EIO))
            self._skip -= length
            self._start += length
            return not self._skip
        if length < large.left:
            self._needed = min(large.left, NBD_WHOLE_WRITE_BYTES)
            if length < self._needed and not self._budget.tight:
                return False
            length -= (large.offset + length) % BLOCK_BYTES
            if length <= 0:
                return False
        data = self._view[self._start : self._start + length]
        self._start += length
        offset, large.offset = large.offset, large.offset + length
        large.left -= length
        if not large.left:
            self._large_write = None
            self._write(large.forced, large.cookie, offset, data)
            return True
        self._needed = min(large.left, NBD_WHOLE_WRITE_BYTES)
        try:
            self.batch.write(offset, data)
        except (FarshoreError, OSError) as failure:
            self.refuse(failure)
        return False

    def _give_up(self, large: LargeWrite, error: int, message: str = "") -> None:
        """Answer a large WRITE before its end; the rest of it is skipped."""
        self._large_write = None
        self._skip = large.left
        self._needed = REQUEST_BYTES
        self._refuse(large.cookie, error, message)

    def _other(self, command: int, flags: int, cookie: int, offset: int, length: int) -> int:
        """Every other command; returns what it costs of a turn, beyond the least."""
        if command == _FLUSH:
            self._flushes.append(cookie)
        elif command == _CACHE:
            self._out.append(simple_reply(cookie))
        elif command == _BLOCK_STATUS:
            self._status(flags, cookie, offset, length)
            return NBD_TURN_BLOCKS_MIN if flags & _REQ_ONE else NBD_TURN_BLOCKS
        else:
            (self._forced if flags & _FUA else self._written).append(cookie)
            try:
                self.batch.zero(offset, length, trim=command == _TRIM)
            except (FarshoreError, OSError) as failure:
                self.refuse(failure)
        return 0

    # -- committing and answering

    def _commit(self) -> None:
        try:
            self.batch.commit()
        except (FarshoreError, OSError) as failure:
            self.refuse(failure)
        else:
            self.acknowledge()

    def acknowledge(self) -> None:
        """Answer what is in the journal, or have it wait for the peer."""
        if self._written:
            cookies, self._written = self._written, []
            if self._gate.closed:
                self._await_peer(cookies)
            else:
                self._out.append(simple_replies(cookies))

    def refuse(self, failure: Exception) -> None:
        """None of the writes since the last commit is in the journal: say so to each. Large writes that were
        committed in part fail as a whole, which the protocol allows."""
        if isinstance(failure, NoSpace):
            error = int(NbdError.ENOSPC)
        elif isinstance(failure, OSError) and failure.errno is not None:
            error = int(nbd_error(failure.errno))
        else:
            error = int(NbdError.EIO)
        if error != NbdError.ENOSPC and self._budget.log.may_say("nbd.write_failed"):
            log.error("nbd.write_failed", client=self.client, export=self._export.name, error=str(failure))
        self.batch = self._new_batch()
        for cookie in self._written + self._forced:
            self._refuse(cookie, error, str(failure))
        self._written = []
        self._forced = []
        if self._large_write is not None:
            self._give_up(self._large_write, error, str(failure))
