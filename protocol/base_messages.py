"""Messages that carry a base (engine.bases): what a site needs to go on from a cut that the journal does not
lead it to.

    source → target                                      target → source
    BASE_BEGIN    the cuts A and B, X, how many parts    BASE_ACK    X is here up to `written`, indexed up to
    BASE_PART     timelines and records up to B                      `indexed`; installed or not
    BASE_FRAMES   frames of X, end to end
    BASE_END      where X ends, and its digest there

BEGIN and the parts open each session of a base; the target's first acknowledgement says from where on X is to
be sent. Frames of X are those of a timeline like any other: the target stores them as they are.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from xxhash import xxh3_128

from protocol.compress import Compression
from protocol.errors import RemoteProtocolError
from protocol.events import Row, record_from_row
from protocol.frames import DIGEST_BYTES
from protocol.limits import BASE_PART_BYTES_MAX, BASE_PARTS_MAX
from protocol.positions import NO_TIMELINE, POSITION_MAX, Cut
from protocol.rows import check_row, pack_row, unpack_row


class BaseKind(IntEnum):
    """First element of a header; the other kinds are in protocol.messages."""

    BEGIN = 20
    PART = 21
    FRAMES = 22
    END = 23
    ACK = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseBegin:
    """A base at `cut` on top of `start` (None: on nothing) begins, or goes on. `digest` is what the next
    frame at the cut continues, `utc_ns` the time of the one before. `parts` messages follow; their
    payloads end to end have `parts_digest` (xxh3-128)."""

    session: int
    base: int
    cut: Cut
    start: Cut | None
    digest: bytes
    utc_ns: int
    parts: int
    parts_digest: bytes

    def encode(self) -> bytes:
        """As a header."""
        start = self.start or Cut(NO_TIMELINE, 0)
        cuts = (self.cut.timeline, self.cut.position, start.timeline, start.position)
        return pack_row(
            (
                int(BaseKind.BEGIN),
                self.session,
                self.base,
                *cuts,
                self.digest,
                self.utc_ns,
                self.parts,
                self.parts_digest,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BasePart:
    """Part `number`, from 0 on, of the state at B; its payload is `encode_part`'s."""

    session: int
    base: int
    number: int

    def encode(self) -> bytes:
        """As a header."""
        return pack_row((int(BaseKind.PART), self.session, self.base, self.number))


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseFrames:
    """One or more frames of X as payload, end to end; at most `FRAME_BYTES_MAX` in all before
    `compression`."""

    session: int
    base: int
    compression: Compression = Compression.NONE

    def encode(self) -> bytes:
        """As a header."""
        return pack_row((int(BaseKind.FRAMES), self.session, self.base, int(self.compression)))


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseEnd:
    """X is complete: it ends at `end` with `digest`."""

    session: int
    base: int
    end: int
    digest: bytes

    def encode(self) -> bytes:
        """As a header."""
        return pack_row((int(BaseKind.END), self.session, self.base, self.end, self.digest))


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseAck:
    """X is here up to `written`, and survives power loss up to `indexed`."""

    session: int
    base: int
    written: int
    indexed: int
    installed: bool

    def encode(self) -> bytes:
        """As a header."""
        fields = (self.base, self.written, self.indexed, self.installed)
        return pack_row((int(BaseKind.ACK), self.session, *fields))


BaseMessage = BaseBegin | BasePart | BaseFrames | BaseEnd | BaseAck


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineRow:
    """A timeline of B's lineage."""

    timeline: int
    parent: int
    fork: int
    generation: int
    writer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRow:
    """A record at or below B: the event `row` at (timeline, position), in the frame at `frame_position`."""

    timeline: int
    position: int
    frame_position: int
    utc_ns: int
    row: Row


def encode_parts(timelines: Iterable[TimelineRow], records: Iterable[RecordRow]) -> list[bytes]:
    """The state at B in parts within their limit, timelines first, parents before children."""
    parts: list[bytes] = []
    rows: list[tuple[object, ...]] = []
    size = 0
    whole = [(t.timeline, t.parent, t.fork, t.generation, t.writer) for t in timelines]
    other = [(r.timeline, r.position, r.frame_position, r.utc_ns, tuple(r.row)) for r in records]
    for row in (*whole, *other):
        packed_bytes = len(pack_row(row))
        if size + packed_bytes > BASE_PART_BYTES_MAX - 16:
            parts.append(pack_row(rows))
            rows, size = [], 0
        rows.append(row)
        size += packed_bytes
    parts.append(pack_row(rows))
    return parts


