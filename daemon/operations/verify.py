"""Verification: a quick one, answered at once, and the deep one, a job that takes a round of everything.

The deep one works in slices in the group's indexer process, paced, and remembers where it is; what it finds
goes into the group's table of damage. At the end of a round the copies that it covered are verified.
"""

from __future__ import annotations

import asyncio
from functools import partial

from daemon.jobs import Job
from daemon.operations.checking import begin_round, check_slice, go_on, mark_copies, repair
from daemon.operations.registry import carries_out
from daemon.site import Site
from engine.group.group import Group
from engine.integrity.faults import Damage, Fault
from engine.integrity.reviving import revive
from engine.integrity.verify_rounds import VerifyRound, last_round, load_round
from protocol.commands.job import JobInfo
from protocol.commands.verify import (
    AffectedBackup,
    DamageInfo,
    Verify,
    VerifyReply,
    VerifyResult,
    VerifyStart,
)
from protocol.cut_text import time_text
from protocol.errors import Busy, UsageError
from protocol.positions import Cut

KIND = "verify"
DAMAGE_SHOWN_MAX = 1000
ROUNDS_MAX = 1000


@carries_out(Verify)
async def verify(site: Site, command: Verify) -> VerifyReply:
    """A plain round, at once: the indexer process does it, hosts do not wait."""
    group = site.group(command.group)
    began = site.clock.monotonic()
    at = VerifyRound(
        group=group,
        began_utc_ns=group.clock.utc_ns(),
        target=Cut(group.head.timeline, group.writer.durable),
        indexed=group.checkpoints.reached,
        deep=False,
    )
    found: list[Damage] = []
    while (request := at.next()) is not None:
        found += (await check_slice(group, at, request))[1]
    return VerifyReply(
        group=group.name,
        ok=not found,
        deep=False,
        frames=at.frames,
        bytes=at.journal_bytes,
        versions=at.versions,
        damage=[damage_info(group, damage) for damage in found[:DAMAGE_SHOWN_MAX]],
        took_s=round(site.clock.monotonic() - began, 3),
    )


@carries_out(VerifyStart)
async def start(site: Site, command: VerifyStart) -> JobInfo:
    """Begin the job, or say which one runs. Of a group that could not be opened it can only be mended."""
    name = command.group
    if not (command.repair and name in site.damaged):
        site.group(name)
    if not command.deep and not command.repair:
        raise UsageError("neither to check nor to mend", subject=name, next_step="add --deep")
    arguments = {
        "deep": command.deep,
        "repair": command.repair,
        "rate_bytes_s": command.rate_bytes_s,
        "for_s": command.for_s,
    }
    for job in site.jobs.running(KIND, name):
        if job.arguments != arguments:
            raise Busy(
                f"{name} is being verified by job {job.number}, which was asked for something else",
                subject=name,
                next_step=f"`farshore job watch {job.number}`, or `farshore job cancel {job.number}`",
            )
        return job.info()
    job = site.jobs.start(
        KIND,
        partial(work, site),
        group=name,
        subject=name,
        arguments=arguments,
        resumable=True,
    )
    return job.info()


async def _revive(site: Site, job: Job) -> int:
    """Open a group that its damaged journal keeps closed; the number of frames that came from the peer."""
    name = job.group
    mended = await revive(
        name,
        site.damaged[name],
        peer=site.ask_peer(name),
        disk=site.disk,
        reopen=lambda: site.reopen(name),
        progress=lambda frames: job.progress(frames, None, "frames", "mending"),
    )
    site.events.emit("group.mended", group=name, frames=mended)
    return mended


async def work(site: Site, job: Job) -> VerifyResult:
    """The job."""
    began = site.clock.monotonic()
    mended = 0
    if job.group in site.damaged and job.arguments["repair"]:
        mended = await _revive(site, job)
    group = site.group(job.group)
    deadline = began + job.arguments["for_s"] if job.arguments["for_s"] else None
    found, complete, reasons = None, False, dict[Damage, str]()
    for _ in range(ROUNDS_MAX):
        places = 0
        if job.arguments["deep"]:
            found = load_round(group) or await begin_round(group)
            group.damage.moment_ns(found.began_utc_ns)
            complete = await go_on(site, job, group, found, deadline)
        if job.arguments["repair"]:
            places, reasons = await repair(site, job, group)
            mended += places
        if found is not None and complete:
            group.damage.mended(group.damage.not_found_since(found.began_utc_ns))
            found.end()
        # There was more damage than is kept at once: what is left of it, another round finds.
        if not (complete and places and {damage.fault for damage in reasons} == {Fault.MORE}):
            break
    affected = []
    for each in group.damage.copies():
        affected.append(each)
        await asyncio.sleep(0)
    verified = await mark_copies(site, group, found if complete else None, affected, job.by)
    last = last_round(group)
    return VerifyResult(
        group=group.name,
        ok=not len(group.damage),
        deep=job.arguments["deep"],
        complete=complete,
        since=time_text(last[0]) if last else None,
        frames=found.frames if found else 0,
        bytes=found.journal_bytes + found.version_bytes if found else 0,
        versions=found.versions if found else 0,
        damage=[
            damage_info(group, damage, reasons.get(damage, ""))
            for damage in group.damage.all()[:DAMAGE_SHOWN_MAX]
        ],
        damaged=len(group.damage),
        backups=[
            AffectedBackup(id=f"{copy.id:016x}", label=copy.label or None, damaged=len(damage))
            for copy, damage in affected
        ],
        volumes=group.damage.live(),
        verified=verified,
        mended=mended,
        took_s=round(site.clock.monotonic() - began, 3),
    )


def damage_info(group: Group, damage: Damage, reason: str = "") -> DamageInfo:
    """A damaged place; `reason` is why it could not be mended."""
    subject = f"{group.name} {damage.subject}".strip()
    step = f"farshore verify {group.name} --repair"
    if damage.fault is Fault.UNREAD:
        step = f"farshore journal show {group.name} --since {damage.position}"
    if damage.fault in (Fault.FRAME, Fault.UNREAD):
        segment = group.segments.segment_at(damage.place[0], damage.place[1])
        subject = f"{group.name} {segment.path}" if segment else subject
    elif damage.place[1] and damage.subject.startswith("lane"):
        names = {volume.id: volume.name for volume in group.volumes.at(group.spans()).values()}
        name = names.get(damage.place[1])
        subject = f"{group.name}/{name} {damage.blocks}" if name else subject
    return DamageInfo(
        object=subject,
        position=damage.position,
        message=f"{damage.message}; not mended: {reason}" if reason else damage.message,
        next=step,
    )
