"""Lines of JSON between the daemon and the child that notifies. The first one to the child is a `Setup`."""

from __future__ import annotations

import msgspec

from daemon.notify.config import NotifyConfig
from protocol.commands.event import EventInfo, Level

LINE_BYTES_MAX = 1 << 20


class Setup(msgspec.Struct, frozen=True, kw_only=True, tag="setup"):
    """Who is told, and for which site; again after each change."""

    site: str
    targets: dict[str, NotifyConfig]


class Notice(msgspec.Struct, frozen=True, kw_only=True, tag="event"):
    """An event; `weight`: the level by which it is chosen, which one that is over keeps."""

    event: EventInfo
    weight: Level


class Alive(msgspec.Struct, frozen=True, kw_only=True, tag="alive"):
    """The daemon's loop runs; `well`: nothing that a person must look at stands."""

    well: bool


class Try(msgspec.Struct, frozen=True, kw_only=True, tag="try"):
    """Send a test now, by one target."""

    id: int
    name: str
    event: EventInfo


class Report(msgspec.Struct, frozen=True, kw_only=True, tag="report"):
    """How a target does, after each change. `dropped`: given up, or pushed out of a full queue."""

    name: str
    sent: int
    dropped: int
    queued: int
    error: str


class Tried(msgspec.Struct, frozen=True, kw_only=True, tag="tried"):
    """The answer to `Try`; `error` is empty if it was sent."""

    id: int
    error: str
    took_s: float


ToChild = Setup | Notice | Alive | Try
FromChild = Report | Tried
_to_child: msgspec.json.Decoder[ToChild] = msgspec.json.Decoder(ToChild)
_from_child: msgspec.json.Decoder[FromChild] = msgspec.json.Decoder(FromChild)


def encode(message: ToChild | FromChild) -> bytes:
    """A line."""
    return msgspec.json.encode(message) + b"\n"


def decode_order(line: bytes) -> ToChild:
    """msgspec.MsgspecError if it is none."""
    return _to_child.decode(line)


def decode_report(line: bytes) -> FromChild:
    """msgspec.MsgspecError if it is none."""
    return _from_child.decode(line)
