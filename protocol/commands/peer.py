"""Peers: the other sites that this one knows."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, field

from protocol.bounds import Name, ZoneName
from protocol.commands.base import TOKEN_CHARS_MAX, BaseCommand, Compress, Query, Reply
from protocol.endpoints import ENDPOINT_CHARS_MAX
from protocol.limits import RATE_BYTES_S_MAX
from protocol.roles import OperatorRole

Token = Annotated[str, Meta(min_length=1, max_length=TOKEN_CHARS_MAX)]


_MinuteOfDay = Annotated[int, Meta(ge=0, lt=1440)]
DAY_NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_Day = Annotated[int, Meta(ge=0, lt=len(DAY_NAMES))]


class RateWindow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Between two minutes of the day in a time zone, over midnight where the second is not after the first, a
    rate in place of the peer's; 0: none. `days`: on which it begins, ascending, 0 for Monday; none: on each.
    That is left out where there is nothing to say, as earlier versions refuse it."""

    from_minute: _MinuteOfDay
    until_minute: _MinuteOfDay
    zone: ZoneName
    rate_bytes_s: Annotated[int, Meta(ge=0, le=RATE_BYTES_S_MAX)]
    days: Annotated[tuple[_Day, ...], Meta(max_length=len(DAY_NAMES))] = ()


class RateWindowInfo(Reply, frozen=True, kw_only=True):
    """A window as people write it: `between` as `22:00-06:00`, `days` on which it begins as `mon-fri`; empty:
    on each."""

    between: str
    zone: str
    rate_bytes_s: int
    days: str = ""


class PeerInfo(Reply, frozen=True, kw_only=True):
    """A peer. `heard_s`: the age of its last message. A rate of 0 is none. `clock_skew_s`: by how much its
    clock is ahead of this site's, to within `clock_skew_within_s`. `next_fingerprint`: of the key that is to
    take the place of its present one, until the peer uses it. `rate_now_bytes_s` holds until `rate_until`, as
    `windows` say: the slowest of those that hold, in place of `rate_bytes_s`."""

    peer: str
    endpoint: str | None
    fingerprint: str
    connected: bool
    heard_s: float | None
    groups: list[str]
    rate_bytes_s: int
    compress: Compress
    clock_skew_s: float | None = None
    clock_skew_within_s: float | None = None
    next_fingerprint: str | None = None
    windows: list[RateWindowInfo] = field(default_factory=list)
    rate_now_bytes_s: int = 0
    rate_until: str | None = None


class PeerAddReply(Reply, frozen=True, kw_only=True):
    """`added`: whether it was not known before."""

    peer: str
    endpoint: str | None
    fingerprint: str
    added: bool


class PeerAdd(BaseCommand[PeerAddReply], frozen=True, tag="peer.add"):
    """Trust a peer by its token."""

    needs = OperatorRole.ADMIN

    token: Token


class PeerListReply(Reply, frozen=True, kw_only=True):
    """By name."""

    peers: list[PeerInfo]


class PeerList(Query[PeerListReply], frozen=True, tag="peer.list"):
    """Every peer."""


class PeerSet(BaseCommand[PeerInfo], frozen=True, tag="peer.set"):
    """How to send to a peer, and where; null leaves as it is, a rate of 0 is none. A `window` is added, or
    takes the place of the one of the same times, days and zone; `drop_windows` takes all away before."""

    needs = OperatorRole.ADMIN

    peer: Name
    rate_bytes_s: Annotated[int, Meta(ge=0, le=RATE_BYTES_S_MAX)] | None = None
    compress: Compress | None = None
    endpoint: Annotated[str, Meta(min_length=1, max_length=ENDPOINT_CHARS_MAX)] | None = None
    window: RateWindow | None = None
    drop_windows: bool = False


class PeerReplace(BaseCommand[PeerInfo], frozen=True, tag="peer.replace"):
    """Let the site of a token take the place of a peer that is gone, under that name. Refused while the old
    one is connected."""

    needs = OperatorRole.ADMIN

    peer: Name
    token: Token


class PeerRotateKey(BaseCommand[PeerInfo], frozen=True, tag="peer.rotate-key"):
    """Take a peer by the key of its next token too, until it uses that; then by no other."""

    needs = OperatorRole.ADMIN

    peer: Name
    token: Token


class PeerRename(BaseCommand[PeerInfo], frozen=True, tag="peer.rename"):
    """Call a peer by another name at this site, in its pairs too."""

    needs = OperatorRole.ADMIN

    peer: Name
    new: Name


class PeerRemoveReply(Reply, frozen=True, kw_only=True):
    """No peer of this site any more."""

    peer: str
    fingerprint: str


class PeerRemove(BaseCommand[PeerRemoveReply], frozen=True, tag="peer.remove"):
    """Trust a peer no longer. Refused while a pair is with it."""

    needs = OperatorRole.ADMIN

    peer: Name
