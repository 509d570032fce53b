"""Which hosts may open a volume at this site."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from protocol.bounds import Name
from protocol.commands.base import BaseCommand, Query, Reply
from protocol.hosts import HOST_TEXT
from protocol.roles import OperatorRole

HostText = Annotated[str, Meta(pattern=HOST_TEXT)]


class AccessEntry(Reply, frozen=True, kw_only=True):
    """A host on the list: `uid:N` or `cert:NAME`. `right` is `ro` or `rw`; empty: it cannot be read, and the
    host may nothing."""

    host: str
    right: str
    connections: int


class VolumeAccessReply(Reply, frozen=True, kw_only=True):
    """A volume's list. `everybody`: nobody is on it, so whoever reaches the door may read and write. `closed`
    are connections that the change ended."""

    group: str
    volume: str
    everybody: bool
    entries: list[AccessEntry]
    closed: list[str]


class VolumeAccess(Query[VolumeAccessReply], frozen=True, tag="volume.access"):
    """Who may open a volume."""

    group: Name
    volume: Name


class VolumeAllow(BaseCommand[VolumeAccessReply], frozen=True, tag="volume.allow"):
    """Put a host on a volume's list, or change what it may. With the first one the volume is closed to all
    others; `force`: although such are connected."""

    needs = OperatorRole.ADMIN

    group: Name
    volume: Name
    host: HostText
    right: Literal["ro", "rw"]
    force: bool = False


class VolumeDisallow(BaseCommand[VolumeAccessReply], frozen=True, tag="volume.disallow"):
    """Take a host off a volume's list, or (`host` null) all, which opens the volume to everybody. `force`:
    although it is connected."""

    needs = OperatorRole.ADMIN

    group: Name
    volume: Name
    host: HostText | None
    force: bool = False
