"""The site itself: its state, and how a peer comes to trust it."""

from __future__ import annotations

import enum

from msgspec import field

from protocol.bounds import Name
from protocol.commands.base import BaseCommand, Confirm, Query, Reply
from protocol.commands.cut import CutInfo
from protocol.commands.pages import PagedCommand
from protocol.commands.pair import GroupRow
from protocol.commands.peer import PeerInfo
from protocol.roles import OperatorRole


class SiteStatusReply(Reply, frozen=True, kw_only=True):
    """Everything about this site now. `log_dropped`: lines of the log since the start that nobody took.
    `certificate_expires`: that by which hosts on TCP know the site; null if none is in use. `stuck_hooks`:
    those whose thaw failed, so that hosts may still be frozen."""

    site: str
    site_id: str
    version: str
    time: str
    pid: int
    control: str
    replication: str | None
    nbd: list[str]
    peers: list[PeerInfo]
    groups: list[GroupRow]
    log_dropped: int = 0
    certificate_expires: str | None = None
    stuck_hooks: list[str] = field(default_factory=list)


class SiteStatus(PagedCommand[SiteStatusReply], frozen=True, tag="site.status"):
    """The site, its peers and its groups."""


class SiteTokenReply(Reply, frozen=True, kw_only=True):
    """`public_key` in Z85."""

    site: str
    token: str
    site_id: str
    replication: str | None
    public_key: str
    fingerprint: str


class SiteToken(Query[SiteTokenReply], frozen=True, tag="site.token"):
    """What a peer needs to trust this site."""


class SiteRotateKeyReply(Reply, frozen=True, kw_only=True):
    """`in_use`: whether this site goes by the key now; until then its peers are to be given the token."""

    token: str
    fingerprint: str
    in_use: bool


class SiteRotateKey(BaseCommand[SiteRotateKeyReply], frozen=True, tag="site.rotate-key"):
    """Make the key that is to take the place of this site's; `finish`: let it."""

    needs = OperatorRole.ADMIN

    finish: bool = False


class SiteAcceptReply(Reply, frozen=True, kw_only=True):
    """`lost`: what was durable here once; `head`: what is here, null if the group is missing."""

    group: str
    lost: CutInfo
    head: CutInfo | None


class SiteAccept(BaseCommand[SiteAcceptReply], frozen=True, tag="site.accept"):
    """A group is less here than it once was, or missing: go on with what is here, and give the rest up.
    `confirm` is `G`."""

    needs = OperatorRole.ADMIN

    group: Name
    confirm: Confirm = ""


class SiteInitReply(Reply, frozen=True, kw_only=True):
    """The directory of a site that was just made, and its token. `peer`: whom it knows from the start."""

    directory: str
    site: str
    site_id: str
    token: str
    fingerprint: str
    peer: str | None
    peer_fingerprint: str | None


class SiteAdoptReply(Reply, frozen=True, kw_only=True):
    """A directory that belongs to this machine now."""

    directory: str
    site_id: str


class CheckState(enum.Enum):
    """What a part of a site is, before it starts."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class SiteFinding(Reply, frozen=True, kw_only=True):
    """One part of a site that was looked at. `exit_code`: that of the error that a start would end with."""

    check: str
    state: CheckState
    said: str
    next: str | None = None
    exit_code: int = 0


class SiteCheckReply(Reply, frozen=True, kw_only=True):
    """Whether a site could start as it is. `site_name` is null if site.toml cannot be read."""

    directory: str
    site_name: str | None
    findings: tuple[SiteFinding, ...]


class SiteRow(Reply, frozen=True, kw_only=True):
    """A site that is known by a name here. `file` is the sites.toml that says so; `is_default`: it is meant
    where no other is named."""

    name: str
    directory: str | None
    control: str
    file: str
    is_default: bool


class SiteListReply(Reply, frozen=True, kw_only=True):
    """Every site that is known by a name here."""

    sites: tuple[SiteRow, ...]
