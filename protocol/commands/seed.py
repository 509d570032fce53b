"""Seeds: copies of volumes, given to a site as files, from which its copy of a group takes what it can."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from protocol.bounds import Count, Name
from protocol.commands.base import BaseCommand, Reply
from protocol.commands.pages import ListReply, PagedCommand
from protocol.limits import VOLUME_BYTES_MAX

SeedBytes = Annotated[int, Meta(ge=1, le=VOLUME_BYTES_MAX)]
SeedToken = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]


class SeedInfo(Reply, frozen=True, kw_only=True):
    """A seed that is kept."""

    group: str
    volume: str
    size_bytes: int


class SeedListReply(ListReply, frozen=True, kw_only=True):
    """By group and volume."""

    seeds: list[SeedInfo]


class SeedList(PagedCommand[SeedListReply], frozen=True, tag="seed.list"):
    """Seeds of all groups, or one."""

    group: Name | None = None


class SeedBeginReply(Reply, frozen=True, kw_only=True):
    """Two empty files at the site's machine (absolute paths): what imports a seed fills them, and then asks
    to keep what `token` names."""

    image: str
    digests: str
    token: str


class SeedBegin(BaseCommand[SeedBeginReply], frozen=True, tag="seed.begin"):
    """Begin to import a copy of a volume of so many bytes, of which `data_bytes` are to be written. Refused
    where the group is written, or without room. What an earlier import left is removed."""

    group: Name
    volume: Name
    size_bytes: SeedBytes
    data_bytes: Count


class SeedKeep(BaseCommand[SeedInfo], frozen=True, tag="seed.keep"):
    """Make what was filled durable, and the volume's seed."""

    group: Name
    volume: Name
    token: SeedToken


class SeedRemove(BaseCommand[SeedInfo], frozen=True, tag="seed.remove"):
    """Keep a volume's seed no longer, with what unfinished imports left; as it was, and 0 bytes if there was
    only that."""

    group: Name
    volume: Name
