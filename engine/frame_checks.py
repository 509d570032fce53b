"""What a frame may say of a group, beyond what its rows' types allow: asked before it is journaled, by the
writer of its own rows, by a follower of its peer's.

What cannot be read back is never written: a row of no blocks, once journaled, is refused by every later
start and by every peer (C1). And what names no volume, or lies past its end, has no reader.

A volume that was deleted may still be named: a write that was under way then changes nothing that anyone
sees. Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.head_moves import records_of
from engine.timelines import TimelineTable
from engine.volumes import VolumeHistory
from protocol.errors import FarshoreError, LocalProtocolError, RemoteProtocolError
from protocol.events import LAST_DATA_KIND, WRITE, Record, Row, TimelineBegan, record_from_row
from protocol.frames import Frame, decode_rows
from protocol.limits import BLOCK_BYTES, GENERATIONS_AHEAD_MAX


class Unwritable(FarshoreError, LocalProtocolError):
    """Rows of this site's own that no journal may hold: a defect here; nothing was written."""


class FrameChecks:
    """Those of one group."""

    def __init__(self, timelines: TimelineTable, volumes: VolumeHistory) -> None:
        self._timelines = timelines
        self._volumes = volumes
        self._head = 0
        self._blocks: dict[int, int] | None = None  # of volumes on the head's lineage; None: look again

    def changed(self) -> None:
        """What volumes there are, or what leads to the head, may be another from now on."""
        self._blocks = None

    def own(self, head: int, rows: Sequence[Row], payload_bytes: int) -> None:
        """See `check_own`, for the timeline that is the head."""
        check_own(rows, payload_bytes, self._at_head(head))

    def followed(self, head: int, frame: Frame) -> tuple[Sequence[Row], list[tuple[int, Record]]]:
        """Rows of a peer's frame, and its records by their index. FrameError or RemoteProtocolError if it
        says what it may not."""
        prefix = frame.prefix
        rows = decode_rows(prefix, frame.raw)
        if rows[0][0] > LAST_DATA_KIND:
            records = records_of(rows)
            for _, record in records:
                if isinstance(record, TimelineBegan):
                    check_generation(record.generation, self._timelines.generation())
            return rows, records
        if prefix.timeline == head:
            check_data(rows, self._at_head(head))
        elif prefix.timeline in self._timelines:
            spans = self._timelines.lineage(prefix.timeline, prefix.position)
            check_data(rows, self._volumes.blocks_of(spans))
        return rows, []

    def _at_head(self, head: int) -> dict[int, int]:
        if self._blocks is None or head != self._head:
            self._head = head
            self._blocks = self._volumes.blocks_of(self._timelines.lineage(head))
        return self._blocks


def check_own(rows: Sequence[Row], payload_bytes: int, blocks_of: Mapping[int, int]) -> None:
    """Unwritable unless rows that this site made up may be journaled: data of volumes in `blocks_of` (their
    sizes in blocks, by id) with this much payload, or records."""
    try:
        if not rows:
            raise RemoteProtocolError("a frame has events")
        if rows[0][0] <= LAST_DATA_KIND:
            if check_data(rows, blocks_of) * BLOCK_BYTES != payload_bytes:
                raise RemoteProtocolError("rows and payload disagree on the number of blocks")
            return
        for row in rows:
            record_from_row(row)
    except RemoteProtocolError as error:
        raise Unwritable(f"not written: {error}", next_step="report this: it is a defect") from error


def check_data(rows: Sequence[Row], blocks_of: Mapping[int, int]) -> int:
    """The number of blocks in the payload of data rows. RemoteProtocolError unless each lies within a
    volume of `blocks_of`."""
    written = 0
    for kind, volume, first, count in rows:
        end = first + count
        if not 0 <= first < end <= blocks_of.get(volume, 0):
            if volume not in blocks_of:
                raise RemoteProtocolError(f"a data row is of volume {volume}, which is not on this lineage")
            raise RemoteProtocolError(
                f"blocks {first} to {end} are not within volume {volume} of {blocks_of[volume]} blocks"
            )
        if kind == WRITE:
            written += count
    return written


def check_generation(claimed: int, known: int) -> None:
    """RemoteProtocolError if a generation is further ahead of what is known here than any number of
    takeovers explains: one near its bound could never be outranked (C5)."""
    if claimed > known + GENERATIONS_AHEAD_MAX:
        raise RemoteProtocolError(f"generation {claimed} is out of all proportion to {known}, known here")
