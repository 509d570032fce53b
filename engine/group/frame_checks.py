"""What a frame may say of a group, beyond what its rows' types allow: asked before it is journaled, by the
writer of its own rows, by a follower of its peer's.

What cannot be read back is never written: a row of no blocks, once journaled, is refused by every later
start and by every peer. And what names no volume, or lies past its end, has no reader.

What a site had in its journal before it said HELLO is its history and cannot be refused without losing what
hosts were told since: of that, a frame that is not understood is carried and named (engine.history.unread). A
frame that is new is not: no writer of this version makes one. A peer that lies about which is which spoils
the group that it ships, which it could fill with anything, and nothing else.

A volume that was deleted may still be named: a write that was under way then changes nothing that anyone
sees. Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.history.timelines import TimelineTable
from engine.history.unread import Said, UnreadFrames, read_frame
from engine.history.volume_bounds import check_frame_volumes
from engine.history.volumes import VolumeHistory
from protocol.errors import FarshoreError, LocalProtocolError, RemoteProtocolError
from protocol.events import LAST_DATA_KIND, WRITE, Row, TimelineBegan, record_from_row, records_of
from protocol.frames import Frame, decode_rows
from protocol.limits import BLOCK_BYTES, BLOCKS_MAX, FRAME_UTC_NS_MAX, GENERATIONS_AHEAD_MAX


class Unwritable(FarshoreError, LocalProtocolError):
    """Rows of this site's own that no journal may hold: a defect here; nothing was written."""


class FrameChecks:
    """Those of one group."""

    def __init__(self, timelines: TimelineTable, volumes: VolumeHistory, unread: UnreadFrames) -> None:
        self._timelines = timelines
        self._volumes = volumes
        self._unread = unread
        self._head = 0
        self._blocks: dict[int, int] | None = None  # of volumes on the head's lineage; None: look again

    def changed(self) -> None:
        """What volumes there are, or what leads to the head, may be another from now on."""
        self._blocks = None

    def own(self, head: int, rows: Sequence[Row], payload_bytes: int) -> None:
        """See `check_own`, for the timeline that is the head."""
        check_own(rows, payload_bytes, self._at_head(head))

    def followed(self, head: int, frame: Frame, *, history: bool) -> Said:
        """What a peer's frame says. FrameError or RemoteProtocolError if that is what it may not, or is not
        understood and no `history`."""
        prefix = frame.prefix
        if prefix.utc_ns > FRAME_UTC_NS_MAX:
            raise RemoteProtocolError(f"a frame of the time {prefix.utc_ns} ns, which no clock has")
        if history:
            said = read_frame(frame)
            if said.unread is not None:
                self._unread.require_room(said.unread)
        else:
            rows = decode_rows(prefix, frame.raw)
            said = Said(rows, records_of(rows), None)
        for _, record in said.records:
            if isinstance(record, TimelineBegan):
                check_generation(record.generation, self._timelines.generation())
        if said.records:
            records = (record for _, record in said.records)
            check_frame_volumes(self._volumes, self._timelines, prefix, records)
        if said.records or not said.rows:
            return said
        # Nobody can read a volume that no record made; one of them may be what is not understood.
        unknown_below = prefix.position if history else 0
        if prefix.timeline == head:
            check_data(said.rows, self._at_head(head), unknown_below)
        elif prefix.timeline in self._timelines:
            spans = self._timelines.lineage(prefix.timeline, prefix.position)
            check_data(said.rows, self._volumes.blocks_of(spans), unknown_below)
        return said

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


def check_data(rows: Sequence[Row], blocks_of: Mapping[int, int], unknown_below: int = 0) -> int:
    """The number of blocks in the payload of data rows. RemoteProtocolError unless each lies within a
    volume of `blocks_of`, or is of another one whose id is less than `unknown_below`."""
    written = 0
    for kind, volume, first, count in rows:
        end = first + count
        if not 0 <= first < end <= blocks_of.get(volume, BLOCKS_MAX if volume < unknown_below else 0):
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
    takeovers explains: one near its bound could never be outranked."""
    if claimed > known + GENERATIONS_AHEAD_MAX:
        raise RemoteProtocolError(f"generation {claimed} is out of all proportion to {known}, known here")
