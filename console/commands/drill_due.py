"""`farshore drill due` and `checks`: the drills that a site's schedule asks for, and the checks that there
are.

The daemon says what is due and runs nothing of it: it has no rights to mount, and a check is not its
business. A timer of the machine's root calls `drill due` (farshore-drill@SITE.timer, or cron).
"""

from __future__ import annotations

from typing import Annotated

import typer

from console.commands.drill import GroupOption
from console.luks.option import KeyFile, key_of
from console.luks.secret import LuksKey
from console.mounts.check_hooks import OWN, hooks
from console.mounts.recorded_drill import Wanted, carry_out
from console.session import Session, session_of
from protocol.commands.base import Reply, check_name
from protocol.commands.drill import DrillPlanInfo, DrillPlans
from protocol.errors import ExitCode, FarshoreError, system_error


class DueDrill(Reply, frozen=True, kw_only=True):
    """A drill of the schedule. `backup` empty: there is none, so the newest moment is drilled. `drill`
    empty: it was not run, with `error` for one that was tried."""

    group: str
    due: str
    is_due: bool
    backup: str
    check: str
    drill: str
    ok: bool | None
    error: str


class DueReply(Reply, frozen=True, kw_only=True):
    """By group."""

    drills: list[DueDrill]


def due(
    ctx: typer.Context,
    group: GroupOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is due, and when.")] = False,
    key_file: KeyFile = None,
) -> None:
    """Run the drills that `schedule set --drill` asks for and that are due at this site: of each group its
    newest backup. Needs root. Ends with 1 when one of them did not prove good or could not be run."""
    session = session_of(ctx)
    plans = session.call(DrillPlans(group=None if group is None else check_name(group, "group"))).plans
    key = key_of(ctx, key_file)
    rows = [_looked_at(plan) if dry_run or not plan.is_due else _run(session, plan, key) for plan in plans]
    data = DueReply(drills=rows)
    session.output.result("drill.due", data, lambda: _show(session, data))
    if any(row.ok is False for row in rows):
        raise typer.Exit(int(ExitCode.FAILED))


def _run(session: Session, plan: DrillPlanInfo, key: LuksKey) -> DueDrill:
    """What fails of one group keeps no other from being drilled."""
    try:
        wanted = Wanted(
            group=plan.group,
            at=plan.backup or None,
            hook=plan.hook,
            args=tuple(plan.args),
            user=plan.user or None,
            digest=True,
            key=key,
        )
        done = carry_out(session, wanted)
    except (FarshoreError, OSError) as error:
        known = system_error(error) if isinstance(error, OSError) else error
        return _looked_at(plan, ok=False, error=known.message)
    failed = next((step for step in done.steps if step.state == "failed"), None)
    error_text = f"{failed.step}: {failed.said}" if failed else ""
    return _looked_at(plan, ok=done.ok, drill=done.drill, error=error_text)


def _looked_at(plan: DrillPlanInfo, *, ok: bool | None = None, drill: str = "", error: str = "") -> DueDrill:
    return DueDrill(
        group=plan.group,
        due=plan.due,
        is_due=plan.is_due,
        backup=plan.backup,
        check=plan.hook,
        drill=drill,
        ok=ok,
        error=error,
    )


def _show(session: Session, data: DueReply) -> None:
    words = {None: "", True: "good", False: "FAILED"}
    session.output.table(
        ("group", "due", "result", "backup", "check", "said"),
        [
            (
                row.group,
                "now" if row.is_due else session.local(row.due),
                words[row.ok],
                row.backup or "newest moment",
                row.check,
                row.error.replace("\n", " / ")[-200:],
            )
            for row in data.drills
        ],
        empty="nothing is to be drilled here: `farshore schedule set G --drill weekly --check-hook NAME`",
    )


class CheckHookInfo(Reply, frozen=True, kw_only=True):
    """A check that `--check-hook` takes, its file, and the first line of what that says of itself."""

    check: str
    file: str
    says: str


class ChecksReply(Reply, frozen=True, kw_only=True):
    """By name."""

    checks: list[CheckHookInfo]


def checks(ctx: typer.Context) -> None:
    """The checks that lie at this machine: those that come with Farshore, and its own."""
    session = session_of(ctx)
    data = ChecksReply(
        checks=[CheckHookInfo(check=each.name, file=each.shown, says=each.says) for each in hooks()]
    )

    def show() -> None:
        session.output.table(
            ("check", "does", "file"),
            [(each.check, each.says, each.file) for each in data.checks],
            empty=f"none: your own go to {OWN}",
        )

    session.output.result("drill.checks", data, show)
