"""Operators: who may command a site over the network."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from protocol.bounds import Name
from protocol.commands.base import BaseCommand, Query, Reply
from protocol.roles import OperatorRole, RoleName

KeyText = Annotated[str, Meta(max_length=40)]


class OperatorInfo(Reply, frozen=True, kw_only=True):
    """One operator. `key` is public."""

    operator: str
    role: str
    key: str


class OperatorListReply(Reply, frozen=True, kw_only=True):
    """By name. `endpoint`: where they connect, null if only this machine may command the site; `server_key`:
    the site's public key, by which they know it."""

    endpoint: str | None
    server_key: str
    operators: list[OperatorInfo]


class OperatorList(Query[OperatorListReply], frozen=True, tag="operator.list"):
    """Who may command this site over the network."""


class OperatorAdd(BaseCommand[OperatorListReply], frozen=True, tag="operator.add"):
    """Write one more into site.toml, and take it at once. `key`: the operator's public key (Z85)."""

    needs = OperatorRole.ADMIN

    operator: Name
    key: KeyText
    role: RoleName = "viewer"


class OperatorRemove(BaseCommand[OperatorListReply], frozen=True, tag="operator.remove"):
    """Take one out of site.toml, at once."""

    needs = OperatorRole.ADMIN

    operator: Name
