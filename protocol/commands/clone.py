"""Clones: writable volumes of a site's own, begun at a cut and never shipped."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from protocol.bounds import Name
from protocol.commands.base import BaseCommand, Confirm, Reply
from protocol.commands.cut import CutInfo
from protocol.commands.pages import ListReply, PagedCommand
from protocol.cut_text import NamedCut

Purpose = Annotated[str, Meta(max_length=63)]


class CloneInfo(Reply, frozen=True, kw_only=True):
    """A clone, named like a group: its volumes are the exports `CLONE/V`. `cut`: where it left the group.
    `temporary`: it goes when the daemon starts. `bytes`: of its own journal. `reason`: why it stopped."""

    clone: str
    group: str
    volumes: list[str]
    cut: CutInfo
    created: str
    temporary: bool
    purpose: str
    bytes: int
    hosts: int
    reason: str
    exports: list[str]


class CloneCreateReply(CloneInfo, frozen=True, kw_only=True):
    """The clone, and how long it took."""

    took_ms: float


class CloneCreate(BaseCommand[CloneCreateReply], frozen=True, tag="clone.create"):
    """A writable clone of a group (`volume` null), or of one of its volumes, at a cut."""

    group: Name
    cut: NamedCut
    clone: Name
    volume: Name | None = None
    temporary: bool = False
    purpose: Purpose = ""


class CloneListReply(ListReply, frozen=True, kw_only=True):
    """By group and name."""

    clones: list[CloneInfo]


class CloneList(PagedCommand[CloneListReply], frozen=True, tag="clone.list"):
    """Clones of a group, or of all."""

    group: Name | None = None


class CloneDelete(BaseCommand[CloneInfo], frozen=True, tag="clone.delete"):
    """Forget a clone; its space comes back in the background. `force`: although hosts are connected;
    `confirm` is the clone's name."""

    clone: Name
    force: bool = False
    confirm: Confirm = ""
