"""Verification: whether everything that a group holds is there and unchanged."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from protocol.bounds import Name
from protocol.commands.base import BaseCommand, Query, Reply
from protocol.commands.job import JobInfo
from protocol.limits import RATE_BYTES_S_MAX


class DamageInfo(Reply, frozen=True, kw_only=True):
    """A damaged place."""

    object: str
    position: str
    message: str
    next: str


class VerifyReply(Reply, frozen=True, kw_only=True):
    """What was checked; with any damage `ok` is false."""

    group: str
    ok: bool
    deep: bool
    frames: int
    bytes: int
    versions: int
    damage: list[DamageInfo]
    took_s: float


class Verify(Query[VerifyReply], frozen=True, tag="verify"):
    """Check the journal's chain and that what the index names is there; `verify.start` also compares every
    byte. With any damage the CLI ends 24."""

    group: Name


class AffectedBackup(Reply, frozen=True, kw_only=True):
    """A backup, and how many damaged places it has."""

    id: str
    label: str | None
    damaged: int


class VerifyResult(VerifyReply, frozen=True, kw_only=True):
    """The result of the job. `ok`: no damage is known; `complete`: it came to the end; `since`: the oldest
    check that counts; `damage`: the first of it; `backups` and `volumes` that it affects; ids of those that
    are `verified`."""

    complete: bool
    since: str | None
    damaged: int
    backups: list[AffectedBackup]
    volumes: list[str]
    verified: list[str]
    mended: int


class VerifyStart(BaseCommand[JobInfo], frozen=True, tag="verify.start"):
    """Begin to check everything that a group holds here, byte by byte, as a job that goes on where the last
    one stopped; the one that runs already, if it was asked for the same. `deep` false: only with `repair`,
    for what is known to be damaged. `rate_bytes_s` 0: as fast as it goes; `for_s` null: to the end."""

    group: Name
    deep: bool = True
    repair: bool = False
    rate_bytes_s: Annotated[int, Meta(ge=0, le=RATE_BYTES_S_MAX)] = 0
    for_s: Annotated[float, Meta(gt=0)] | None = None
