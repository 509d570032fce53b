"""Restores: volumes turned back to a cut."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from protocol.bounds import Name
from protocol.commands.base import BaseCommand, Confirm, Reply
from protocol.commands.cut import CutInfo
from protocol.commands.job import JobInfo
from protocol.cut_text import NamedCut


class RestoreHost(Reply, frozen=True, kw_only=True):
    """A host that uses one of the volumes."""

    volume: str
    client: str


class RestoreFigures(Reply, frozen=True, kw_only=True):
    """What a restore came to: the result of its job, or part of the reply. `head` is the state that it
    discards, whose `text` is the way back; `position` that of the revert; `undo` a command line. `job`: the
    full compare, which goes on; none where the cut is the peer's alone. `copied_bytes`: written. Where a job
    goes on, neither is known yet."""

    head: CutInfo
    position: str | None
    online: bool
    undo: str
    checked_blocks: int
    copied_bytes: int
    took_ms: float | None
    job: int | None


class RestoreReply(RestoreFigures, frozen=True, kw_only=True):
    """A restore. `untouched`: volumes that the cut had not. `way`: one event; blocks from this site's
    history; blocks from the peer's. In a dry run `copied_bytes` is the most that would be written. Where
    blocks are written the answer comes at once, with the job `restoring`, whose result are the figures."""

    group: str
    volumes: list[str]
    untouched: list[str]
    dry_run: bool
    cut: CutInfo
    discarded_bytes: int | None
    discarded_s: float | None
    hosts: list[RestoreHost]
    way: Literal["revert", "write", "fetch"]
    restoring: JobInfo | UnsetType = UNSET


class CompareResult(Reply, frozen=True, kw_only=True):
    """The result of the full compare: `cut` and `position` are equal; ids of backups that are `verified`."""

    group: str
    volumes: list[str]
    cut: str
    position: str
    state: Literal["verified"]
    compared_bytes: int
    verified: list[str]


class RestoreVolume(BaseCommand[RestoreReply], frozen=True, tag="restore.volume"):
    """Turn a volume back to a cut. `force`: although hosts are connected; `start`: open the export again;
    `confirm` is `G/V`, not needed with `dry_run`."""

    group: Name
    volume: Name
    cut: NamedCut
    dry_run: bool = False
    force: bool = False
    start: bool = False
    confirm: Confirm = ""


class RestoreGroup(BaseCommand[RestoreReply], frozen=True, tag="restore.group"):
    """Turn every volume of a group back to one cut, in one frame; `confirm` is `G`."""

    group: Name
    cut: NamedCut
    dry_run: bool = False
    force: bool = False
    start: bool = False
    confirm: Confirm = ""
