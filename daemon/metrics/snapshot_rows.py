"""A snapshot of a site, as it goes to the child that answers scrapes: a line of JSON."""

from __future__ import annotations

import msgspec

from protocol.commands.pair import GroupRow
from protocol.commands.peer import PeerInfo


class HistogramRow(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of each bucket, not summed up, and the sum in seconds."""

    counts: list[int]
    sum_s: float


class VolumeRow(msgspec.Struct, frozen=True, kw_only=True):
    """A volume. `latency`: by kind, of one that hosts have opened since the start."""

    volume: str
    size_bytes: int
    hosts: int
    latency: dict[str, HistogramRow]


class GroupFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A group; of one that does not open only `row` says anything."""

    row: GroupRow
    peer_connected: bool = False
    sent_bytes: int | None = None
    received_bytes: int | None = None
    backup_age_s: float | None = None
    backups: int = 0
    drill_age_s: float | None = None
    drill_ok: bool | None = None
    free_bytes: int | None = None
    checkpoint_running: bool = False
    checkpoint_failures: int = 0
    reclaim_running: bool = False
    reclaim_failures: int = 0
    volumes: list[VolumeRow] = []


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is wrong now."""

    kind: str
    group: str
    object: str


class NotifyFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One of [notify.NAME]."""

    name: str
    sent: int
    dropped: int
    queued: int
    failing: bool


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A site at about one moment."""

    site: str
    version: str
    peers: list[PeerInfo]
    groups: list[GroupFigures]
    standing: list[Standing]
    notifications: list[NotifyFigures]
    events: dict[str, int]
    events_lost: int
    certificate_left_days: float | None = None


encode_snapshot = msgspec.json.Encoder().encode
decode_snapshot = msgspec.json.Decoder(Snapshot).decode
