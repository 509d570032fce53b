"""Backups: cuts that are kept under a label or an id."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType, field

from protocol.bounds import LockSeconds, Name
from protocol.commands.base import BaseCommand, Confirm, Label, Query, Reply
from protocol.commands.cut import CutInfo
from protocol.commands.keep import KeepCounts, KeepInfo
from protocol.commands.pages import ListReply, PagedCommand
from protocol.cut_text import NamedCut
from protocol.roles import OperatorRole

# In one command: as many as its reply has rows for.
BACKUPS_DELETED_MAX = 15_000


class Mirror(Reply, frozen=True, kw_only=True):
    """Of a backup's remote mirror: from which site to which. Of its local ones: from which volume to which
    export."""

    source: str = field(name="from")
    to: str


class BackupInfo(Reply, frozen=True, kw_only=True):
    """A backup. `state` by site: pending, available, verified, damaged or expired; of the peer what this site
    knows. `locked_until` (at the earliest), `verified_at` and `damage` are this site's. `held_by`: who else
    needs its cut."""

    id: str
    label: str | None
    group: str
    volumes: list[str]
    cut: CutInfo
    time: str
    pinned: bool
    locked_until: str | None
    kind: Literal["mark", "retroactive"]
    consistency: Literal["crash", "frozen"]
    state: dict[str, str]
    verified_at: str | None
    damage: str | None
    remote_mirror: Mirror | None
    local_mirrors: list[Mirror]
    held_by: list[str]


class FreezeInfo(Reply, frozen=True, kw_only=True):
    """How hosts were held still. `failure`: why the backup is only crash-consistent; `stuck`: why the thaw
    failed."""

    hook: str
    freeze_ms: float | None
    frozen_ms: float | None
    failure: str
    stuck: str


class BackupCreateReply(BackupInfo, frozen=True, kw_only=True):
    """The backup, how long it took, and how hosts were held still, if they were."""

    took_ms: float
    freeze: FreezeInfo | None


class BackupCreate(BaseCommand[BackupCreateReply], frozen=True, tag="backup.create"):
    """Fix a cut of the group (`volume` null) or of one volume; without `cut`, by a mark in the journal.
    Answers when it is available at each attached site. `freeze`: a hook of the site that holds the hosts
    still meanwhile. `frozen`: the caller holds them still; answers at once, so that they can go on. `lock_s`:
    nobody can delete it for so many seconds."""

    group: Name
    volume: Name | None = None
    label: Label | None = None
    cut: NamedCut | None = None
    pin: bool = False
    freeze: Name | None = None
    frozen: bool = False
    lock_s: LockSeconds | UnsetType = UNSET  # then left out on the wire: older daemons know none


class BackupListReply(ListReply, frozen=True, kw_only=True):
    """Newest first."""

    backups: list[BackupInfo]


class BackupList(PagedCommand[BackupListReply], frozen=True, tag="backup.list"):
    """Backups of all groups, or one."""

    group: Name | None = None
    volume: Name | None = None


class SpaceInfo(Reply, frozen=True, kw_only=True):
    """What a backup's volumes hold; what comes free at this site once it is deleted; and the rest, which
    others need too."""

    bytes: int
    unique_bytes: int
    shared_bytes: int


class ProvenInfo(Reply, frozen=True, kw_only=True):
    """That a backup was looked at, how, where, by whom and when: verified byte by byte, or recovered in a
    drill. `ok`: it was good. `digest`: of the journal up to the cut, or of all volumes' contents; empty:
    none was taken."""

    how: Literal["verified", "drilled"]
    ok: bool
    site: str
    by: str
    at: str
    digest: str
    drill: str
    check: str


class BackupShowReply(BackupInfo, frozen=True, kw_only=True):
    """The backup, and its exports: `G/V@LABEL`. `proven`, newest first: the last verification here, the
    last good drills here and at the peer, and what failed since."""

    exports: list[str]
    proven: list[ProvenInfo] = field(default_factory=list)
    space: SpaceInfo | UnsetType = UNSET


class BackupShow(Query[BackupShowReply], frozen=True, tag="backup.show"):
    """One backup. `cut` is a label or an id; `space`: also what it takes."""

    group: Name
    cut: NamedCut
    space: bool = False


class BackupPin(BaseCommand[BackupInfo], frozen=True, tag="backup.pin"):
    """Pin a backup (`pinned`), so that it is neither deleted nor pruned, or unpin it."""

    group: Name
    cut: NamedCut
    pinned: bool = True


class BackupLock(BaseCommand[BackupInfo], frozen=True, tag="backup.lock"):
    """Lock a backup for `lock_s` seconds from now on, or extend its lock: until then nobody can delete it, at
    either site. Refused if it is locked for longer already."""

    needs = OperatorRole.ADMIN

    group: Name
    cut: NamedCut
    lock_s: LockSeconds


class BackupDeleteReply(BackupInfo, frozen=True, kw_only=True):
    """The backup as it was. `unique_bytes`: in a dry run, what comes free."""

    deleted: bool
    unique_bytes: int | None


class BackupDelete(BaseCommand[BackupDeleteReply], frozen=True, tag="backup.delete"):
    """Delete a backup, at every site. Refused while it is pinned or locked. `confirm` is its label, or else
    its id; not needed with `dry_run`."""

    needs = OperatorRole.ADMIN

    group: Name
    cut: NamedCut
    dry_run: bool = False
    confirm: Confirm = ""


# Rows of a prune's reply: 250 bytes each with the longest label and all rules.
PRUNE_ROWS_MAX = BACKUPS_DELETED_MAX


class PruneRow(Reply, frozen=True, kw_only=True):
    """A backup, and why it stays."""

    id: str
    label: str | None
    time: str
    why: list[str]


class BackupDeleteManyReply(Reply, frozen=True, kw_only=True):
    """What was deleted (`dry_run`: would be). `unique_bytes`: in a dry run, what comes free with all of
    them."""

    group: str
    dry_run: bool
    deleted: list[PruneRow]
    unique_bytes: int | None


class BackupDeleteMany(BaseCommand[BackupDeleteManyReply], frozen=True, tag="backup.delete-many"):
    """Delete several backups of a group, at every site, or none of them if one is pinned or locked.
    `confirm` is `G`; not needed with `dry_run`."""

    needs = OperatorRole.ADMIN

    group: Name
    cuts: Annotated[tuple[NamedCut, ...], Meta(min_length=1, max_length=BACKUPS_DELETED_MAX)]
    dry_run: bool = False
    confirm: Confirm = ""


class BackupPruneReply(Reply, frozen=True, kw_only=True):
    """What was kept, deleted (`dry_run`: would be), and left because no rule looks at it. `zone`: whose days
    and weeks the rules go by. `left_out`: so many rows more there are, for which there was no room; deleted
    ones come first."""

    group: str
    dry_run: bool
    rules: KeepInfo
    kept: list[PruneRow]
    deleted: list[PruneRow]
    left: list[PruneRow]
    zone: str = "UTC"
    left_out: int = 0


class BackupPrune(KeepCounts[BackupPruneReply], frozen=True, tag="backup.prune"):
    """Delete the backups that no keep rule keeps: those given, else those of the group's policy. Pinned ones
    stay, and labelled ones unless `labelled`. `confirm` is `G`, not needed with `dry_run`."""

    needs = OperatorRole.ADMIN

    group: Name
    labelled: bool = False
    dry_run: bool = False
    confirm: Confirm = ""
