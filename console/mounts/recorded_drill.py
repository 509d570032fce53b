"""A drill as somebody asks for it: checked, carried out, and recorded at the site with what it is proof
of."""

from __future__ import annotations

import importlib.metadata
import os
import pwd
from dataclasses import dataclass, field

from console.figures import age_s
from console.local_time import monotonic, now_ns
from console.mounts.check_hooks import CheckHook, find_hook
from console.mounts.check_users import CheckUser, check_user
from console.mounts.checks import CHECK_TIMEOUT_S
from console.mounts.clones import until_told
from console.mounts.drill import Drilled, DrillPlan, LuksKey, drill
from console.mounts.mounting import require_root
from console.mounts.partition_choice import parse_partitions
from console.session import Session, fixed_cut
from protocol.commands.cut import CutResolve, CutResolveReply
from protocol.commands.drill import DrillInfo, DrillProof, DrillRecord
from protocol.cut_text import CutBackup, CutLabel, CutLatest, time_text
from protocol.errors import UsageError
from protocol.proof_limits import (
    CHECK_ARG_CHARS_MAX,
    CHECK_ARGS_MAX,
    CHECK_COMMAND_CHARS_MAX,
    CHECK_OUTPUT_CHARS_MAX,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What was asked for. `at` none: the newest cut. `digest` none: as the cut is a backup or not."""

    group: str
    volume: str | None = None
    at: str | None = None
    check: str | None = None
    hook: str | None = None
    args: tuple[str, ...] = ()
    user: str | None = None
    raw: bool = False
    partitions: tuple[str, ...] = ()
    digest: bool | None = None
    timeout_s: float = CHECK_TIMEOUT_S
    key: LuksKey = field(default_factory=LuksKey)


def carry_out(session: Session, wanted: Wanted) -> DrillInfo:
    """The drill as the site keeps it. FarshoreError for what is no finding about the copy."""
    began, started_ns = monotonic(), now_ns()
    hook, user = _checked(wanted)
    asked = CutLatest() if wanted.at is None else session.cut(wanted.at)
    cut = session.call(CutResolve(group=wanted.group, cut=asked))
    is_backup = isinstance(asked, CutLabel | CutBackup)
    plan = DrillPlan(
        group=wanted.group,
        volume=wanted.volume,
        cut=fixed_cut(cut),
        cut_time=cut.time or "",
        check=hook.command if hook else wanted.check,
        timeout_s=wanted.timeout_s,
        partitions=parse_partitions(wanted.partitions),
        raw=wanted.raw or (hook is not None and hook.raw),
        args=wanted.args,
        user=user,
        digest=is_backup if wanted.digest is None else wanted.digest,
        key=wanted.key,
    )
    with until_told():
        result = drill(session, plan, began)
    record = DrillRecord(
        group=wanted.group,
        volumes=result.volumes,
        cut=plan.cut,
        started_utc_ns=started_ns,
        ok=result.ok,
        recovery_s=round(result.recovery_s, 3),
        data_age_s=_data_age_s(cut, started_ns, newest=isinstance(asked, CutLatest)),
        steps=tuple(result.steps),
        proof=_proof(wanted, hook, user, result),
    )
    return session.call(record)


def _checked(wanted: Wanted) -> tuple[CheckHook | None, CheckUser | None]:
    """What is wrong with it, before anything is done."""
    if wanted.check is not None and wanted.hook is not None:
        raise UsageError("--check and --check-hook exclude each other", next_step="give one of them")
    if wanted.raw and wanted.check is None and wanted.hook is None:
        raise UsageError("--raw without a check would prove nothing", next_step="add --check CMD")
    if wanted.args and wanted.check is None and wanted.hook is None:
        raise UsageError("--check-arg without a check", next_step="add --check-hook NAME")
    if len(wanted.args) > CHECK_ARGS_MAX or any(len(each) > CHECK_ARG_CHARS_MAX for each in wanted.args):
        most = f"at most {CHECK_ARGS_MAX} of {CHECK_ARG_CHARS_MAX} characters"
        raise UsageError("too many words for a check, or too long ones", next_step=most)
    if wanted.check is not None and len(wanted.check) > CHECK_COMMAND_CHARS_MAX:
        raise UsageError(
            f"a check of more than {CHECK_COMMAND_CHARS_MAX} characters", next_step="put it into a file"
        )
    hook = None if wanted.hook is None else find_hook(wanted.hook)
    is_raw = wanted.raw or (hook is not None and hook.raw)
    if is_raw and wanted.partitions:
        raise UsageError("--raw and --partition together", next_step="with --raw the check finds its way")
    user = None if wanted.user is None else check_user(wanted.user)
    if user is not None and wanted.check is None and hook is None:
        raise UsageError("--as without a check", subject=wanted.user or "", next_step="add --check-hook NAME")
    if user is not None and is_raw:
        raise UsageError(
            "--as and a check that reads devices, which are root's alone",
            subject=wanted.user or "",
            next_step="leave --as out; the ready-made vm-boot gives root's rights up once it has its disks",
        )
    require_root()
    return hook, user


def _proof(wanted: Wanted, hook: CheckHook | None, user: CheckUser | None, result: Drilled) -> DrillProof:
    command = hook.shown if hook else wanted.check or ""
    if command and wanted.args:
        command = f"{command}; words: {' '.join(wanted.args)}"
    verdict = result.verdict
    return DrillProof(
        version=importlib.metadata.version("farshore")[:63],
        hook=hook.name if hook else "",
        command=_bounded(command, CHECK_COMMAND_CHARS_MAX),
        user=(f"{user.name} ({user.uid}:{user.gid})" if user else _own_name())[:63] if command else "",
        exit_code=verdict.code if verdict else None,
        output=_bounded(verdict.said if verdict else "", CHECK_OUTPUT_CHARS_MAX),
        tools=verdict.tools if verdict else (),
        digests=result.digests,
    )


def _bounded(text: str, chars: int) -> str:
    """How it began and how it ended."""
    return text if len(text) <= chars else f"{text[: chars // 2 - 1]}…{text[-(chars // 2) :]}"


def _own_name() -> str:
    number = os.geteuid()
    try:
        return f"{pwd.getpwuid(number).pw_name} ({number})"
    except KeyError:
        return str(number)


def _data_age_s(cut: CutResolveReply, started_ns: int, *, newest: bool) -> float | None:
    """How far what the drill recovers is behind. The newest cut stands for all up to `complete_until`, though
    its last frame may be older: nothing was written since."""
    started = time_text(started_ns)
    ages = [age_s(cut.time, started), age_s(cut.complete_until, started) if newest else None]
    known = [age for age in ages if age is not None]
    return round(min(known), 3) if known else None
