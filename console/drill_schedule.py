"""What `farshore schedule` says of drills: they are a matter of each site, which carries them out by a
timer."""

from __future__ import annotations

from typing import Annotated

import typer

from console.figures import parse_span, span_text
from console.session import Session
from protocol.commands.base import check_name
from protocol.commands.drill import DrillPlanInfo, DrillPlans, DrillPlanSet
from protocol.errors import UsageError

DAY_S = 86_400
WORDS = {"hourly": 3600, "daily": DAY_S, "weekly": 7 * DAY_S, "monthly": 30 * DAY_S, "yearly": 365 * DAY_S}

CheckHook = Annotated[
    str | None, typer.Option("--check-hook", metavar="NAME", help="Drills: as `drill checks` lists it.")
]
CheckArg = Annotated[
    list[str] | None, typer.Option("--check-arg", metavar="WORD", help="Drills: a word for the check.")
]
DrillAs = Annotated[
    str | None, typer.Option("--as", metavar="USER|UID:GID|none", help="Drills: run the check as that user.")
]


def set_drills(
    session: Session,
    group: str,
    every: str | None,
    hook: str | None,
    args: list[str] | None,
    user: str | None,
) -> None:
    """Tell the site; a check that is not at this machine is refused now, not on the day of the drill."""
    if hook is not None:
        # Loaded here: whoever sets a schedule without drills needs none of it.
        from console.mounts.check_hooks import find_hook

        find_hook(hook)
    data = session.call(
        DrillPlanSet(
            group=group,
            every_s=None if every is None else _every_s(every),
            hook=None if hook is None else check_name(hook, "check"),
            args=None if args is None else tuple(args),
            user=None if user is None else "" if user == "none" else user,
        )
    )

    def show() -> None:
        if not data.plans:
            session.output.line(f"{group} is not drilled by itself any more")
        for plan in data.plans:
            session.output.fields([("group", plan.group), *drill_fields(session, plan)])
            site = session.output.site or plan.site
            session.output.note(
                f"next: systemctl enable --now farshore-drill@{site}.timer, or have root's cron run "
                "`farshore drill due` each hour"
            )

    session.output.result("drill.plan", data, show)


def plan_of(session: Session, group: str) -> DrillPlanInfo | None:
    """What the site is to drill; None also of one of an earlier version, which knows no such schedule."""
    try:
        plans = session.call(DrillPlans(group=group)).plans
    except UsageError:
        return None
    return plans[0] if plans else None


def _every_s(text: str) -> int:
    if text == "none":
        return 0
    # Less than a second is no 0, which would mean none: the site says what is too often.
    return WORDS.get(text) or max(1, int(parse_span(text)))


def drill_fields(session: Session, plan: DrillPlanInfo | None) -> list[tuple[str, str]]:
    """Lines about it."""
    if plan is None:
        return []
    user = f" as {plan.user}" if plan.user else ""
    words = f" ({' '.join(plan.args)})" if plan.args else ""
    due = "now" if plan.is_due else session.local(plan.due)
    return [
        ("drill", f"every {span_text(plan.every_s)} at {plan.site}: {plan.hook}{words}{user}"),
        ("next drill", f"{due}, of {plan.backup or 'the newest moment'}"),
    ]
