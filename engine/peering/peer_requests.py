"""Asking the other site of a pair about a group's past (protocol.peer_requests).

    peer = site.ask_peer("vm1")
    await peer.report()                                     its role, and its journal's end
    await peer.hold("restore", cut, for_s=3600)             keep a cut readable there; Trimmed if it is not
    await peer.release("restore")
    await peer.cut_at(utc_ns)                               the cut of a time, as that site knows it
    await peer.blocks_at(volume_id, cut, [7, 8])            bytes of each; None: damaged there, too
    blocks, on = await peer.changed(volume_id, a, b, 0)     numbers of blocks that may differ: one slice
    async for frame in peer.frames(timeline, start, end): … as they stand in that site's journal
    await peer.reads("cron-lines")                          whether its version understands such a record

The connection is made with the first question and dropped when nothing was asked for a while. It is none of
the replication's, so that either site may ask, also while the pair is split, and an answer of many blocks
does not stand in a frame's way. What is asked waits for nobody: a peer to which there is no connection within
`CONNECT_S`, or that is silent for `PEER_REQUEST_SILENCE_S`, is `Unreachable`, and every other refusal is the
error that the peer gave; nothing is asked again by itself. A peer is believed no more than a wire is: what
does not fit the question is refused.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from engine.index.view import ZERO_BLOCK
from engine.ports.clock import Clock, Timer
from engine.ports.disk import Buffer
from engine.ports.transport import Link, PeerAddress, Transport
from protocol.bounds import BlockEnd
from protocol.compress import Compression, decompress
from protocol.errors import (
    FarshoreError,
    NotFound,
    Refused,
    RemoteProtocolError,
    Unreachable,
    error_from_dict,
)
from protocol.frames import Frame, FrameError, check_frame, frames_in
from protocol.limits import (
    BLOCK_BYTES,
    PEER_REQUEST_BLOCKS_MAX,
    PEER_REQUEST_CHANGES_BYTES_MAX,
    PEER_REQUEST_CHANGES_MAX,
    PEER_REQUEST_SILENCE_S,
    PEER_REQUESTS_IN_FLIGHT_MAX,
)
from protocol.messages import Ask, Report, decode_message
from protocol.peer_requests import (
    Answer,
    AskNews,
    BlockContents,
    Blocks,
    Changed,
    Changes,
    Content,
    Find,
    Frames,
    Held,
    Hold,
    Journal,
    News,
    NewsRow,
    NoAnswer,
    PeerRequest,
    Reads,
    Release,
    read_news,
)
from protocol.positions import Cut
from protocol.wire import RowType

CONNECT_S = 3.0
_RUNS = RowType(tuple[BlockEnd, ...])
IDLE_S = 30.0


@dataclass(frozen=True, slots=True)
class _Reply:
    answer: Answer | Report
    payload: bytes


class PeerRequests:
    """Questions about one group to the peer at `address`; see the module's docstring. `received_bytes` of
    payloads, as they travelled; `refused`: the last question found somebody there, but the keys do not
    fit."""

    def __init__(
        self,
        *,
        group: str,
        group_id: str,
        address: PeerAddress,
        transport: Transport,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self.peer = address.name
        self.received_bytes = 0
        self._group = group
        self._group_id = group_id
        self.address = address
        self._transport = transport
        self._clock = clock
        self._rng = rng
        self.refused = False
        self._link: Link | None = None
        self._heard_at: float | None = None  # on this connection
        self._waiting: dict[int, asyncio.Future[_Reply]] = {}
        self._free = asyncio.Semaphore(PEER_REQUESTS_IN_FLIGHT_MAX)
        self._timer: Timer | None = None

    # -- questions

    async def report(self) -> Report:
        """What the peer is to the group."""
        reply = await self._ask(Ask)
        if not isinstance(reply.answer, Report):
            raise self._unfit()
        return reply.answer

    async def hold(self, name: str, cut: Cut, for_s: float) -> None:
        """Keep `cut` readable there for so long. Trimmed or NotFound if it is not; WrongState if the peer has
        not come so far. Durable there on return."""
        await self._held(Hold, name=name, cut=cut, for_s=int(for_s))

    async def release(self, name: str) -> None:
        """Let go of what `hold` keeps; a name not held is fine."""
        await self._held(Release, name=name)

    async def cut_at(self, utc_ns: int) -> Cut:
        """The end of the last frame written at or before a time, if it can be read there. Trimmed or
        NotFound."""
        return await self._held(Find, utc_ns=utc_ns)

    async def blocks_at(self, volume: int, cut: Cut, blocks: Sequence[int]) -> list[bytes | None]:
        """Each block's bytes in the order asked (zeroes: `ZERO_BLOCK` itself); None where the peer's own copy
        is damaged. Trimmed or NotFound if it cannot read that cut."""
        parts = [
            tuple(blocks[at : at + PEER_REQUEST_BLOCKS_MAX])
            for at in range(0, len(blocks), PEER_REQUEST_BLOCKS_MAX)
        ]
        found = await asyncio.gather(*(self._blocks(volume, cut, part) for part in parts))
        return [block for part in found for block in part]

    async def changed(self, volume: int, before: Cut, after: Cut, first: int) -> tuple[list[int], int | None]:
        """Blocks of a volume (id) from `first` on that may differ between two cuts, ascending: a slice, which
        may be empty, and the block to ask on from, or None after the last."""
        reply = await self._ask(Changes, volume=volume, before=before, after=after, first=first)
        answer = reply.answer
        if not isinstance(answer, Changed) or not (answer.done or answer.next_block > first):
            raise self._unfit()
        try:
            return _run_blocks(reply.payload, first), None if answer.done else answer.next_block
        except RemoteProtocolError as error:
            raise self._unfit(str(error)) from error

    async def frames(self, timeline: int, start: int, end: int) -> AsyncIterator[Frame]:
        """Frames of a timeline from the boundary `start` up to `end`, their bodies checked. NotFound where
        there are none, FarshoreError where the peer's own are damaged."""
        while start < end:
            reply = await self._ask(Journal, timeline=timeline, start=start, end=end)
            if not isinstance(reply.answer, Frames):
                raise self._unfit()
            try:
                found = _checked_frames(reply.payload, timeline, start)
            except (FrameError, RemoteProtocolError) as error:
                raise self._unfit(str(error)) from error
            for frame in found:
                yield frame
                start = frame.prefix.end

    async def news(self, run: int, since: int) -> tuple[News, tuple[NewsRow, ...]]:
        """What has happened at that site since; see `AskNews`."""
        reply = await self._ask(AskNews, run=run, since=since)
        if not isinstance(reply.answer, News):
            raise self._unfit()
        try:
            return reply.answer, read_news(reply.payload)
        except RemoteProtocolError as error:
            raise self._unfit(str(error)) from error

    async def reads(self, what: str) -> bool:
        """Whether that site's version understands a form of record. Unreachable if it does not answer, Busy
        if it cannot now, Refused if it does not share the group with this site; other FarshoreErrors of
        its own."""
        try:
            await self._held(Reads, what=what)
        except NotFound as error:
            await self._require_shared(error)
            return False
        return True

    async def _require_shared(self, error: NotFound) -> None:
        """Refused if what was not found is the group: every question about it is then answered so."""
        try:
            await self.release("nothing")
        except NotFound:
            raise Refused(
                f"{error.message}: so it does not say what it reads",
                subject=self._group,
                next_step=f"`farshore pair show {self._group}`, at {self.peer} too",
            ) from error

    async def _held(self, kind: Callable[..., PeerRequest], **fields: object) -> Cut:
        reply = await self._ask(kind, **fields)
        if not isinstance(reply.answer, Held):
            raise self._unfit()
        return reply.answer.cut

    async def _blocks(self, volume: int, cut: Cut, blocks: tuple[int, ...]) -> list[bytes | None]:
        reply = await self._ask(Blocks, volume=volume, cut=cut, blocks=blocks)
        answer, payload = reply.answer, memoryview(reply.payload)
        if not isinstance(answer, BlockContents) or len(answer.contents) != len(blocks):
            raise self._unfit()
        if len(payload) != answer.contents.count(Content.BYTES) * BLOCK_BYTES:
            raise self._unfit()
        found: list[bytes | None] = []
        at = 0
        for kind in answer.contents:
            if kind == Content.BYTES:
                found.append(bytes(payload[at : at + BLOCK_BYTES]))
                at += BLOCK_BYTES
            else:
                found.append(ZERO_BLOCK if kind == Content.ZEROES else None)
        return found

    # -- the connection

    async def _ask(self, kind: Callable[..., PeerRequest | AskNews | Ask], **fields: object) -> _Reply:
        async with self._free:
            session = self._rng.getrandbits(62) | 1
            answered = self._waiting[session] = asyncio.get_running_loop().create_future()
            began = self._clock.monotonic()
            about = {"session": session, "group": self._group, "group_id": self._group_id}
            try:
                link = self._connection()
                link.send(kind(**about, **fields).encode())
                reply: _Reply = await self._wait(link, answered, began)
            finally:
                del self._waiting[session]
                self._idle_later()
        if isinstance(reply.answer, NoAnswer):
            no_answer = reply.answer
            text = f"{self.peer}: {no_answer.message}"
            why: dict[str, object] = {"code": no_answer.code, "message": text, "position": no_answer.position}
            raise error_from_dict(why | {"object": self._group})
        return reply

    async def _wait(self, link: Link, answered: asyncio.Future[_Reply], began: float) -> _Reply:
        """Its answer on the connection that it was asked on; Unreachable after too long a silence there,
        whoever's answers would have broken it."""
        while True:
            current = link is self._link and not link.ended
            # The peer may have many to answer first: the short time is for one that is not there.
            allowed_s = PEER_REQUEST_SILENCE_S if link.connected else CONNECT_S
            left_s = max(began, self._heard_at or 0.0) + allowed_s - self._clock.monotonic()
            if left_s <= 0 or not current:
                self.refused = link.refused
                if link is self._link:
                    self.close()
                raise Unreachable(
                    f"{self.peer} does not answer: {link.trouble or 'the connection was lost'}",
                    subject=self._group,
                    next_step=f"`farshore pair show {self._group}`; is the daemon of {self.peer} running?",
                )
            # A lost connection is silent: look now and then.
            await asyncio.wait([answered], timeout=min(left_s, 1.0))
            if answered.done():
                return answered.result()

    def _connection(self) -> Link:
        if self._link is None or self._link.ended:
            if not self.address.endpoint:
                raise Unreachable(
                    f"{self.peer} has no address that could be asked",
                    subject=self._group,
                    next_step=f"set `replication` in site.toml of {self.peer}, and add its token here again",
                )
            self._heard_at = None
            self._link = self._transport.dial(self.address, self._on_message)
        return self._link

    def _on_message(self, header: bytes, payload: Buffer | None) -> None:
        try:
            message = decode_message(header)
        except RemoteProtocolError as error:
            self._fail_all(error)
            return
        if not isinstance(message, News | Report):
            # Those are asked for every few seconds, for as long as the site runs, and answered before all
            # others: a question whose answer is lost would be waited for as long.
            self._heard_at = self._clock.monotonic()
        answered = self._waiting.get(message.session)
        if answered is None or answered.done() or not isinstance(message, Answer | Report):
            return
        self.received_bytes += len(payload or b"")
        try:
            answered.set_result(_Reply(message, _unpacked(message, payload or b"")))
        except RemoteProtocolError as error:
            answered.set_exception(self._unfit(str(error)))

    def _fail_all(self, error: RemoteProtocolError) -> None:
        for answered in self._waiting.values():
            if not answered.done():
                answered.set_exception(self._unfit(str(error)))

    def _unfit(self, why: str = "it does not fit the question") -> FarshoreError:
        return FarshoreError(
            f"{self.peer} gave an answer that it may not: {why}",
            subject=self._group,
            next_step=f"run the same version of farshore here and at {self.peer}",
        )

    def _idle_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if self._waiting else self._clock.call_later(IDLE_S, self.close)

    def close(self) -> None:
        """Drop the connection; the next question makes another."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._link is not None:
            self._link.close()
            self._link = None


def _unpacked(answer: Answer | Report, payload: Buffer) -> bytes:
    """The payload before compression."""
    compressed = isinstance(answer, BlockContents | Changed | Frames) and answer.compression
    return decompress(payload) if compressed is Compression.ZSTD else bytes(payload)


def _run_blocks(payload: bytes, first: int) -> list[int]:
    """Block numbers of an answer's runs. RemoteProtocolError unless they ascend from `first` on."""
    runs = _RUNS.decode(payload, PEER_REQUEST_CHANGES_BYTES_MAX)
    blocks: list[int] = []
    if len(runs) % 2:
        raise RemoteProtocolError("changed blocks come as pairs of numbers")
    for start, count in zip(runs[::2], runs[1::2], strict=True):
        if start < first or len(blocks) + count > PEER_REQUEST_CHANGES_MAX:
            raise RemoteProtocolError("changed blocks come in order, and not too many at once")
        blocks.extend(range(start, start + count))
        first = start + count
    return blocks


def _checked_frames(payload: bytes, timeline: int, start: int) -> list[Frame]:
    """FrameError or RemoteProtocolError if they are not the frames that begin at `start`."""
    found = []
    for frame in frames_in(payload):
        prefix = frame.prefix
        if prefix.timeline != timeline or prefix.position != start:
            raise FrameError(f"these are not the frames from {Cut(timeline, start)} on")
        check_frame(prefix, frame.raw, None)
        found.append(frame)
        start = prefix.end
    if not found:
        raise RemoteProtocolError("an answer of frames holds none")
    return found
