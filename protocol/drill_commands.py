"""Commands about drills: recoveries that were tried out on a clone, and what they showed.

The console carries a drill out, because its check runs as the console's user; the site keeps the result.
DRILL is {"drill": hex16, "group", "site": str, "volumes": [str], "cut": CUT as in `protocol.commands`,
"started": str, "ok": bool, "recovery_s": float (from the command to all mounted and checked), "data_age_s":
float|null (how far the cut was behind), "steps": [{"volume": str, "step": str, "state": "ok"|"failed"|
"skipped", "took_s": float, "said": str}]}.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.command_base import BaseCommand, Name, Rows
from protocol.cut_text import CutPosition
from protocol.limits import DRILL_SAID_CHARS_MAX, DRILL_STEPS_MAX, VOLUMES_PER_GROUP_MAX
from protocol.pages import PagedCommand

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


class DrillRecord(BaseCommand, frozen=True, tag="drill.record"):
    """Keep a drill's result. DRILL: {…}"""

    group: Name
    volumes: Annotated[tuple[Name, ...], Meta(max_length=VOLUMES_PER_GROUP_MAX)]
    cut: CutPosition
    started_utc_ns: Annotated[int, Meta(ge=0, lt=1 << 62)]
    ok: bool
    recovery_s: Seconds
    steps: Annotated[tuple[DrillStep, ...], Meta(max_length=DRILL_STEPS_MAX)]
    data_age_s: Seconds | None = None


class DrillList(PagedCommand, frozen=True, tag="drill.list"):
    """Drills of all groups, or one, newest first. {"drills": [DRILL]}"""

    group: Name | None = None
    limit: Rows = 100
