"""Frames of history that are whole and that this program does not understand: read past, and named.

Such a frame has its place in the chain: prefix, checksum and digest are right, so what stands before it and
after it is as sure as ever. Only what it says is not known. An older version journaled rows that are refused
today (a write of no blocks, a volume of size -4096); a newer one may have kinds that this one lacks.

    what it says                            what is taken of it       what it may have changed
    data, and rows of data of no blocks     all the data              nothing more
    other rows of data, or of reverts       nothing                   the volumes that they name
    other records of a known kind           nothing                   no volume's content
    anything else                           nothing                   every volume that was there

It is all or nothing: half of a frame of reverts would be a state that never was. Cuts up to the frame are
what they were. At a later one a volume that it may have changed is not known to be what its hosts wrote,
unless it was turned back to before the frame since: then whoever must not be wrong is refused
(engine.integrity.damage), and the live volume stays offline, until an operator accepts it as it is read here.

    index row (records)     (UTC ns, frame's position, (0, end, reason, volumes or nil))

What operators accepted is kept apart (engine.history.accepted).

New frames are never written so, nor taken (engine.group.frame_checks); this is what the journal has already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple, assert_never

from msgspec import Meta

from engine.group.site_state import SiteState
from engine.history.accepted import Accepted
from engine.history.timelines import TimelineTable
from engine.history.visibility import Interval
from protocol.bounds import Position, VolumeId
from protocol.errors import RemoteProtocolError
from protocol.events import LAST_DATA_KIND, EventKind, Record, Row, record_from_row, records_of
from protocol.frames import Frame, FrameError, FramePrefix, decode_rows, rows_as_they_stand, without_empty
from protocol.limits import UNREAD_FRAMES_MAX, UNREAD_TOUCHING_MAX, UNREAD_VOLUMES_MAX
from protocol.positions import POSITION_MAX, Cut
from protocol.wire import RowType

UNREAD = 0  # the kind of its index row; no event has it
REASON_MAX = 120
NOTES_MAX = 16
_Reason = Annotated[str, Meta(max_length=REASON_MAX)]
_Volumes = Annotated[tuple[VolumeId, ...], Meta(max_length=UNREAD_VOLUMES_MAX)]
_ROW = RowType(tuple[Literal[0], Position, _Reason, _Volumes | None])


class UnreadFrame(NamedTuple):
    """A frame of `timeline` at [position, end) that is not understood, and why. `volumes` are the ids of
    those that it may have changed; None: every one that was there."""

    timeline: int
    position: int
    end: int
    reason: str
    volumes: tuple[int, ...] | None

    @property
    def cut(self) -> Cut:
        """Where it stands."""
        return Cut(self.timeline, self.position)

    @property
    def touches(self) -> bool:
        """Whether it may have changed any volume."""
        return self.volumes is None or bool(self.volumes)

    def to_row(self) -> Row:
        """The event row that stands for it in the index."""
        return (UNREAD, self.end, self.reason, self.volumes)


def unread_from_row(timeline: int, position: int, row: Row) -> UnreadFrame:
    """The inverse of `to_row`. RemoteProtocolError if it is damaged."""
    _, end, reason, volumes = _ROW.convert(row)
    return UnreadFrame(timeline, position, end, reason, volumes)


class Said(NamedTuple):
    """What is taken of a frame: its rows, of these the records by their index, and what is not understood."""

    rows: tuple[Row, ...]
    records: list[tuple[int, Record]]
    unread: UnreadFrame | None


def read_frame(frame: Frame) -> Said:
    """What a checked frame of this site's own history says."""
    prefix, raw = frame
    try:
        rows = decode_rows(prefix, raw)
        return Said(rows, records_of(rows), None)
    except (FrameError, RemoteProtocolError) as error:
        reason = str(error)
    taken: tuple[Row, ...] = ()
    volumes: tuple[int, ...] | None = None
    try:
        rows = rows_as_they_stand(prefix, raw)
        volumes = may_have_changed(rows)
        if all(row[0] <= LAST_DATA_KIND for row in rows):
            taken = without_empty(prefix, rows)
            volumes = ()
    except FrameError:
        pass  # nothing is taken of it; what it names is known if its rows could be walked
    return Said(taken, [], _unread(prefix, reason, volumes))


def _unread(prefix: FramePrefix, reason: str, volumes: tuple[int, ...] | None) -> UnreadFrame:
    printable = "".join(each if each.isprintable() else "?" for each in reason)
    return UnreadFrame(prefix.timeline, prefix.position, prefix.end, printable[:REASON_MAX], volumes)


def may_have_changed(rows: tuple[Row, ...]) -> tuple[int, ...] | None:
    """Ids of the volumes whose content rows of a frame may have changed; None where that is not known."""
    found = set()
    for kind, *fields in rows:
        try:
            known = EventKind(kind)
        except ValueError:
            return None
        if _names_what_it_changes(known):
            if not fields or type(fields[0]) is not int or not 0 <= fields[0] < POSITION_MAX:
                return None
            found.add(fields[0])
    return tuple(sorted(found)) if len(found) <= UNREAD_VOLUMES_MAX else None


