"""Volumes: what hosts use."""

from __future__ import annotations

from msgspec import UNSET, UnsetType, field

from protocol.bounds import Name, SizeBytes
from protocol.commands.backup import BackupInfo
from protocol.commands.base import BaseCommand, Confirm, Query, Reply
from protocol.commands.cut import CutInfo
from protocol.commands.pages import ListReply, PagedCommand
from protocol.cut_text import NamedCut
from protocol.roles import OperatorRole


class VolumeInfo(Reply, frozen=True, kw_only=True):
    """A volume. `id` is `TIMELINE:POSITION` of its creation; `offline_reason` says why its export is closed,
    if it is."""

    group: str
    volume: str
    size_bytes: int
    online: bool
    offline_reason: str
    hosts: int
    id: str
    created: str | None
    deleted: bool


class VolumeCreate(BaseCommand[VolumeInfo], frozen=True, tag="volume.create"):
    """Makes the group with its first volume."""

    group: Name
    volume: Name
    size_bytes: SizeBytes


class VolumeListReply(ListReply, frozen=True, kw_only=True):
    """By group and name."""

    volumes: list[VolumeInfo]


class VolumeList(PagedCommand[VolumeListReply], frozen=True, tag="volume.list"):
    """Volumes of all groups, or one."""

    group: Name | None = None


class Interval(Reply, frozen=True, kw_only=True):
    """Positions of a timeline whose versions of a volume count; `to` null: to the end."""

    timeline: str
    volume: str
    start: int = field(name="from")
    to: int | None


class Connection(Reply, frozen=True, kw_only=True):
    """A host, and the export that it uses."""

    client: str
    export: str


class Gap(Reply, frozen=True, kw_only=True):
    """What never came to this site; `start` null: from the beginning."""

    start: CutInfo | None = field(name="from")
    to: CutInfo


class HistoryInfo(Reply, frozen=True, kw_only=True):
    """How far back a volume can be read: any moment from `oldest` on, but for the gaps, and older backups."""

    oldest: CutInfo
    complete_until: str | None
    window_s: float
    gaps: list[Gap]
    older: list[BackupInfo]


class VolumeShowReply(VolumeInfo, frozen=True, kw_only=True):
    """The volume, what is visible of it, who uses it, and its backups."""

    role: str
    head: CutInfo
    visibility: list[Interval]
    connections: list[Connection]
    backups: list[BackupInfo]
    history: HistoryInfo | UnsetType = UNSET


class VolumeShow(PagedCommand[VolumeShowReply], frozen=True, tag="volume.show"):
    """One volume; with `history` also how far back it can be read."""

    group: Name
    volume: Name
    history: bool = False


class VolumeOnline(BaseCommand[VolumeInfo], frozen=True, tag="volume.online"):
    """Open the export to hosts (after a revert, an adoption, `offline`)."""

    group: Name
    volume: Name


class VolumeOffline(BaseCommand[VolumeInfo], frozen=True, tag="volume.offline"):
    """Close the export; `force` also while hosts are connected, who then get errors."""

    group: Name
    volume: Name
    force: bool = False


class VolumeDelete(BaseCommand[VolumeInfo], frozen=True, tag="volume.delete"):
    """Journal its deletion; history stays readable at earlier cuts. `confirm` is `G/V`."""

    needs = OperatorRole.ADMIN

    group: Name
    volume: Name
    confirm: Confirm = ""


class VolumeResizeReply(VolumeInfo, frozen=True, kw_only=True):
    """The volume with its new size; `before_bytes` is what it had. `position` is where that stands in the
    journal, null if nothing was changed; `undo` the command that takes it back."""

    before_bytes: int
    dry_run: bool
    position: str | None
    undo: str


class VolumeResize(BaseCommand[VolumeResizeReply], frozen=True, tag="volume.resize"):
    """Another size from here on; earlier cuts keep theirs. To shrink wants `confirm`, which is `G/V`, and
    `force` while hosts are connected: they get errors past the new end. `reconnect` sends hosts away, who see
    the new size when they come back."""

    group: Name
    volume: Name
    size_bytes: SizeBytes
    force: bool = False
    reconnect: bool = False
    dry_run: bool = False
    confirm: Confirm = ""


class VolumeRename(BaseCommand[VolumeInfo], frozen=True, tag="volume.rename"):
    """Another name, `to`, from here on. Hosts that are connected go on, but come back by the new name only:
    `force` although there are some."""

    group: Name
    volume: Name
    to: Name
    force: bool = False


class VolumeUriReply(Reply, frozen=True, kw_only=True):
    """Where a host finds the export: `G/V`, or `G/V@CUT` in a fixed form (`latest` and times become
    positions). `unix` is a path, `tcp` `HOST:PORT`, where hosts come over TLS if `tcp_tls`; `tls`: there, and
    there is no other place."""

    export: str
    unix: str | None
    tcp: str | None
    tls: bool
    read_only: bool
    size_bytes: int
    cut: CutInfo | None
    tcp_tls: bool = False


class VolumeUri(Query[VolumeUriReply], frozen=True, tag="volume.uri"):
    """Where a host finds the export; `sound`: refused as unsafe if known damage would be read at the cut."""

    group: Name
    volume: Name
    cut: NamedCut | None = None
    sound: bool = False
