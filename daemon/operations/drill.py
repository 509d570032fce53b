"""Commands about drills: keep a result, list those that are kept, sign reports of them, say what is due."""

from __future__ import annotations

from msgspec import UnsetType

from daemon.operations import drill_plan
from daemon.operations.drill_proof import backup_at, proof_of, say_drill
from daemon.operations.drill_report import report_of
from daemon.operations.drill_row import DrillPlace, KnownDrill, drill_info, newest_first
from daemon.operations.paging import Page, rows_of, start_of
from daemon.operations.registry import carries_out
from daemon.operations.shapes import time_of
from daemon.signing_key import signing_seed
from daemon.site import Site
from engine.integrity.drills import NOTHING_BESIDE, Drill, Step
from engine.integrity.proofs import beside_its_drill
from protocol.commands.drill import (
    DrillInfo,
    DrillKey,
    DrillKeyReply,
    DrillList,
    DrillListReply,
    DrillPlanReply,
    DrillPlans,
    DrillPlanSet,
    DrillRecord,
    DrillSign,
    SignedReport,
)
from protocol.signatures import fingerprint_of, key_of


@carries_out(DrillRecord)
async def record(site: Site, command: DrillRecord) -> DrillInfo:
    """Keep a drill, and say it as an event: one that failed is a warning."""
    group = site.group(command.group)
    cut = command.cut.cut
    proof = None
    if not isinstance(command.proof, UnsetType):
        proof = proof_of(backup_at(group, cut), command.proof)
    drill = site.drills.add(
        Drill(
            group=group.name,
            started_utc_ns=command.started_utc_ns,
            volumes=command.volumes,
            cut=cut,
            cut_utc_ns=time_of(group, cut) or 0,
            ok=command.ok,
            recovery_ms=round(command.recovery_s * 1e3),
            data_age_ms=-1 if command.data_age_s is None else round(command.data_age_s * 1e3),
            steps=tuple(
                Step(
                    step=each.step,
                    volume=each.volume,
                    state=each.state,
                    took_ms=round(each.took_s * 1e3),
                    said=each.said,
                )
                for each in command.steps
            ),
        ),
        beside_its_drill(proof) if proof else NOTHING_BESIDE,
    )
    info = drill_info(site, KnownDrill(drill=drill))
    say_drill(site, info, proof)
    return info


@carries_out(DrillList)
async def list_drills(site: Site, command: DrillList) -> Page[DrillListReply]:
    """Newest first."""
    names = [site.group(command.group).name] if command.group else sorted(site.groups)
    start = start_of(command, DrillPlace)
    rows = newest_first(site, names, start, start.left if start else command.limit)
    drills, more = await rows_of(site, command, rows, lambda known: drill_info(site, known))
    return Page(DrillListReply(drills=drills), more)


@carries_out(DrillKey)
async def key(site: Site, _: DrillKey) -> DrillKeyReply:
    """The public part of the signing key, made now if there is none."""
    public = key_of(signing_seed(site.disk))
    return DrillKeyReply(site=site.config.name, key=public, fingerprint=fingerprint_of(public))


@carries_out(DrillSign)
async def sign(site: Site, command: DrillSign) -> SignedReport:
    """A report of drills that this site recorded, and of nothing that a caller says."""
    return await report_of(site, command)


@carries_out(DrillPlanSet)
async def set_plan(site: Site, command: DrillPlanSet) -> DrillPlanReply:
    """Have a group drilled here, or no more."""
    return drill_plan.set_plan(site, command)


@carries_out(DrillPlans)
async def plans(site: Site, command: DrillPlans) -> DrillPlanReply:
    """By group."""
    groups = (
        [site.group(command.group)] if command.group else [each for _, each in sorted(site.groups.items())]
    )
    found = ((group, site.proofs.plan(group.name)) for group in groups)
    return DrillPlanReply(
        plans=[drill_plan.plan_info(site, group, plan) for group, plan in found if plan is not None]
    )
