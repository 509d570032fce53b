"""Messages between sites: a msgpack array as header, and for FRAME journal frames as payload.

    primary → secondary                                 secondary → primary
    HELLO      who I am, my lineage, my end             WELCOME   what I have, and the digest there
    FRAME      frames, as they stand in my journal      ACK       cumulative: written and durable here
    HEARTBEAT  my end, my time, the pair's state        REFUSED   why not, with an error code
    FETCH      give me your journal from a cut          FETCHED   frames of it; whether that was all
    MAKE_DURABLE   up to here, a host waits             RESET     this session is over, say HELLO again

    either way: CLOCK_TOLD  my time, and which of yours I heard last; only to a site that said it can read it

    either way, in no session:  ASK  what are you to this group?   REPORT  the role, and the journal's end

Those of a base, where the journal does not lead the peer on, are in protocol.base_messages; what the sites
ask each other of a group's past is in protocol.peer_requests.

Every message carries the session that its HELLO opened; anything of another session is dropped, so that what
a dead connection still delivers changes nothing. Positions acknowledge, messages do not: what one
acknowledgement would have said, the next one says too.

A peer is believed no further than these types go (protocol.bounds): what is decoded here is in range. A HELLO
or a question that is not gets its refusal all the same, if it says which session it is of (`refusal_of`).

Pure: no I/O.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Literal

from msgspec import Meta

from protocol.base_messages import (
    BaseAck,
    BaseBegin,
    BaseDigests,
    BaseEnd,
    BaseFrames,
    BaseHoled,
    BaseMessage,
    BasePart,
    BaseSeeds,
    BaseWant,
)
from protocol.bounds import (
    AnyGeneration,
    AnyTimeline,
    Digest,
    Generation,
    GroupId,
    Name,
    Position,
    Session,
    SiteId,
    Text,
    TimelineId,
    UtcNs,
    Word,
)
from protocol.compress import Compression, decompress
from protocol.errors import RemoteProtocolError
from protocol.frames import Buffer
from protocol.limits import CLOCK_TRIP_S_MAX, LINEAGE_TIMELINES_MAX, MESSAGE_HEADER_BYTES_MAX
from protocol.peer_requests import (
    AskNews,
    BlockContents,
    Blocks,
    Changed,
    Changes,
    Find,
    Frames,
    Held,
    Hold,
    Journal,
    News,
    NoAnswer,
    PeerRequestKind,
    PeerRequestMessage,
    Reads,
    Release,
)
from protocol.rows import unpack_row
from protocol.wire import RowType, WireDecoder, WireRow, encode_plain

WIRE_VERSION = 1
BAD_MESSAGE = "bad-message"  # code of a refusal of what cannot be decoded
SUPERSEDED = "superseded"  # code of a REFUSED to a site that ships by an older authority


class MessageKind(IntEnum):
    """First element of a header."""

    HELLO = 1
    WELCOME = 2
    FRAME = 3
    ACK = 4
    HEARTBEAT = 5
    REFUSED = 6
    RESET = 7
    FETCH = 8
    FETCHED = 9
    ASK = 10
    REPORT = 11
    MAKE_DURABLE = 12
    CLOCK_TOLD = 13


# timeline, parent, fork, generation, writer (a site id)
LineageRow = tuple[TimelineId, AnyTimeline, Position, Generation, SiteId]
HeldNs = Annotated[int, Meta(ge=0, le=int(CLOCK_TRIP_S_MAX * 1e9))]
Lineage = Annotated[tuple[LineageRow, ...], Meta(max_length=LINEAGE_TIMELINES_MAX)]


class _Message(WireRow, frozen=True, kw_only=True):
    session: Session


class Hello(_Message, frozen=True, kw_only=True, tag=int(MessageKind.HELLO)):
    """Opens a session for a group, by the site `site` (an id) that writes it. `lineage`: the newest timelines
    up to the head. `adopt`: an operator chose this history; what the other wrote past the fork becomes a
    branch there."""

    version: Literal[1] = 1
    group: Name
    group_id: GroupId
    site: SiteId
    lineage: Lineage
    written: Position
    adopt: bool = False

    @property
    def generation(self) -> int:
        """That of the head; 0 without one."""
        return self.lineage[-1][3] if self.lineage else 0


class Welcome(_Message, frozen=True, kw_only=True, tag=int(MessageKind.WELCOME)):
    """What the secondary has: the newest timelines up to its head (none: it has nothing), its end there, and
    the digest at that end."""

    lineage: Lineage
    written: Position
    durable: Position
    digest: Digest

    @property
    def timeline(self) -> int:
        """The head; 0 if there is none."""
        return self.lineage[-1][0] if self.lineage else 0


class FrameMessage(_Message, frozen=True, kw_only=True, omit_defaults=True, tag=int(MessageKind.FRAME)):
    """One or more frames follow as payload, end to end; at most `FRAME_BYTES_MAX` in all, as they are or
    compressed (protocol.compress): only then the row says how."""

    compression: Compression = Compression.NONE

    def encode(self) -> bytes:
        """The row in front of the payload; shorter by the compression where there is none."""
        row = (int(MessageKind.FRAME), self.session, self.compression)
        return encode_plain(row if self.compression else row[:2])

    def unpacked(self, payload: Buffer) -> Buffer:
        """The frames of a payload. RemoteProtocolError if it is not what the row says."""
        return decompress(payload) if self.compression is Compression.ZSTD else payload


class Ack(_Message, frozen=True, kw_only=True, tag=int(MessageKind.ACK)):
    """Everything before `written` of `timeline` is in the journal here, before `durable` survives power
    loss. Timeline 0: this site lives, and has sent no host away yet."""

    timeline: AnyTimeline
    written: Position
    durable: Position


class Heartbeat(_Message, frozen=True, kw_only=True, tag=int(MessageKind.HEARTBEAT)):
    """Sent every second: whoever holds everything before `written` is complete up to `utc_ns`. `state` and
    `mode` are the pair's. Every cut from `horizon` on can be read at the writer, and may be gone back to."""

    timeline: AnyTimeline
    written: Position
    utc_ns: UtcNs
    state: Word
    mode: Word
    horizon: Position = 0