def _names_what_it_changes(kind: EventKind) -> bool:
    """Whether an event changes what one volume holds, which is then its first field."""
    match kind:
        case EventKind.WRITE | EventKind.ZERO | EventKind.TRIM:
            return True
        case EventKind.REVERT | EventKind.REWRITE_BEGAN | EventKind.REWRITE_ENDED:
            return True
        case EventKind.TIMELINE_BEGAN | EventKind.VOLUME_CREATED | EventKind.VOLUME_DELETED:
            return False
        case EventKind.VOLUME_RESIZED | EventKind.VOLUME_RENAMED:
            return False
        case EventKind.MARK | EventKind.COPY_PINNED | EventKind.COPY_DELETED | EventKind.COPY_LOCKED:
            return False
        case EventKind.HAND_OVER | EventKind.STRICT_MODE | EventKind.POLICY_SET:
            return False
        case _:
            assert_never(kind)


class UnreadFrames:
    """Those of one group, which derive from its journal and its index; and what an operator accepted."""

    def __init__(
        self, group: str, state: SiteState, timelines: TimelineTable, end_of: Callable[[int], int]
    ) -> None:
        self.accepted = Accepted(group, state, timelines, end_of)
        self._timelines = timelines
        self._frames: dict[tuple[int, int], UnreadFrame] = {}
        self._touching: list[UnreadFrame] = []

    def __len__(self) -> int:
        return len(self._frames)

    def __contains__(self, place: tuple[int, int]) -> bool:
        return place in self._frames

    def all(self) -> list[UnreadFrame]:
        """Every one, by timeline and position."""
        return [self._frames[place] for place in sorted(self._frames)]

    def require_room(self, unread: UnreadFrame) -> None:
        """FrameError if a peer's frame is one more than are carried for it."""
        full = unread.touches and len(self._touching) >= UNREAD_TOUCHING_MAX
        if full or len(self._frames) >= UNREAD_FRAMES_MAX:
            raise FrameError(f"too many frames that are not understood; one more: {unread.reason}")

    def apply(self, unread: UnreadFrame) -> None:
        """Take one in; the same one again is fine."""
        place = (unread.timeline, unread.position)
        if place not in self._frames:
            self._frames[place] = unread
            if unread.touches:
                self._touching.append(unread)

    def forget(self, timeline: int, position: int) -> None:
        """Leave out what a timeline has from a position on."""
        kept = [each for each in self.all() if each.timeline != timeline or each.position < position]
        self._frames = {(each.timeline, each.position): each for each in kept}
        self._touching = [each for each in kept if each.touches]

    def drop_truncated(self, truncated_to: dict[int, int]) -> None:
        """Leave out what has gone from the journal and changed nothing: by timeline, where it begins."""
        kept = [each for each in self.all() if each.touches or each.end > truncated_to.get(each.timeline, 0)]
        self._frames = {(each.timeline, each.position): each for each in kept}

    def notes(self) -> list[str]:
        """For people who read a dead site: which frames were read past."""
        found = self.all()
        notes = [
            f"the journal frame at {each.cut}, {each.end - each.position} bytes, is whole but cannot be "
            f"understood ({each.reason}): it was read past, and {_changed(each)}"
            for each in found[:NOTES_MAX]
        ]
        rest = len(found) - len(notes)
        return [*notes, f"{rest} more frames cannot be understood"] if rest else notes

    def seen(self, volume: int, intervals: tuple[Interval, ...]) -> list[UnreadFrame]:
        """Those that may have changed what a visibility of a volume (id) shows, and were not accepted."""
        if not self._touching:
            return []
        accepted = self.accepted.of(volume)
        return [
            each
            for each in self._touching
            if not accepted(each.timeline, each.position)
            and (each.volumes is None or volume in each.volumes)
            and self._within(each, intervals)
        ]

    def _within(self, unread: UnreadFrame, intervals: tuple[Interval, ...]) -> bool:
        if unread.timeline not in self._timelines:
            return False
        lane = self._timelines.get(unread.timeline).lane
        return any(
            interval.lane == lane and interval.low < unread.end and unread.position < interval.high
            for interval in intervals
        )


def unread_record(
    timeline: int, position: int, end: int, row: Row, error: RemoteProtocolError
) -> UnreadFrame:
    """What an index of an older version has of a frame that is not understood: one of its records."""
    return UnreadFrame(timeline, position, end, str(error)[:REASON_MAX], may_have_changed((row,)))


def is_unread(row: Row) -> bool:
    """Whether an index row stands for a frame, and is none of its records."""
    return bool(row) and row[0] == UNREAD


def is_record(row: Row) -> bool:
    """Whether an index row is a record that this version knows."""
    try:
        record_from_row(row)
    except RemoteProtocolError:
        return False
    return True


def _changed(unread: UnreadFrame) -> str:
    """What became of volumes, for people."""
    if not unread.touches:
        return "no volume's content can have changed by it"
    if unread.volumes is None:
        return "what volumes held after it may differ from what is read"
    return f"what {len(unread.volumes)} volumes held after it may differ from what is read"
