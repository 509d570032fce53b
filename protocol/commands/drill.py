"""Drills: recoveries that were tried out on a clone, and what they showed.

The console carries a drill out, because its check runs as the console's user; the site keeps the result.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.bounds import Name
from protocol.commands.base import BaseCommand, Reply, Rows
from protocol.commands.cut import CutInfo
from protocol.commands.pages import PagedCommand
from protocol.cut_text import CutPosition
from protocol.limits import DRILL_SAID_CHARS_MAX, DRILL_STEPS_MAX, VOLUMES_PER_GROUP_MAX

Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Word = Annotated[str, Meta(max_length=63)]
StepState = Literal["ok", "failed", "skipped"]


class DrillStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step of a drill; `volume` is empty for what concerns all of them."""

    step: Word
    state: StepState
    took_s: Seconds
    volume: Word = ""
    said: Annotated[str, Meta(max_length=DRILL_SAID_CHARS_MAX)] = ""


class StepInfo(Reply, frozen=True, kw_only=True):
    """One step, as it was recorded."""

    volume: str
    step: str
    state: str
    took_s: float
    said: str


class DrillSummary(Reply, frozen=True, kw_only=True):
    """A drill without its steps. `drill` is its id, `recovery_s` the time from the command until all was
    mounted and checked, `data_age_s` how far the cut was behind."""

    drill: str
    group: str
    site: str
    volumes: list[str]
    cut: CutInfo
    started: str
    ok: bool
    recovery_s: float
    data_age_s: float | None


class DrillInfo(DrillSummary, frozen=True, kw_only=True):
    """A drill with its steps."""

    steps: list[StepInfo]


class DrillRecord(BaseCommand[DrillInfo], frozen=True, tag="drill.record"):
    """Keep a drill's result."""

    group: Name
    volumes: Annotated[tuple[Name, ...], Meta(max_length=VOLUMES_PER_GROUP_MAX)]
    cut: CutPosition
    started_utc_ns: Annotated[int, Meta(ge=0, lt=1 << 62)]
    ok: bool
    recovery_s: Seconds
    steps: Annotated[tuple[DrillStep, ...], Meta(max_length=DRILL_STEPS_MAX)]
    data_age_s: Seconds | None = None


class DrillListReply(Reply, frozen=True, kw_only=True):
    """Newest first."""

    drills: list[DrillInfo]


class DrillList(PagedCommand[DrillListReply], frozen=True, tag="drill.list"):
    """Drills of all groups, or one."""

    group: Name | None = None
    limit: Rows = 100
