"""Pairs: a group at two sites, and how its replication stands."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType, field

from protocol.bounds import Name
from protocol.commands.backup import BackupInfo
from protocol.commands.base import BaseCommand, Confirm, PairMode, Query, Reply, ResyncSource, WaitSeconds
from protocol.commands.cut import CutInfo
from protocol.commands.drill import DrillSummary
from protocol.cut_text import CutPosition
from protocol.limits import NAME_CHARS_MAX
from protocol.roles import OperatorRole


class Head(Reply, frozen=True, kw_only=True):
    """Where a group's journal ends at this site."""

    timeline: str
    position: int


class LockInfo(Reply, frozen=True, kw_only=True):
    """What this site's retention lock holds: every moment after `start` (null: from the beginning), and so
    many backups, the last of them until `until`."""

    window_s: float
    start: CutInfo | None = field(name="from")
    backups: int
    until: str | None


class GroupInfo(Reply, frozen=True, kw_only=True):
    """A group at this site. `state` and `code` are the pair's, in words and as the field abbreviates them.
    `fallen_back`: the mode is not in force, the peer may lack what hosts were told is written. `direction`
    is `lon→par`. `written` and the following are positions on the head. `resync_*` while copying.
    `time_to_full_s` of the journal, from the pressure "warning" on. `fetching`: takes the peer's history in.
    `damaged`: places known; `oldest_check`: all of it was compared since, by `verify --deep`.
    `times_ahead_s`: by how much the journal's times are ahead of this site's clock, if they are."""

    group: str
    role: Literal["primary", "secondary", "detached"] | None
    state: str
    code: str
    mode: PairMode | None
    fallen_back: bool
    peer: str | None
    direction: str | None
    head: Head | None
    written: int | None
    durable: int | None
    checkpointed: int | None
    shipped: int | None
    remote_written: int | None
    remote_durable: int | None
    lag_bytes: int | None
    lag_s: float | None
    resync_left_bytes: int | None
    resync_eta_s: float | None
    applied_age_s: float | None
    complete_until: str | None
    journal_bytes: int | None
    journal_pressure: Literal["normal", "warning", "throttle", "detach", "full"] | None
    time_to_full_s: float | None
    lock: LockInfo | None
    volumes: int | None
    reason: str
    fetching: bool
    last_backup: BackupInfo | None
    last_drill: DrillSummary | None
    damaged: int | None
    oldest_check: str | None
    times_ahead_s: float | None = None


class GroupRow(GroupInfo, frozen=True, kw_only=True):
    """A group in `site.status`. Of one that could not be opened, or does not say how it is, little more is
    known than that it is "damaged", why, and at which `position`."""

    position: str | UnsetType = UNSET


class Remote(Reply, frozen=True, kw_only=True):
    """What the peer has, as far as this site knows."""

    timeline: str
    written: int
    durable: int
    head_time: str | None


class PairInfo(GroupInfo, frozen=True, kw_only=True):
    """A group that is open, with its pair. `sent_bytes`: frames sent, of journal and bases, since this site
    began to ship the group (its start, the pair's creation or a role move); null where it does not.
    `wire_bytes`: what they became on their way, compressed, and without what the peer had in a seed."""

    head: Head
    peer_connected: bool
    remote: Remote | None
    sent_bytes: int | None
    wire_bytes: int | UnsetType | None = UNSET


class PairCreate(BaseCommand[PairInfo], frozen=True, tag="pair.create"):
    """Attach a group to a peer. `replace`: in place of the peer that it has, which needs its name in
    `confirm`."""

    needs = OperatorRole.ADMIN

    group: Name
    peer: Name
    mode: PairMode = "async"
    # Left out on the wire where they are not meant: older daemons know neither.
    replace: Literal[True] | UnsetType = UNSET
    confirm: Confirm | UnsetType = UNSET


class PairShow(Query[PairInfo], frozen=True, tag="pair.show"):
    """One pair, from either end."""

    group: Name


class PairSplit(BaseCommand[PairInfo], frozen=True, tag="pair.split"):
    """Pause replication at a position. `confirm` is `G`, needed to leave sync-strict while the peer does not
    answer."""

    group: Name
    confirm: Confirm = ""


class PairResync(BaseCommand[PairInfo], frozen=True, tag="pair.resync"):
    """Go on from the split. With `source` null, refused as diverged if both sites wrote since; "local"
    keeps this site's history, "remote" takes the peer's in; what the other had stays as a branch there."""

    group: Name
    source: ResyncSource | None = None


class PairSet(BaseCommand[PairInfo], frozen=True, tag="pair.set"):
    """Change a pair while it runs; null leaves a setting as it is. `confirm` is `G`, needed to leave
    sync-strict while the peer does not answer."""

    group: Name
    mode: PairMode | None = None
    confirm: Confirm = ""


class PairDeleteReply(Reply, frozen=True, kw_only=True):
    """The peer that it was paired with."""

    group: str
    peer: str


class PairDelete(BaseCommand[PairDeleteReply], frozen=True, tag="pair.delete"):
    """End the pair at this site; the peer keeps its copy. `confirm` is `G`."""

    needs = OperatorRole.ADMIN

    group: Name
    confirm: Confirm = ""


class WaitReply(Reply, frozen=True, kw_only=True):
    """`position` is `TIMELINE:POSITION`: the awaited; for a state, the head."""

    reached: bool
    state: str
    code: str
    position: str
    time: str | None
    remote_durable: int | None
    lag_bytes: int | None
    lag_s: float | None


class WaitFor(Query[WaitReply], frozen=True, tag="wait"):
    """Answered when the group has the state, when `position` is durable at every attached site (with neither:
    when all written at the time of asking is), or after `timeout_s` with `reached` false; the client asks
    again."""

    group: Name
    state: Annotated[str, Meta(max_length=NAME_CHARS_MAX)] | None = None
    position: CutPosition | None = None
    timeout_s: WaitSeconds = 1.0
