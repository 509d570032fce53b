"""Drills: recoveries that were tried out on a clone, what they showed, and when the next one is due.

The console carries a drill out, because its check runs as the console's user; the site keeps the result, and
signs reports of what it keeps.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from protocol.bounds import Name, NameOrNone
from protocol.commands.base import BaseCommand, Query, Reply, Rows
from protocol.commands.cut import CutInfo
from protocol.commands.pages import ListReply, PagedCommand
from protocol.cut_text import CutPosition
from protocol.limits import DRILL_SAID_CHARS_MAX, DRILL_STEPS_MAX, LABEL_CHARS_MAX, VOLUMES_PER_GROUP_MAX
from protocol.proof_limits import (
    CHECK_ARG_CHARS_MAX,
    CHECK_ARGS_MAX,
    CHECK_COMMAND_CHARS_MAX,
    CHECK_OUTPUT_CHARS_MAX,
    CHECK_USER_CHARS_MAX,
    DIGEST_CHARS_MAX,
    DRILL_EVERY_S_MAX,
    REPORT_DRILLS_MAX,
    TOOL_CHARS_MAX,
    TOOLS_MAX,
)
from protocol.roles import OperatorRole

Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Word = Annotated[str, Meta(max_length=63)]
StepState = Literal["ok", "failed", "skipped"]
ReportFormat = Literal["text", "json", "html"]
CheckArgs = Annotated[
    tuple[Annotated[str, Meta(max_length=CHECK_ARG_CHARS_MAX)], ...], Meta(max_length=CHECK_ARGS_MAX)
]
# A name of the machine's, or numbers: UID or UID:GID.
CheckUser = Annotated[
    str, Meta(pattern=r"^(?:[A-Za-z0-9_][A-Za-z0-9_.:@-]*)?\Z", max_length=CHECK_USER_CHARS_MAX)
]


class DrillStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step of a drill; `volume` is empty for what concerns all of them."""

    step: Word
    state: StepState
    took_s: Seconds
    volume: Word = ""
    said: Annotated[str, Meta(max_length=DRILL_SAID_CHARS_MAX)] = ""


class VolumeDigest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The digest of all of a volume's content at the cut (protocol/content_digest.py), and its size."""

    volume: Name
    digest: Annotated[str, Meta(max_length=DIGEST_CHARS_MAX)]
    size_bytes: Annotated[int, Meta(ge=0, lt=1 << 62)]


class DrillProof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a drill's check was and said. `version` is Farshore's. `hook` names a check that lies at the
    machine, `command` is its path and digest, or the command line that was given; both are empty without a
    check. `exit_code` null: it was not carried out. `output` is bounded: how it began and how it ended.
    `tools`: the versions of programs, as the check said them."""

    version: Word
    hook: NameOrNone = ""
    command: Annotated[str, Meta(max_length=CHECK_COMMAND_CHARS_MAX)] = ""
    user: Annotated[str, Meta(max_length=CHECK_USER_CHARS_MAX)] = ""
    exit_code: Annotated[int, Meta(ge=-1024, le=1024)] | None = None
    output: Annotated[str, Meta(max_length=CHECK_OUTPUT_CHARS_MAX)] = ""
    tools: Annotated[
        tuple[Annotated[str, Meta(max_length=TOOL_CHARS_MAX)], ...], Meta(max_length=TOOLS_MAX)
    ] = ()
    digests: Annotated[tuple[VolumeDigest, ...], Meta(max_length=VOLUMES_PER_GROUP_MAX)] = ()


class StepInfo(Reply, frozen=True, kw_only=True):
    """One step, as it was recorded."""

    volume: str
    step: str
    state: str
    took_s: float
    said: str


class DrillSummary(Reply, frozen=True, kw_only=True):
    """A drill without its steps. `drill` is its id, `recovery_s` the time from the command until all was
    mounted and checked, `data_age_s` how far the cut was behind, `site` where it was run."""

    drill: str
    group: str
    site: str
    volumes: list[str]
    cut: CutInfo
    started: str
    ok: bool
    recovery_s: float
    data_age_s: float | None


class VolumeProof(Reply, frozen=True, kw_only=True):
    """A volume's size and the digest of its content, as a drill read it."""

    volume: str
    size_bytes: int
    digest: str


class ProofInfo(Reply, frozen=True, kw_only=True):
    """What a drill's check was, as whom it ran and what it said; who gave the drill; label and id of the
    backup that the cut was; `digest`: one over those of all volumes. Empty texts and an `exit_code` of
    null: there is none, or the peer, where the drill was run, knows it."""

    by: str
    version: str
    backup: str
    backup_id: str
    hook: str
    command: str
    user: str
    exit_code: int | None
    output: str
    tools: list[str]
    digests: list[VolumeProof]
    digest: str


class DrillInfo(DrillSummary, frozen=True, kw_only=True):
    """A drill with its steps, none of which are known of one at the peer. `proof`: null of one that an
    earlier version recorded."""

    steps: list[StepInfo]
    proof: ProofInfo | None = None


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
    proof: DrillProof | UnsetType = UNSET


class DrillListReply(ListReply, frozen=True, kw_only=True):
    """Newest first."""

    drills: list[DrillInfo]


class DrillList(PagedCommand[DrillListReply], frozen=True, tag="drill.list"):
    """Drills of all groups, or one."""

    group: Name | None = None
    limit: Rows = 100


class DrillKeyReply(Reply, frozen=True, kw_only=True):
    """The key by which reports of a site are verified, and what people compare of it."""

    site: str
    key: str
    fingerprint: str


class DrillKey(BaseCommand[DrillKeyReply], frozen=True, tag="drill.key"):
    """The public part of this site's signing key, which is made if there is none yet."""


class SignedReport(Reply, frozen=True, kw_only=True):
    """A report as a file has it, signature included; ids of the drills that it is about."""

    format: str
    document: str
    key: str
    fingerprint: str
    drills: list[str]


class DrillSign(BaseCommand[SignedReport], frozen=True, tag="drill.sign"):
    """A signed report of drills that were run at this site, newest first: of all groups or one, of a backup
    (a label or an id), begun at or after a time."""

    group: Name | None = None
    backup: Annotated[str, Meta(max_length=LABEL_CHARS_MAX)] = ""
    since_utc_ns: Annotated[int, Meta(ge=0, lt=1 << 62)] = 0
    limit: Annotated[int, Meta(ge=1, le=REPORT_DRILLS_MAX)] = 10
    format: ReportFormat = "text"


class DrillPlanInfo(Reply, frozen=True, kw_only=True):
    """How often a group is to be drilled at this site, and how. `due`: when the next is to be run;
    `is_due`: now or before. `backup`: label or id of the newest backup that is whole here, which would be
    drilled."""

    group: str
    site: str
    every_s: int
    hook: str
    args: list[str]
    user: str
    due: str
    is_due: bool
    backup: str


class DrillPlanReply(Reply, frozen=True, kw_only=True):
    """By group."""

    plans: list[DrillPlanInfo]


class DrillPlanSet(BaseCommand[DrillPlanReply], frozen=True, tag="drill.plan"):
    """Have a group drilled at this site every so often; `every_s` 0: no more; null leaves a part as it is."""

    needs = OperatorRole.ADMIN

    group: Name
    every_s: Annotated[int, Meta(ge=0, le=DRILL_EVERY_S_MAX)] | None = None
    hook: Name | None = None
    args: CheckArgs | None = None
    user: CheckUser | None = None


class DrillPlans(Query[DrillPlanReply], frozen=True, tag="drill.plans"):
    """What this site is to drill: all groups, or one."""

    group: Name | None = None
