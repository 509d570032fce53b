"""What a site is to drill, and when."""

from __future__ import annotations

from dataclasses import replace

from daemon.site import Site
from engine.copies.copies import Copy, CopyState
from engine.copies.copy_states import state_of
from engine.group.group import Group
from engine.integrity.proofs import Plan
from protocol.commands.drill import DrillPlanInfo, DrillPlanReply, DrillPlanSet
from protocol.cut_text import time_text
from protocol.errors import UsageError
from protocol.proof_limits import DRILL_EVERY_S_MIN


def set_plan(site: Site, command: DrillPlanSet) -> DrillPlanReply:
    """Have a group drilled here, in whichever role: it is this site's own matter, not the group's."""
    group = site.group(command.group)
    before = site.proofs.plan(group.name)
    if command.every_s == 0:
        site.proofs.set_plan(group.name, None)
        site.events.emit("drill.planned", group=group.name, every_s=0)
        return DrillPlanReply(plans=[])
    every_s = command.every_s or (before.every_s if before else 0)
    hook = command.hook or (before.hook if before else "")
    if not every_s or not hook:
        lacking = "how often" if not every_s else "which check"
        raise UsageError(
            f"{group.name} is to be drilled, but not said is {lacking}",
            subject=group.name,
            next_step=f"farshore schedule set {group.name} --drill weekly --check-hook NAME",
        )
    if every_s < DRILL_EVERY_S_MIN:
        raise UsageError(
            f"a drill every {every_s} s is too often", next_step=f"{DRILL_EVERY_S_MIN}s at least"
        )
    plan = before or Plan(every_s=every_s, hook=hook, args=(), user="", set_utc_ns=site.clock.utc_ns())
    plan = replace(
        plan,
        every_s=every_s,
        hook=hook,
        args=plan.args if command.args is None else command.args,
        user=plan.user if command.user is None else command.user,
    )
    site.proofs.set_plan(group.name, plan)
    site.events.emit("drill.planned", group=group.name, every_s=every_s, check=hook)
    return DrillPlanReply(plans=[plan_info(site, group, plan)])


def plan_info(site: Site, group: Group, plan: Plan) -> DrillPlanInfo:
    """A plan, and what it comes to now."""
    now_ns = site.clock.utc_ns()
    last = site.drills.last(group.name, now_ns)
    due_ns = plan.due_utc_ns(last.started_utc_ns if last else None, now_ns)
    copy = _newest_whole(group)
    return DrillPlanInfo(
        group=group.name,
        site=site.config.name,
        every_s=plan.every_s,
        hook=plan.hook,
        args=list(plan.args),
        user=plan.user,
        due=time_text(due_ns),
        is_due=due_ns <= now_ns,
        backup=copy.name if copy else "",
    )


def _newest_whole(group: Group) -> Copy | None:
    whole = (CopyState.AVAILABLE, CopyState.VERIFIED)
    return next((copy for copy in group.copies.newest(group.spans()) if state_of(group, copy) in whole), None)
