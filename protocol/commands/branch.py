"""Branches: histories held at a site that are not on the way to the head."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from protocol.bounds import Name
from protocol.commands.base import BaseCommand, Confirm, Query, Reply, Rows
from protocol.commands.cut import CutInfo
from protocol.commands.pages import ListReply, PagedCommand
from protocol.roles import OperatorRole

TimelineText = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]


class BranchInfo(Reply, frozen=True, kw_only=True):
    """A branch, named by its timeline: from the cut where it left this site's history to its end. `bytes` of
    journal. `writer`: the site's name, or its id if it is not known."""

    timeline: str
    start: CutInfo = field(name="from")
    to: CutInfo
    bytes: int
    frames: int
    writer: str
    began: str | None
    ended: str | None
    backups: list[str]
    exports: list[str]


class BranchListReply(ListReply, frozen=True, kw_only=True):
    """By where they left this site's history."""

    branches: list[BranchInfo]


class BranchList(PagedCommand[BranchListReply], frozen=True, tag="branch.list"):
    """Every branch of a group."""

    group: Name


class BranchFrame(Reply, frozen=True, kw_only=True):
    """A frame of a branch; `position` is `TIMELINE:POSITION`."""

    position: str
    time: str
    bytes: int
    events: int


class VolumeDiff(Reply, frozen=True, kw_only=True):
    """How a volume's content differs; extents are (offset, bytes)."""

    volume: str
    differing_bytes: int
    extents: list[tuple[int, int]]


class BranchDiffReply(Reply, frozen=True, kw_only=True):
    """The first `limit` frames, and extents of each volume."""

    branch: BranchInfo
    frames: list[BranchFrame]
    volumes: list[VolumeDiff]


class BranchDiff(Query[BranchDiffReply], frozen=True, tag="branch.diff"):
    """What a branch has that the head has not: its frames, and where the volumes' contents differ at the
    ends of both."""

    group: Name
    timeline: TimelineText
    limit: Rows = 100


class BranchDropReply(Reply, frozen=True, kw_only=True):
    """The branch as it was; `done`: whether its space is free already."""

    branch: BranchInfo
    done: bool
    freed_bytes: int


class BranchDrop(BaseCommand[BranchDropReply], frozen=True, tag="branch.drop"):
    """Forget a branch and give its space back. `confirm` is its timeline."""

    needs = OperatorRole.ADMIN

    group: Name
    timeline: TimelineText
    confirm: Confirm = ""
