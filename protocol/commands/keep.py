"""Keep rules: how many backups of each period stay."""

from __future__ import annotations

from typing import Annotated, Generic

from msgspec import Meta

from protocol.commands.base import BaseCommand, Reply, ReplyType
from protocol.limits import KEEP_MAX

Count = Annotated[int, Meta(ge=0, le=KEEP_MAX)]


class KeepInfo(Reply, frozen=True, kw_only=True):
    """Counts."""

    last: int
    hourly: int
    daily: int
    weekly: int
    monthly: int
    yearly: int


class KeepCounts(BaseCommand[ReplyType], Generic[ReplyType], frozen=True, kw_only=True):
    """How many backups of each kind stay; null: as it was set."""

    keep_last: Count | None = None
    keep_hourly: Count | None = None
    keep_daily: Count | None = None
    keep_weekly: Count | None = None
    keep_monthly: Count | None = None
    keep_yearly: Count | None = None

    @property
    def counts(self) -> tuple[int | None, ...]:
        """In the order of a policy's `keep`."""
        return (
            self.keep_last,
            self.keep_hourly,
            self.keep_daily,
            self.keep_weekly,
            self.keep_monthly,
            self.keep_yearly,
        )
