"""Groups as such: which there are, another name for one, and one that goes."""

from __future__ import annotations

from protocol.bounds import Name
from protocol.commands.base import BaseCommand, Confirm, Query, Reply
from protocol.commands.pages import ListReply, PagedCommand
from protocol.roles import OperatorRole


class GroupSummary(Reply, frozen=True, kw_only=True):
    """A group that is open. `locked_until` (UTC): until then some of it may not be given up at this site;
    null if nothing is locked."""

    group: str
    group_id: str
    role: str
    state: str
    peer: str | None
    created: str
    volumes: int
    clones: list[str]
    backups: int
    locked_until: str | None
    journal_bytes: int
    hosts: list[str]


class GroupListReply(ListReply, frozen=True, kw_only=True):
    """By name."""

    groups: list[GroupSummary]


class GroupList(PagedCommand[GroupListReply], frozen=True, tag="group.list"):
    """Every group of this site that is open."""


class GroupShow(Query[GroupSummary], frozen=True, tag="group.show"):
    """One group."""

    group: Name


class GroupRename(BaseCommand[GroupSummary], frozen=True, tag="group.rename"):
    """Call a group by another name here; its id stays, by which a peer that has it knows it again. Refused
    while it is paired, or hosts are connected."""

    group: Name
    new: Name


class GroupDelete(BaseCommand[GroupSummary], frozen=True, tag="group.delete"):
    """Remove a group from this site, with its whole history; as it was. Refused while it is paired, hosts are
    connected, or something of it is locked."""

    needs = OperatorRole.ADMIN

    group: Name
    confirm: Confirm = ""
