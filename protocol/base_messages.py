"""Messages that carry a base (engine.history.bases): what a site needs to go on from a cut that the journal
does not lead it to.

    source → target                                      target → source
    BASE_BEGIN    the cuts A and B, X, how many parts    BASE_ACK    X is here up to `written`, indexed up to
    BASE_PART     timelines and records up to B                      `indexed`; installed or not
    BASE_FRAMES   frames of X, end to end
    BASE_END      where X ends, and its digest there
    BASE_WANT     digests of a seed, from a chunk    BASE_SEEDS    which volumes the target has a seed of
                  on                                 BASE_DIGESTS  digests of a seed's chunks
    BASE_HOLED    a frame of X without the bytes
                  that a seed has

BEGIN and the parts open each session of a base; the target's first acknowledgement says from where on X is to
be sent. Frames of X are those of a timeline like any other: the target stores them as they are.

A seed (protocol.seeds) spares the link what the target has: SEEDS comes before the first acknowledgement of a
session, and only to a source whose heartbeat said in this session that it reads them (`READS_SEEDS`). Seeds
are then called by their numbers in it. A frame that came with holes (protocol.base_holes) is, once they are
filled, one like any other.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Annotated

import msgspec
from msgspec import Meta
from xxhash import xxh3_128

from protocol.bounds import (
    AnyTimeline,
    Digest,
    FrameUtcNs,
    Generation,
    Name,
    Position,
    Session,
    SiteId,
    TimelineId,
)
from protocol.compress import Compression
from protocol.errors import RemoteProtocolError
from protocol.events import Row, record_from_row
from protocol.limits import (
    BASE_PART_BYTES_MAX,
    BASE_PARTS_MAX,
    FRAME_BYTES_MAX,
    VOLUME_BYTES_MAX,
    VOLUMES_PER_GROUP_MAX,
)
from protocol.positions import Cut
from protocol.rows import pack_row, unpack_row
from protocol.seed_limits import SEED_CHUNKS_MAX, SEED_DIGESTS_TOLD_MAX, SEED_HOLES_MAX
from protocol.wire import RowType, WireRow


class BaseKind(IntEnum):
    """First element of a header; the other kinds are in protocol.messages."""

    BEGIN = 20
    PART = 21
    FRAMES = 22
    END = 23
    ACK = 24
    SEEDS = 25
    WANT = 26
    DIGESTS = 27
    HOLED = 28


# The mode of a heartbeat that says: this source reads what a target says of its seeds. A site of an earlier
# version keeps the mode that it knows, and is never sent what it could not read.
READS_SEEDS = "seeds"

SeedNumber = Annotated[int, Meta(ge=0, lt=VOLUMES_PER_GROUP_MAX)]
SeedWindow = Annotated[int, Meta(ge=0, lt=SEED_CHUNKS_MAX, multiple_of=SEED_DIGESTS_TOLD_MAX)]
HolePlace = Annotated[int, Meta(ge=0, lt=FRAME_BYTES_MAX)]
HoleLength = Annotated[int, Meta(ge=1, le=FRAME_BYTES_MAX)]
SeedPlace = Annotated[int, Meta(ge=0, lt=VOLUME_BYTES_MAX)]
# offset in the frame, bytes, the seed's number, offset there
Hole = tuple[HolePlace, HoleLength, SeedNumber, SeedPlace]


class _BaseMessage(WireRow, frozen=True, kw_only=True):
    session: Session
    base: TimelineId


class BaseBegin(_BaseMessage, frozen=True, kw_only=True, tag=int(BaseKind.BEGIN)):
    """A base at `cut` on top of `start` (None: on nothing) begins, or goes on. `digest` is what the next
    frame at the cut continues, `utc_ns` the time of the one before. `parts` messages follow; their
    payloads end to end have `parts_digest` (xxh3-128)."""

    cut: Cut
    start: Cut | None
    digest: Digest
    utc_ns: FrameUtcNs
    parts: Annotated[int, Meta(ge=1, le=BASE_PARTS_MAX)]
    parts_digest: Digest


class BasePart(_BaseMessage, frozen=True, kw_only=True, tag=int(BaseKind.PART)):
    """Part `number`, from 0 on, of the state at B; its payload is `encode_part`'s."""

    number: Annotated[int, Meta(ge=0, lt=BASE_PARTS_MAX)]


