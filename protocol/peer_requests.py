"""Questions about a group that one site of a pair puts to the other, and their answers.

    HOLD       keep this cut readable for so long          HELD      it is kept; the cut
    RELEASE    it is no longer needed
    FIND       which cut was the newest at this time?
    BLOCKS     these blocks of a volume at a cut           CONTENT   their bytes
    CHANGES    which blocks differ between two cuts?       CHANGED   some of them, and where to ask on
    JOURNAL    frames of a timeline                        FRAMES    as many as one message takes
    NEWS       what has happened at that site?             TOLD      its events since it was asked last
    READS      does that site understand this record?      HELD      it does; no cut
                                                           NO_ANSWER why not, as an operator's error

They go over a connection of their own, in no session of the replication: either site may ask, whichever
writes, also while the pair is split. Each says by itself which group it is about; `session` is a random
number, only for the answer to be known by.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated, Literal

from msgspec import Meta

from protocol.bounds import (
    Block,
    BlockEnd,
    Count,
    GroupId,
    LeaseName,
    Name,
    NameOrNone,
    Position,
    Session,
    Text,
    TimelineId,
    UtcNs,
    VolumeId,
    Word,
    check_lease_name,
)
from protocol.compress import Compression
from protocol.errors import RemoteProtocolError
from protocol.limits import (
    LEASE_S_MAX,
    NEWS_BYTES_MAX,
    NEWS_FIELDS_MAX,
    NEWS_ROWS_MAX,
    NEWS_TEXT_CHARS_MAX,
    PEER_REQUEST_BLOCKS_MAX,
)
from protocol.positions import POSITION_MAX, Cut
from protocol.wire import AnyCut, RowType, WireRow, encode_plain


class PeerRequestKind(IntEnum):
    """First element of a header; the other kinds are in protocol.messages."""

    HOLD = 40
    RELEASE = 41
    FIND = 42
    BLOCKS = 43
    CHANGES = 44
    JOURNAL = 45
    NEWS = 47
    READS = 48
    HELD = 50
    CONTENT = 51
    CHANGED = 52
    FRAMES = 53
    NO_ANSWER = 54
    TOLD = 57


class Content(IntEnum):
    """What an answer holds of one block."""

    ZEROES = 0
    BYTES = 1
    DAMAGED = 2


# What READS asks for: a cron line in a `PolicySet`, and the zone of its keep rules; volumes of any size, that
# change it and their names; volumes that were turned back more often, one restore upon the other, than
# earlier versions look into.
CRON_LINES = "cron-lines"
KEEP_ZONES = "keep-zones"
VOLUME_CHANGES = "volume-changes"
MANY_REVERTS = "many-reverts"
READABLE = frozenset({CRON_LINES, KEEP_ZONES, VOLUME_CHANGES, MANY_REVERTS})
NewsText = Annotated[str, Meta(max_length=NEWS_TEXT_CHARS_MAX)]
AnyRun = Annotated[int, Meta(ge=0, le=POSITION_MAX)]
_CONTENTS = frozenset(map(int, Content))


class _PeerRequest(WireRow, frozen=True, kw_only=True):
    session: Session
    version: Literal[1] = 1
    group: Name
    group_id: GroupId


class Hold(_PeerRequest, frozen=True, kw_only=True, tag=int(PeerRequestKind.HOLD)):
    """Keep `cut` readable for `for_s` seconds under a name, in place of what the asking site held so."""

    name: LeaseName
    cut: Cut
    for_s: Annotated[int, Meta(ge=1, le=LEASE_S_MAX)]

    def __post_init__(self) -> None:
        check_lease_name(self.name)


class Release(_PeerRequest, frozen=True, kw_only=True, tag=int(PeerRequestKind.RELEASE)):
    """Let go of what is held under a name; one that is not held is fine."""

    name: LeaseName

    def __post_init__(self) -> None:
        check_lease_name(self.name)


class Find(_PeerRequest, frozen=True, kw_only=True, tag=int(PeerRequestKind.FIND)):
    """The end of the last frame written at or before a time."""

    utc_ns: UtcNs


class Blocks(_PeerRequest, frozen=True, kw_only=True, tag=int(PeerRequestKind.BLOCKS)):
    """Contents of at most `PEER_REQUEST_BLOCKS_MAX` blocks of a volume (id) at a cut."""

    volume: VolumeId
    cut: Cut
    blocks: Annotated[tuple[Block, ...], Meta(max_length=PEER_REQUEST_BLOCKS_MAX)]


class Changes(_PeerRequest, frozen=True, kw_only=True, tag=int(PeerRequestKind.CHANGES)):
    """Blocks of a volume (id) from `first` on that may differ between two cuts."""

    volume: VolumeId
    before: Cut
    after: Cut
    first: BlockEnd


class Journal(_PeerRequest, frozen=True, kw_only=True, tag=int(PeerRequestKind.JOURNAL)):
    """Frames of a timeline from the boundary `start` up to `end`."""

    timeline: TimelineId
    start: Position
    end: Position


class Reads(_PeerRequest, frozen=True, kw_only=True, tag=int(PeerRequestKind.READS)):
    """Whether that site understands a form of record that earlier versions refuse. One of those says that
    the question is no message."""

    what: Word


class AskNews(_PeerRequest, frozen=True, kw_only=True, tag=int(PeerRequestKind.NEWS)):
    """Events of that site with a number above `since`, of its start `run` (0: none was heard yet). About all
    groups that the two share; `group` is one of them."""

    run: AnyRun
    since: Count


PeerRequest = Hold | Release | Find | Blocks | Changes | Journal | Reads


class _Answer(WireRow, frozen=True, kw_only=True):
    session: Session


class Held(_Answer, frozen=True, kw_only=True, tag=int(PeerRequestKind.HELD)):
    """Done: `cut` is held or was found (timeline 0: nothing to name)."""

    cut: AnyCut


class BlockContents(_Answer, frozen=True, kw_only=True, tag=int(PeerRequestKind.CONTENT)):
    """One `Content` for each block asked for, in order; the payload has the bytes of those with BYTES, end
    to end."""

    contents: Annotated[bytes, Meta(max_length=PEER_REQUEST_BLOCKS_MAX)]
    compression: Compression = Compression.NONE

    def __post_init__(self) -> None:
        if not set(self.contents) <= _CONTENTS:
            raise ValueError("contents of blocks are named in a way not known to this version")


class Changed(_Answer, frozen=True, kw_only=True, tag=int(PeerRequestKind.CHANGED)):
    """The payload is an array of runs, `[first, blocks, first, blocks, …]`, ascending. Every block before
    `next_block` was looked at; `done`: that was all."""

    next_block: BlockEnd
    done: bool
    compression: Compression = Compression.NONE


class Frames(_Answer, frozen=True, kw_only=True, tag=int(PeerRequestKind.FRAMES)):
    """Frames follow as payload, end to end, at most `FRAME_BYTES_MAX` in all; at least one."""

    compression: Compression = Compression.NONE


class NoAnswer(_Answer, frozen=True, kw_only=True, tag=int(PeerRequestKind.NO_ANSWER)):
    """Why there is none; `code` as in protocol.errors."""

    code: Word
    message: Text
    position: Text


class News(_Answer, frozen=True, kw_only=True, tag=int(PeerRequestKind.TOLD)):
    """The payload is an array of events, `NewsRow`; `next`: `since` of the next question."""

    run: Annotated[int, Meta(ge=1, le=POSITION_MAX)]
    next: Count


# Time, kind, group or nothing, object, position, and the other fields.
NewsRow = tuple[
    NewsText, Word, NameOrNone, NewsText, NewsText,
    tuple[tuple[Word, NewsText | int | float | bool | None], ...],
]  # fmt: skip
_NEWS = RowType(tuple[NewsRow, ...])


def news_payload(rows: Sequence[NewsRow]) -> bytes:
    """Events as an answer has them."""
    return encode_plain(tuple(rows))


def read_news(payload: bytes) -> tuple[NewsRow, ...]:
    """RemoteProtocolError if it breaks a bound."""
    rows = _NEWS.decode(payload, NEWS_BYTES_MAX)
    if len(rows) > NEWS_ROWS_MAX or any(len(row[-1]) > NEWS_FIELDS_MAX for row in rows):
        raise RemoteProtocolError("too much news at once")
    return rows


Answer = Held | BlockContents | Changed | Frames | News | NoAnswer
PeerRequestMessage = PeerRequest | AskNews | Answer
