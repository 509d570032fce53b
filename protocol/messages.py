"""Messages between sites: a msgpack array as header, and for FRAME journal frames as payload.

    primary → secondary                                 secondary → primary
    HELLO      who I am, my lineage, my end             WELCOME   what I have, and the digest there
    FRAME      frames, as they stand in my journal      ACK       cumulative: written and durable here
    HEARTBEAT  my end, my time, the pair's state        REFUSED   why not, with an error code
    MAKE_DURABLE   up to here, a host waits            RESET     this session is over, say HELLO again

Every message carries the session that its HELLO opened; anything of another session is dropped, so that what
a dead connection still delivers changes nothing. Positions acknowledge, messages do not: what one
acknowledgement would have said, the next one says too.

Pure: no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from protocol.errors import RemoteProtocolError
from protocol.frames import DIGEST_BYTES
from protocol.limits import LINEAGE_TIMELINES_MAX
from protocol.rows import check_row, pack_row, unpack_row

WIRE_VERSION = 1


class MessageKind(IntEnum):
    """First element of a header."""

    HELLO = 1
    WELCOME = 2
    FRAME = 3
    ACK = 4
    HEARTBEAT = 5
    REFUSED = 6
    RESET = 7
    MAKE_DURABLE = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Opens a session for a group. `lineage`: the newest timelines up to the head, each
    (timeline, parent, fork, generation)."""

    session: int
    group: str
    group_id: str
    site: str
    lineage: tuple[tuple[int, int, int, int], ...]
    written: int

    def encode(self) -> bytes:
        """As a header."""
        kind, lineage = int(MessageKind.HELLO), list(self.lineage)
        fields = (WIRE_VERSION, self.group, self.group_id, self.site, lineage, self.written)
        return pack_row((kind, self.session, *fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """What the secondary has; timeline 0 if nothing. The digest is that at `written`."""

    session: int
    timeline: int
    written: int
    durable: int
    digest: bytes

    def encode(self) -> bytes:
        """As a header."""
        kind = int(MessageKind.WELCOME)
        return pack_row((kind, self.session, self.timeline, self.written, self.durable, self.digest))


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameMessage:
    """One or more frames follow as payload, end to end; at most `FRAME_BYTES_MAX` in all."""

    session: int

    def encode(self) -> bytes:
        """As a header."""
        return pack_row((int(MessageKind.FRAME), self.session))


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
    """Sent every second: whoever holds everything before `written` is complete up to `utc_ns`."""

    session: int
    timeline: int
    written: int
    utc_ns: int
    state: str

    def encode(self) -> bytes:
        """As a header."""
        kind = int(MessageKind.HEARTBEAT)
        return pack_row((kind, self.session, self.timeline, self.written, self.utc_ns, self.state))


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
class MakeDurable:
    """A host waits until everything before `position` survives power loss there: begin as soon as it is
    written. The next acknowledgement that says so answers."""

    session: int
    position: int

    def encode(self) -> bytes:
        """As a header."""
        return pack_row((int(MessageKind.MAKE_DURABLE), self.session, self.position))


Message = Hello | Welcome | FrameMessage | Ack | Heartbeat | Refused | Reset | MakeDurable


def decode_message(header: bytes | memoryview) -> Message:
    """The message in a header; RemoteProtocolError if it is none."""
    row = unpack_row(header)
    if len(row) < 2 or type(row[0]) is not int or type(row[1]) is not int:
        raise RemoteProtocolError("a message begins with its kind and session")
    session = row[1]
    match row[0]:
        case MessageKind.FRAME:
            check_row(row, int, int)
            return FrameMessage(session=session)
        case MessageKind.ACK:
            _, _, timeline, written, durable = check_row(row, int, int, int, int, int)
            return Ack(session=session, timeline=timeline, written=written, durable=durable)
        case MessageKind.HEARTBEAT:
            _, _, timeline, written, utc_ns, state = check_row(row, int, int, int, int, int, str)
            return Heartbeat(
                session=session,
                timeline=timeline,
                written=written,
                utc_ns=utc_ns,
                state=state,
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
        case kind:
            raise RemoteProtocolError(f"message kind {kind!r} is not known to this version")


def _hello(row: tuple[object, ...], session: int) -> Hello:
    if len(row) < 3 or row[2] != WIRE_VERSION:
        raise RemoteProtocolError(f"the peer speaks another version of this protocol, not {WIRE_VERSION}")
    *_, group, group_id, site, lineage, written = check_row(row, int, int, int, str, str, str, tuple, int)
    if len(lineage) > LINEAGE_TIMELINES_MAX:
        raise RemoteProtocolError("the lineage is longer than any can be")
    for entry in lineage:
        check_row(entry, int, int, int, int)
    return Hello(
        session=session,
        group=group,
        group_id=group_id,
        site=site,
        lineage=lineage,
        written=written,
    )


def _welcome(row: tuple[object, ...], session: int) -> Welcome:
    _, _, timeline, written, durable, digest = check_row(row, int, int, int, int, int, bytes)
    if len(digest) != DIGEST_BYTES:
        raise RemoteProtocolError(f"a digest has {DIGEST_BYTES} bytes")
    return Welcome(session=session, timeline=timeline, written=written, durable=durable, digest=digest)