class BaseFrames(_BaseMessage, frozen=True, kw_only=True, tag=int(BaseKind.FRAMES)):
    """One or more frames of X as payload, end to end; at most `FRAME_BYTES_MAX` in all before
    `compression`."""

    compression: Compression = Compression.NONE


class BaseEnd(_BaseMessage, frozen=True, kw_only=True, tag=int(BaseKind.END)):
    """X is complete: it ends at `end` with `digest`."""

    end: Position
    digest: Digest


class BaseAck(_BaseMessage, frozen=True, kw_only=True, tag=int(BaseKind.ACK)):
    """X is here up to `written`, and survives power loss up to `indexed`."""

    written: Position
    indexed: Position
    installed: bool


class BaseSeeds(_BaseMessage, frozen=True, kw_only=True, tag=int(BaseKind.SEEDS)):
    """The target has a seed of each of these volumes: its name, and how many chunks its seed has."""

    seeds: Annotated[
        tuple[tuple[Name, Annotated[int, Meta(ge=1, le=SEED_CHUNKS_MAX)]], ...],
        Meta(max_length=VOLUMES_PER_GROUP_MAX),
    ]


class BaseWant(_BaseMessage, frozen=True, kw_only=True, tag=int(BaseKind.WANT)):
    """Tell the digests of a seed from `chunk` on, a multiple of `SEED_DIGESTS_TOLD_MAX`; of one seed in this
    order, each once a session."""

    seed: SeedNumber
    chunk: SeedWindow


class BaseDigests(_BaseMessage, frozen=True, kw_only=True, tag=int(BaseKind.DIGESTS)):
    """The answer: its payload has the digests end to end, `SEED_DIGESTS_TOLD_MAX` or to the seed's end;
    16 zero bytes for a chunk that the seed lacks."""

    seed: SeedNumber
    chunk: SeedWindow


class BaseHoled(_BaseMessage, frozen=True, kw_only=True, tag=int(BaseKind.HOLED)):
    """One frame of X, which has `frame_bytes`; its payload is the frame without its holes, end to end, before
    `compression`."""

    compression: Compression
    frame_bytes: Annotated[int, Meta(ge=1, le=FRAME_BYTES_MAX)]
    holes: Annotated[tuple[Hole, ...], Meta(min_length=1, max_length=SEED_HOLES_MAX)]


FromSource = BaseBegin | BasePart | BaseFrames | BaseEnd | BaseWant | BaseHoled
FromTarget = BaseAck | BaseSeeds | BaseDigests
BaseMessage = (
    BaseBegin | BasePart | BaseFrames | BaseEnd | BaseAck | BaseSeeds | BaseWant | BaseDigests | BaseHoled
)


class TimelineRow(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """A timeline of B's lineage."""

    timeline: TimelineId
    parent: AnyTimeline
    fork: Position
    generation: Generation
    writer: SiteId


class RecordRow(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """A record at or below B: the event `row` at (timeline, position), in the frame at `frame_position`."""

    timeline: TimelineId
    position: Position
    frame_position: Position
    utc_ns: FrameUtcNs
    row: Row


_timeline: RowType[TimelineRow] = RowType(TimelineRow)
_record: RowType[RecordRow] = RowType(RecordRow)


def encode_parts(timelines: Iterable[TimelineRow], records: Iterable[RecordRow]) -> list[bytes]:
    """The state at B in parts within their limit, timelines first, parents before children."""
    parts: list[bytes] = []
    rows: list[TimelineRow | RecordRow] = []
    size = 0
    whole: list[TimelineRow | RecordRow] = [*timelines, *records]
    for row in whole:
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
    return [_timeline.convert(row) for row in _part_rows(part) if type(row[-1]) is str]


def records_in(part: bytes) -> list[RecordRow]:
    """The records of one part; RemoteProtocolError if it is damaged, or one is not known to this version."""
    found = []
    for row in _part_rows(part):
        if type(row[-1]) is str:
            continue
        record = _record.convert(row)
        if record.frame_position > record.position:
            raise RemoteProtocolError("a record of a base stands before its frame")
        found.append(msgspec.structs.replace(record, row=record_from_row(record.row).to_row()))
    return found


def _part_rows(part: bytes) -> tuple[tuple[object, ...], ...]:
    rows = unpack_row(part, BASE_PART_BYTES_MAX)
    if any(type(row) is not tuple or len(row) != 5 for row in rows):
        raise RemoteProtocolError("a part of a base holds something else than its rows")
    return rows
