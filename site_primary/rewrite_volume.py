"""Turning a volume back by writes, where one `Revert` cannot do it because a site does not hold that past.

The blocks that may differ are found by what both pasts see (engine.index.changes), compared, and journaled as
writes and zeroes like a host's: they replicate like those. Where the past comes from is a `Past`: this site's
own history, or the peer's over the wire.

`RewriteBegan` and `RewriteEnded` stand around the writes in the journal, so that either site, also one that
took over in between or started again, knows the volume for half turned back. Doing it again from the start
is right at any time: what is as it should be already is not written again.

Source: the method's figure 6, for the case that only one site holds the history.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from itertools import chain
from typing import Protocol, TypeVar

from engine.group.group import Group
from engine.history.volumes import Volume
from engine.index.view import ZERO_BLOCK, ReadBatch, VolumeView
from engine.peering.own_past import change_scan
from engine.peering.peer_requests import PeerRequests
from protocol.errors import Busy, Corruption, Mismatch, Unreachable
from protocol.events import WRITE, ZERO, RewriteBegan, RewriteEnded, Row
from protocol.limits import BLOCK_BYTES, PEER_REQUEST_BLOCKS_MAX, PEER_REQUESTS_IN_FLIGHT_MAX
from protocol.positions import Cut
from site_primary.resize_volume import sizes_of

T = TypeVar("T")

# How soon a peer that is away or busy is asked again.
ASK_AGAIN_S = 1.0
# Blocks that are read, compared and journaled at one stroke, beside hosts of other volumes.
STEP_BLOCKS = 256
# Asked for at once, while those before are journaled: as many as may be under way to a peer.
AHEAD_BLOCKS = PEER_REQUEST_BLOCKS_MAX * PEER_REQUESTS_IN_FLIGHT_MAX


class Past(Protocol):
    """What a volume is turned back to."""

    def changed(self) -> AsyncIterator[list[int]]:
        """Blocks in which the volume may differ from it now, in slices; some may come twice."""

    async def contents(self, blocks: list[int]) -> list[bytes]:
        """Their bytes then. Corruption names one that is damaged."""


class OwnPast:
    """A cut that this site can read; `end` is what the volume is now."""

    def __init__(self, group: Group, volume: Volume, cut: Cut, end: Cut) -> None:
        self._group = group
        self._volume = volume.id
        self._then, self._now = group.kept.view_of(volume.id, cut), group.kept.view_of(volume.id, end)

    async def changed(self) -> AsyncIterator[list[int]]:
        """See `Past.changed`."""
        scan = change_scan(self._group, self._volume, self._then, self._now, 0)
        while not scan.done:
            yield scan.slice()
            await asyncio.sleep(0)

    async def contents(self, blocks: list[int]) -> list[bytes]:
        """See `Past.contents`."""
        found: list[bytes] = []
        for at in range(0, len(blocks), STEP_BLOCKS):
            with self._then.batch() as batch:
                found += [self._then.read_block(batch, block) for block in blocks[at : at + STEP_BLOCKS]]
            await asyncio.sleep(0)
        return found


class PeerPast:
    """A cut that only the peer can read. `common` is a cut that both sites can: from the peer's history comes
    what changed up to it, from this site's what did since, up to `end`. A peer that is away or busy is asked
    again until it has answered nothing for `patience_s`; at 0 never."""

    def __init__(
        self,
        group: Group,
        volume: Volume,
        cut: Cut,
        end: Cut,
        peer: PeerRequests,
        common: Cut,
        patience_s: float,
    ) -> None:
        self._clock = group.clock
        self._patience_s = patience_s
        self._answered_at = 0.0
        self._volume = volume
        self._cut = cut
        self._peer = peer
        self._common = common
        self._since = OwnPast(group, volume, common, end)

    async def changed(self) -> AsyncIterator[list[int]]:
        """See `Past.changed`."""
        first: int | None = 0
        while first is not None:
            blocks, first = await self._answer(
                partial(self._peer.changed, self._volume.id, self._cut, self._common, first)
            )
            yield blocks
        async for blocks in self._since.changed():
            yield blocks

    async def contents(self, blocks: list[int]) -> list[bytes]:
        """See `Past.contents`."""
        # Each message by itself: what came of a lot need not come again.
        requests = [
            partial(
                self._peer.blocks_at, self._volume.id, self._cut, blocks[at : at + PEER_REQUEST_BLOCKS_MAX]
            )
            for at in range(0, len(blocks), PEER_REQUEST_BLOCKS_MAX)
        ]
        answers = await asyncio.gather(*map(self._answer, requests))
        found: list[bytes] = []
        for block, data in zip(blocks, chain.from_iterable(answers), strict=True):
            if data is None:
                raise Corruption(
                    f"block {block} of {self._volume.name} is damaged at {self._peer.peer}",
                    subject=self._volume.name,
                    position=str(self._cut),
                    next_step="choose another cut",
                )
            found.append(data)
        return found

    async def _answer(self, request: Callable[[], Awaitable[T]]) -> T:
        began = self._clock.monotonic()
        while True:
            try:
                answer = await request()
            except (Busy, Unreachable):
                if self._clock.monotonic() - max(began, self._answered_at) >= self._patience_s:
                    raise
                await asyncio.sleep(ASK_AGAIN_S)
            else:
                self._answered_at = self._clock.monotonic()
                return answer


async def count_changed(past: Past) -> int:
    """Blocks that would have to be looked at."""
    return sum([len(blocks) async for blocks in past.changed()])


async def rewrite(
    group: Group,
    volume: Volume,
    past: Past,
    room: Callable[[], Awaitable[None]],
    looked_at: Callable[[int], None] = lambda blocks: None,
) -> int:
    """Write what differs. Returns the number of blocks written. `room` is awaited before each step: it waits
    for what must catch up, and raises if this site may no longer write. `looked_at` is told how many blocks
    each step was about."""
    written = 0
    async for blocks, contents in _ahead(past):
        for at in range(0, len(blocks), STEP_BLOCKS):
            await room()
            step = slice(at, at + STEP_BLOCKS)
            written += _write(group, volume, blocks[step], contents[step])
            looked_at(len(blocks[step]))
    return written


async def _ahead(past: Past) -> AsyncIterator[tuple[list[int], list[bytes]]]:
    """Blocks and contents, those of the next lot on their way while one is worked on."""
    coming: tuple[list[int], asyncio.Task[list[bytes]]] | None = None
    try:
        async for blocks in _lots(past.changed()):
            task = asyncio.create_task(past.contents(blocks))
            before, coming = coming, (blocks, task)
            if before is not None:
                yield before[0], await before[1]
        if coming is not None:
            yield coming[0], await coming[1]
    finally:
        if coming is not None:
            coming[1].cancel()


async def _lots(slices: AsyncIterator[list[int]]) -> AsyncIterator[list[int]]:
    held: list[int] = []
    async for blocks in slices:
        held += blocks
        while len(held) >= AHEAD_BLOCKS:
            yield held[:AHEAD_BLOCKS]
            del held[:AHEAD_BLOCKS]
    if held:
        yield held


def _write(group: Group, volume: Volume, blocks: list[int], contents: list[bytes]) -> int:
    """One frame with those that differ from what the volume holds now."""
    live = group.live_view(volume)
    rows: list[Row] = []
    payload: list[bytes] = []
    count = 0
    with live.batch() as batch:
        for block, data in zip(blocks, contents, strict=True):
            if _is(live, batch, block, data):
                continue
            kind = ZERO if data == ZERO_BLOCK else WRITE
            if rows and rows[-1][0] == kind and rows[-1][2] + rows[-1][3] == block:
                rows[-1] = (*rows[-1][:3], rows[-1][3] + 1)
            else:
                rows.append((kind, volume.id, block, 1))
            if kind == WRITE:
                payload.append(data)
            count += 1
    if rows:
        group.append(rows, payload, len(payload) * BLOCK_BYTES)
    return count


def _is(live: VolumeView, batch: ReadBatch, block: int, data: bytes) -> bool:
    """Whether the volume holds this. A block that is damaged here is written anew, and so mended."""
    try:
        return live.read_block(batch, block) == data
    except Corruption:
        return False


def begin_rewrite(group: Group, volumes: list[Volume], cut: Cut, before: Cut) -> None:
    """Say in the journal that these volumes are on their way to `cut`; `before` is the way back."""
    group.begin_writing()
    group.append_records([RewriteBegan(volume=each.id, cut=cut, before=before) for each in volumes])


def end_rewrite(group: Group, volumes: list[Volume], cut: Cut) -> Cut:
    """Say that they are there, with the sizes of `cut`; returns the frame's position."""
    ended = [RewriteEnded(volume=each.id) for each in volumes]
    frame = group.append_records([*ended, *sizes_of(group, volumes, cut)])
    return Cut(frame.prefix.timeline, frame.prefix.position)


async def check_rewritten(group: Group, volume: Volume, cut: Cut, past: Past, sample: list[int]) -> None:
    """Mismatch unless the volume holds at the blocks of `sample` what it did at the cut."""
    live = group.live_view(volume)
    contents = await past.contents(sample)
    with live.batch() as batch:
        for block, data in zip(sample, contents, strict=True):
            if live.read_block(batch, block) != data:
                name = f"{group.name}/{volume.name}"
                raise Mismatch(
                    f"{name} was turned back, but block {block} differs",
                    subject=name,
                    position=str(cut),
                    next_step=f"leave it offline, and restore it again: --at {cut}",
                )
