"""From hosts' writes to journal frames: one wake-up of a connection is one batch, one batch is one frame, or
part of one with those of other hosts (`site_primary.nbd.gathering`).

A batch takes requests in the order in which they came. Whole blocks go into the frame as they are (slices of
the receive buffer, copied once into the frame). A write that covers part of a block is merged here with what
the block holds, earlier requests of the same batch included, because frames carry whole blocks: whoever
reads a version then needs one place and not a chain of patches.

Every row covers at least one block, and lies inside the volume, whatever is asked for: `write` and `zero` let
nothing else through. A row of no blocks is one that the decoder refuses: once in the journal, it keeps the
peer and the next start from reading on.

Nothing is acknowledged before `commit` returned.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.index.view import VolumeView
from engine.ports.disk import Buffer
from protocol.errors import Refused
from protocol.events import TRIM, WRITE, ZERO, Row
from protocol.limits import BLOCK_BYTES, FRAME_EVENTS_MAX, FRAME_PAYLOAD_BYTES_MAX
from site_primary.hosted import Hosted

_MASK = BLOCK_BYTES - 1
_ZERO_BLOCK = bytes(BLOCK_BYTES)


class WriteBatch:
    """Writes to one volume on their way into the journal. Used again after each commit.

    `volume` is its id, of `size_bytes`; `view` gives it as it is, for merging. The buffers given to `write`
    must stay unchanged until the commit.

    `before_us` is called before a block is looked up to be written in part, and before a commit: whoever
    holds writes of other batches puts them into the journal then. Or a block that one of them merged would
    undo what this one writes to the rest of it, and the other way round.
    """

    __slots__ = (
        "_before_us",
        "_group",
        "_overlay",
        "_payload_bytes",
        "_pieces",
        "_rows",
        "_size",
        "_view",
        "_volume",
    )

    def __init__(
        self,
        group: Hosted,
        volume: int,
        size_bytes: int,
        view: Callable[[], VolumeView],
        before_us: Callable[[], None] = lambda: None,
    ) -> None:
        self._group = group
        self._volume = volume
        self._size = size_bytes
        self._view = view
        self._before_us = before_us
        self._rows: list[Row] = []
        self._pieces: list[Buffer] = []
        self._payload_bytes = 0
        self._overlay: dict[int, Buffer] | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to commit."""
        return not self._rows

    def write(self, offset: int, data: memoryview) -> None:
        """Write `data` at `offset`, any alignment; full frames are committed on the way. No bytes are no
        row. Errors as `commit`, and Refused outside the volume."""
        length = len(data)
        if not length or offset < 0 or offset + length > self._size:
            self._require_inside(offset, length)
            return
        if not (offset | length) & _MASK:
            if self._payload_bytes + length <= FRAME_PAYLOAD_BYTES_MAX and self._overlay is None:
                self._whole(offset // BLOCK_BYTES, data, length)
                return
        elif self._overlay is None:
            self._begin_overlay()
        self._write_slowly(offset, data)

    def _require_inside(self, offset: int, length: int) -> None:
        """For what is empty or not inside: the one is nothing to do, the other must not have come so far."""
        if length < 0 or not 0 <= offset <= offset + length <= self._size:
            raise Refused(
                f"{length} bytes at {offset} are outside a volume of {self._size} bytes",
                next_step="this is a defect of the daemon: the request should have been refused when it came",
            )

    def _whole(self, block: int, data: Buffer, length: int) -> None:
        self._rows.append((WRITE, self._volume, block, length // BLOCK_BYTES))
        self._pieces.append(data)
        self._payload_bytes += length
        if len(self._rows) >= FRAME_EVENTS_MAX:
            self.commit()

    def _write_slowly(self, offset: int, data: memoryview) -> None:
        at = 0
        while at < len(data):
            block, skip = divmod(offset + at, BLOCK_BYTES)
            rest = len(data) - at
            if skip or rest < BLOCK_BYTES:
                length = min(BLOCK_BYTES - skip, rest)
                self._merge(block, skip, data[at : at + length])
            else:
                room = FRAME_PAYLOAD_BYTES_MAX - self._payload_bytes
                length = min(rest & ~_MASK, room)
                if length == 0:
                    self.commit()
                    continue
                self._remember(block, data[at : at + length])
                self._whole(block, data[at : at + length], length)
            at += length

    def _merge(self, block: int, skip: int, data: Buffer) -> None:
        """Write part of a block."""
        if self._overlay is None:
            self._begin_overlay()
        if self._payload_bytes + BLOCK_BYTES > FRAME_PAYLOAD_BYTES_MAX:
            self.commit()
        merged = bytearray(self._current(block))
        merged[skip : skip + len(data)] = data
        self._remember(block, merged)
        self._whole(block, merged, BLOCK_BYTES)

    def _current(self, block: int) -> Buffer:
        """What a block holds, this batch included."""
        held = self._overlay.get(block) if self._overlay is not None else None
        if held is not None:
            return held
        view = self._view()
        with view.batch() as batch:
            return view.read_block(batch, block)

    def _remember(self, block: int, data: Buffer) -> None:
        if self._overlay is not None:
            for at in range(0, len(data), BLOCK_BYTES):
                self._overlay[block] = data[at : at + BLOCK_BYTES]
                block += 1

    def _begin_overlay(self) -> None:
        """From the first partial block of a batch on, know what the batch has written so far. A zeroed range
        cannot be listed block by block, so a batch that holds one is committed first."""
        self._before_us()
        if any(row[0] != WRITE for row in self._rows):
            self.commit()
        self._overlay = {}
        for row, piece in zip(self._rows, self._pieces, strict=True):
            self._remember(row[2], piece)

    def zero(self, offset: int, length: int, *, trim: bool) -> None:
        """Zero a range of any size and alignment; a trim leaves partly covered blocks as they are. Errors as
        `write`."""
        if length <= 0 or offset < 0 or offset + length > self._size:
            self._require_inside(offset, length)
            return
        first = -(-offset // BLOCK_BYTES)
        end = (offset + length) // BLOCK_BYTES
        if not trim:
            if first > end:
                self._merge(end, offset & _MASK, _ZERO_BLOCK[:length])
                return
            if offset & _MASK:
                self._merge(first - 1, offset & _MASK, _ZERO_BLOCK[offset & _MASK :])
            if (offset + length) & _MASK:
                self._merge(end, 0, _ZERO_BLOCK[: (offset + length) & _MASK])
        if first < end:
            if self._overlay is not None:
                self.commit()
            self._rows.append((TRIM if trim else ZERO, self._volume, first, end - first))
            if len(self._rows) >= FRAME_EVENTS_MAX:
                self.commit()

    def commit(self) -> None:
        """Put everything so far into the journal. NoSpace or OSError: none of it since the last commit is
        there, and the batch is empty again."""
        rows, pieces, payload_bytes = self.take()
        if rows:
            self._before_us()
            self._group.append(rows, pieces, payload_bytes)

    def take(self) -> tuple[list[Row], list[Buffer], int]:
        """Everything so far, and the bytes of its payload, for a frame that somebody else makes; within a
        frame's limits. The batch is empty again."""
        taken = self._rows, self._pieces, self._payload_bytes
        self._rows = []
        self._pieces = []
        self._payload_bytes = 0
        self._overlay = None
        return taken