def parts_digest(parts: Iterable[bytes]) -> bytes:
    """xxh3-128 of parts end to end."""
    digest = xxh3_128()
    for part in parts:
        digest.update(part)
    return digest.digest()


def timelines_in(part: bytes) -> list[TimelineRow]:
    """The timelines of one part; RemoteProtocolError if it is damaged."""
    found = []
    for row in _part_rows(part):
        if type(row[-1]) is str:
            timeline, parent, fork, generation, writer = check_row(row, int, int, int, int, str)
            if not (timeline > 0 and parent >= 0 and 0 <= fork <= POSITION_MAX and generation > 0):
                raise RemoteProtocolError("a timeline of a base is none")
            found.append(
                TimelineRow(timeline=timeline, parent=parent, fork=fork, generation=generation, writer=writer)
            )
    return found


def records_in(part: bytes) -> list[RecordRow]:
    """The records of one part; RemoteProtocolError if it is damaged, or one is not known to this version."""
    found = []
    for row in _part_rows(part):
        if type(row[-1]) is not str:
            timeline, position, frame_position, utc_ns, event = check_row(row, int, int, int, int, tuple)
            if not event or not 0 <= frame_position <= position <= POSITION_MAX or timeline <= 0:
                raise RemoteProtocolError("a record of a base is none")
            record_from_row(event)
            found.append(
                RecordRow(
                    timeline=timeline,
                    position=position,
                    frame_position=frame_position,
                    utc_ns=utc_ns,
                    row=event,
                )
            )
    return found


def _part_rows(part: bytes) -> tuple[tuple[object, ...], ...]:
    rows = unpack_row(part, BASE_PART_BYTES_MAX)
    if any(type(row) is not tuple or len(row) != 5 for row in rows):
        raise RemoteProtocolError("a part of a base holds something else than its rows")
    return rows


def decode_base_message(row: tuple[object, ...], session: int) -> BaseMessage:
    """The message in a header that was unpacked; RemoteProtocolError if it is none."""
    match row[0]:
        case BaseKind.BEGIN:
            return _begin(row, session)
        case BaseKind.PART:
            _, _, base, number = check_row(row, int, int, int, int)
            return BasePart(session=session, base=base, number=number)
        case BaseKind.FRAMES:
            _, _, base, compression = check_row(row, int, int, int, int)
            return BaseFrames(session=session, base=base, compression=_compression(compression))
        case BaseKind.END:
            _, _, base, end, digest = check_row(row, int, int, int, int, bytes)
            return BaseEnd(session=session, base=base, end=_position(end), digest=_digest(digest))
        case BaseKind.ACK:
            _, _, base, written, indexed, installed = check_row(row, int, int, int, int, int, bool)
            written, indexed = _position(written), _position(indexed)
            return BaseAck(session=session, base=base, written=written, indexed=indexed, installed=installed)
        case kind:
            raise RemoteProtocolError(f"message kind {kind!r} is not known to this version")


def _begin(row: tuple[object, ...], session: int) -> BaseBegin:
    _, _, base, cut_timeline, cut, start_timeline, start, digest, utc_ns, parts, parts_digest = check_row(
        row, int, int, int, int, int, int, int, bytes, int, int, bytes
    )
    if not 0 < parts <= BASE_PARTS_MAX or base <= 0 or cut_timeline <= 0 or start_timeline < 0:
        raise RemoteProtocolError("a base begins outside its limits")
    return BaseBegin(
        session=session,
        base=base,
        cut=Cut(cut_timeline, _position(cut)),
        start=Cut(start_timeline, _position(start)) if start_timeline else None,
        digest=_digest(digest),
        utc_ns=utc_ns,
        parts=parts,
        parts_digest=_digest(parts_digest),
    )


def _position(position: int) -> int:
    if not 0 <= position <= POSITION_MAX:
        raise RemoteProtocolError("a position is outside every timeline")
    return position


def _compression(number: int) -> Compression:
    try:
        return Compression(number)
    except ValueError as error:
        raise RemoteProtocolError(f"compression {number} is not known to this version") from error


def _digest(digest: bytes) -> bytes:
    if len(digest) != DIGEST_BYTES:
        raise RemoteProtocolError("a digest has the wrong length")
    return digest
