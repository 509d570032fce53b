"""Messages between sites: a msgpack array as header, and for FRAME journal frames as payload.

    primary → secondary                                 secondary → primary
    HELLO      who I am, my lineage, my end             WELCOME   what I have, and the digest there
    FRAME      frames, as they stand in my journal      ACK       cumulative: written and durable here
    HEARTBEAT  my end, my time, the pair's state        REFUSED   why not, with an error code
    FETCH      give me your journal from a cut          FETCHED   frames of it; whether that was all
    MAKE_DURABLE   up to here, a host waits             RESET     this session is over, say HELLO again

    either way, in no session:  ASK  what are you to this group?   REPORT  the role, and the journal's end

Those of a base, where the journal does not lead the peer on, are in protocol.base_messages; what the sites
ask each other of a group's past is in protocol.question_messages.

Every message carries the session that its HELLO opened; anything of another session is dropped, so that what
a dead connection still delivers changes nothing. Positions acknowledge, messages do not: what one
acknowledgement would have said, the next one says too.

Pure: no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import cast

from protocol.base_messages import BaseKind, BaseMessage, decode_base_message
from protocol.compress import Compression
from protocol.errors import RemoteProtocolError
from protocol.events import Row
from protocol.frames import DIGEST_BYTES
from protocol.limits import LINEAGE_TIMELINES_MAX
from protocol.question_messages import QuestionKind, QuestionMessage, decode_question_message
from protocol.rows import check_row, pack_row, unpack_row

WIRE_VERSION = 1
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


LineageRow = tuple[int, int, int, int, str]  # timeline, parent, fork, generation, writer (a site id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Opens a session for a group, by the site `site` (an id) that writes it. `lineage`: the newest timelines
    up to the head. `adopt`: an operator chose this history; what the other wrote past the fork becomes a
    branch there."""

    session: int
    group: str
    group_id: str
    site: str
    lineage: tuple[LineageRow, ...]
    written: int
    adopt: bool = False

    @property
    def generation(self) -> int:
        """That of the head; 0 without one."""
        return self.lineage[-1][3] if self.lineage else 0

    def encode(self) -> bytes:
        """As a header."""
        kind, lineage = int(MessageKind.HELLO), list(self.lineage)
        fields = (WIRE_VERSION, self.group, self.group_id, self.site, lineage, self.written, self.adopt)
        return pack_row((kind, self.session, *fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """What the secondary has: the newest timelines up to its head (none: it has nothing), its end there, and
    the digest at that end."""

    session: int
    lineage: tuple[LineageRow, ...]
    written: int
    durable: int
    digest: bytes

    @property
    def timeline(self) -> int:
        """The head; 0 if there is none."""
        return self.lineage[-1][0] if self.lineage else 0

    def encode(self) -> bytes:
        """As a header."""
        kind, lineage = int(MessageKind.WELCOME), list(self.lineage)
        return pack_row((kind, self.session, lineage, self.written, self.durable, self.digest))


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameMessage:
    """One or more frames follow as payload, end to end; at most `FRAME_BYTES_MAX` in all, as they are or
    compressed (protocol.compress)."""

    session: int
    compression: Compression = Compression.NONE

    def encode(self) -> bytes:
        """As a header."""
        row = (int(MessageKind.FRAME), self.session, int(self.compression))
        return pack_row(row if self.compression else row[:2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """Everything before `written` of `timeline` is in the journal here, before `durable` survives power
    loss."""

    session: int
    timeline: int
    written: int
    durable: int

    def encode(self) -> bytes:
        """As a header."""
        return pack_row((int(MessageKind.ACK), self.session, self.timeline, self.written, self.durable))


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Sent every second: whoever holds everything before `written` is complete up to `utc_ns`. `state` and
    `mode` are the pair's. Every cut from `floor` on can be read at the writer, and may be gone back to."""

    session: int
    timeline: int
    written: int
    utc_ns: int
    state: str
    mode: str
    floor: int = 0

    def encode(self) -> bytes:
        """As a header."""
        kind = int(MessageKind.HEARTBEAT)
        fields = (self.timeline, self.written, self.utc_ns, self.state, self.mode, self.floor)
        return pack_row((kind, self.session, *fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The secondary will not take this group, or cannot go on; `code` as in protocol.errors."""

    session: int
    code: str
    message: str

    def encode(self) -> bytes:
        """As a header."""
        return pack_row((int(MessageKind.REFUSED), self.session, self.code, self.message))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """The secondary lost the thread: say HELLO again."""

    session: int
    reason: str

    def encode(self) -> bytes:
        """As a header."""
        return pack_row((int(MessageKind.RESET), self.session, self.reason))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Ask for the frames of the secondary's head's lineage from a cut on; answered by one `Fetched`."""

    session: int
    timeline: int
    position: int

    def encode(self) -> bytes:
        """As a header."""
        return pack_row((int(MessageKind.FETCH), self.session, self.timeline, self.position))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Frames follow as payload, end to end; at most `FRAME_BYTES_MAX` in all. `done`: these were the last."""

    session: int
    done: bool

    def encode(self) -> bytes:
        """As a header."""
        return pack_row((int(MessageKind.FETCHED), self.session, self.done))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What is the other site to this group? `session` is only for the answer to be known by."""

    session: int
    group: str
    group_id: str

    def encode(self) -> bytes:
        """As a header."""
        return pack_row((int(MessageKind.ASK), self.session, WIRE_VERSION, self.group, self.group_id))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The answer: the role (empty: the group is not there), and the head with its end."""

    session: int
    role: str
    generation: int
    timeline: int
    written: int
    durable: int

    def encode(self) -> bytes:
        """As a header."""
        fields = (self.role, self.generation, self.timeline, self.written, self.durable)
        return pack_row((int(MessageKind.REPORT), self.session, *fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeDurable:
    """A host waits until everything before `position` survives power loss there: begin as soon as it is
    written. The next acknowledgement that says so answers."""

    session: int
    position: int

    def encode(self) -> bytes:
        """As a header."""
        return pack_row((int(MessageKind.MAKE_DURABLE), self.session, self.position))


Message = (
    Hello | Welcome | FrameMessage | Ack | Heartbeat | Refused | Reset | Fetch | Fetched | Ask | Report
    | MakeDurable | BaseMessage | QuestionMessage
)  # fmt: skip


def decode_message(header: bytes | memoryview) -> Message:
    """The message in a header; RemoteProtocolError if it is none."""
    row = unpack_row(header)
    if len(row) < 2 or type(row[0]) is not int or type(row[1]) is not int:
        raise RemoteProtocolError("a message begins with its kind and session")
    session = row[1]
    match row[0]:
        case MessageKind.FRAME:
            return FrameMessage(session=session, compression=compression_in(row, 2))
        case MessageKind.ACK:
            _, _, timeline, written, durable = check_row(row, int, int, int, int, int)
            return Ack(session=session, timeline=timeline, written=written, durable=durable)
        case MessageKind.HEARTBEAT:
            types = (int, int, int, int, int, str, str, int)
            _, _, timeline, written, utc_ns, state, mode, floor = check_row(row, *types)
            return Heartbeat(
                session=session,
                timeline=timeline,
                written=written,
                utc_ns=utc_ns,
                state=state,
                mode=mode,
                floor=floor,
            )
        case MessageKind.HELLO:
            return _hello(row, session)
        case MessageKind.WELCOME:
            return _welcome(row, session)
        case MessageKind.REFUSED:
            _, _, code, message = check_row(row, int, int, str, str)
            return Refused(session=session, code=code, message=message)
        case MessageKind.MAKE_DURABLE:
            _, _, position = check_row(row, int, int, int)
            return MakeDurable(session=session, position=position)
        case MessageKind.RESET:
            _, _, reason = check_row(row, int, int, str)
            return Reset(session=session, reason=reason)
        case MessageKind.FETCH:
            _, _, timeline, position = check_row(row, int, int, int, int)
            return Fetch(session=session, timeline=timeline, position=position)
        case MessageKind.FETCHED:
            _, _, done = check_row(row, int, int, bool)
            return Fetched(session=session, done=done)
        case MessageKind.ASK:
            _check_version(row)
            _, _, _, group, group_id = check_row(row, int, int, int, str, str)
            return Ask(session=session, group=group, group_id=group_id)
        case MessageKind.REPORT:
            return _report(row, session)
        case kind if kind >= QuestionKind.HOLD:
            return decode_question_message(row, session)
        case kind if kind >= BaseKind.BEGIN:
            return decode_base_message(row, session)
        case kind:
            raise RemoteProtocolError(f"message kind {kind!r} is not known to this version")


def compression_in(row: tuple[object, ...], at: int) -> Compression:
    """How a message's payload travels: the row's last element, at index `at`, or NONE without one."""
    if len(row) <= at:
        return Compression.NONE
    check_row(row, *[int] * (at + 1))
    try:
        return Compression(cast(int, row[at]))
    except ValueError as error:
        raise RemoteProtocolError(f"compression {row[at]!r} is not known to this version") from error


def _hello(row: tuple[object, ...], session: int) -> Hello:
    _check_version(row)
    *_, group, group_id, site, lineage, written, adopt = check_row(
        row, int, int, int, str, str, str, tuple, int, bool
    )
    return Hello(
        session=session,
        group=group,
        group_id=group_id,
        site=site,
        lineage=_lineage(lineage),
        written=written,
        adopt=adopt,
    )


def _check_version(row: tuple[object, ...]) -> None:
    if len(row) < 3 or row[2] != WIRE_VERSION:
        raise RemoteProtocolError(f"the peer speaks another version of this protocol, not {WIRE_VERSION}")


def _lineage(rows: tuple[Row, ...]) -> tuple[LineageRow, ...]:
    if len(rows) > LINEAGE_TIMELINES_MAX:
        raise RemoteProtocolError("the lineage is longer than any can be")
    found = []
    for entry in rows:
        timeline, parent, fork, generation, writer = check_row(entry, int, int, int, int, str)
        found.append((timeline, parent, fork, generation, writer))
    return tuple(found)


def _report(row: tuple[object, ...], session: int) -> Report:
    _, _, role, generation, timeline, written, durable = check_row(row, int, int, str, int, int, int, int)
    return Report(
        session=session,
        role=role,
        generation=generation,
        timeline=timeline,
        written=written,
        durable=durable,
    )


def _welcome(row: tuple[object, ...], session: int) -> Welcome:
    _, _, lineage, written, durable, digest = check_row(row, int, int, tuple, int, int, bytes)
    if len(digest) != DIGEST_BYTES:
        raise RemoteProtocolError(f"a digest has {DIGEST_BYTES} bytes")
    return Welcome(
        session=session, lineage=_lineage(lineage), written=written, durable=durable, digest=digest
    )
