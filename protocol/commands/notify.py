"""Notifications: who is told of events, and how that goes."""

from __future__ import annotations

from typing import Literal

from protocol.bounds import Name
from protocol.commands.base import BaseCommand, Query, Reply
from protocol.commands.event import Level

Way = Literal["exec", "webhook", "smtp", "ping"]


class NotifyInfo(Reply, frozen=True, kw_only=True):
    """One of [notify.NAME]. Since the daemon's start: `sent`, `dropped` (given up, or pushed out of a full
    queue). `queued` now. `error`: why the last try failed, null if it did not."""

    name: str
    way: Way
    min_level: Level
    sent: int
    dropped: int
    queued: int
    error: str | None


class NotifyListReply(Reply, frozen=True, kw_only=True):
    """By name. `lost`: events that could not be handed to the process that notifies."""

    notifications: list[NotifyInfo]
    lost: int


class NotifyList(Query[NotifyListReply], frozen=True, tag="notify.list"):
    """Every notification of this site."""


class NotifyTestReply(Reply, frozen=True, kw_only=True):
    """`error` is null if it was sent."""

    name: str
    way: Way
    ok: bool
    error: str | None
    took_s: float


class NotifyTest(BaseCommand[NotifyTestReply], frozen=True, tag="notify.test"):
    """Send a test now, past what is queued."""

    notification: Name