class Refused(_Message, frozen=True, kw_only=True, tag=int(MessageKind.REFUSED)):
    """The secondary will not take this group, or cannot go on; `code` as in protocol.errors."""

    code: Word
    message: Text


class Reset(_Message, frozen=True, kw_only=True, tag=int(MessageKind.RESET)):
    """The secondary lost the thread: say HELLO again."""

    reason: Text


class Fetch(_Message, frozen=True, kw_only=True, tag=int(MessageKind.FETCH)):
    """Ask for the frames of the secondary's head's lineage from a cut on (timeline 0: from the first one);
    answered by one `Fetched`."""

    timeline: AnyTimeline
    position: Position


class Fetched(_Message, frozen=True, kw_only=True, tag=int(MessageKind.FETCHED)):
    """Frames follow as payload, end to end; at most `FRAME_BYTES_MAX` in all. `done`: these were the last."""

    done: bool


class Ask(_Message, frozen=True, kw_only=True, tag=int(MessageKind.ASK)):
    """What is the other site to this group? `session` is only for the answer to be known by."""

    version: Literal[1] = 1
    group: Name
    group_id: GroupId


class Report(_Message, frozen=True, kw_only=True, tag=int(MessageKind.REPORT)):
    """The answer: the role (empty: the group is not there), and the head with its end."""

    role: Word
    generation: AnyGeneration
    timeline: AnyTimeline
    written: Position
    durable: Position


class MakeDurable(_Message, frozen=True, kw_only=True, tag=int(MessageKind.MAKE_DURABLE)):
    """A host waits until everything before `position` survives power loss there: begin as soon as it is
    written. The next acknowledgement that says so answers."""

    position: Position


class ClockTold(_Message, frozen=True, kw_only=True, tag=int(MessageKind.CLOCK_TOLD)):
    """The sender's clock, the time that it heard last in such a message (0: none), and how long ago that was.
    Sent only to a site that is known to read it (engine.peering.peer_clocks)."""

    utc_ns: UtcNs
    heard_ns: UtcNs
    held_ns: HeldNs


Message = (
    Hello | Welcome | FrameMessage | Ack | Heartbeat | Refused | Reset | Fetch | Fetched | Ask | Report
    | MakeDurable | ClockTold | BaseMessage | PeerRequestMessage
)  # fmt: skip

_messages: WireDecoder[Message] = WireDecoder(
    Hello, Welcome, FrameMessage, Ack, Heartbeat, Refused, Reset, Fetch, Fetched, Ask, Report, MakeDurable,
    ClockTold, BaseBegin, BasePart, BaseFrames, BaseEnd, BaseAck, BaseSeeds, BaseWant, BaseDigests, BaseHoled,
    Hold, Release, Find, Blocks, Changes, Journal, Reads, AskNews,
    Held, BlockContents, Changed, Frames, News, NoAnswer,
)  # fmt: skip
_session: RowType[int] = RowType(Session)

decode_message = _messages.decode
"""The message in a header; RemoteProtocolError if it is none."""


def session_of(header: bytes) -> int:
    """The session that a header names, whatever else it says. RemoteProtocolError if it names none."""
    row = unpack_row(header)
    if len(row) < 2:
        raise RemoteProtocolError("a message names its session")
    return _session.convert(row[1])


def refusal_of(header: bytes, error: RemoteProtocolError) -> bytes | None:
    """What to answer to a header that `decode_message` refused, if it may have been a HELLO or a question,
    and says its session; None otherwise."""
    try:
        row = unpack_row(header[: MESSAGE_HEADER_BYTES_MAX + 1])
        kind, session = row[0], _session.convert(row[1])
    except (RemoteProtocolError, IndexError):
        return None
    if type(kind) is not int:
        return None
    if kind in (MessageKind.HELLO, MessageKind.ASK) and row[2:3] != (WIRE_VERSION,):
        text = f"this site speaks version {WIRE_VERSION} of the protocol"
    else:
        text = str(error)
    if kind == MessageKind.HELLO:
        return Refused(session=session, code=BAD_MESSAGE, message=text).encode()
    if kind == MessageKind.ASK or kind in _PEER_REQUESTS:
        return NoAnswer(session=session, code=BAD_MESSAGE, message=text, position="").encode()
    return None


_PEER_REQUESTS = frozenset(kind for kind in PeerRequestKind if kind < PeerRequestKind.HELD)
