"""Verification: a quick one, answered at once, and the deep one, a job that takes a round of everything.

The deep one works in slices in the group's indexer process, paced, and remembers where it is; what it finds
goes into the group's table of damage. At the end of a round the copies that it covered are verified.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial

from daemon.jobs import Job
from daemon.operations.registry import carries_out
from daemon.operations.reviving import revive
from daemon.site import Site
from engine.copies.copies import Copy
from engine.group.group import Group
from engine.index.requests import IndexRequest
from engine.integrity.damage import damage_text
from engine.integrity.faults import Damage, Fault
from engine.integrity.repair import Repair
from engine.integrity.verify_rounds import VerifyRound, last_round, load_round
from engine.integrity.verify_slices import IndexSlice, JournalSlice, VerifyIndex, VerifyJournal
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
from protocol.errors import Busy, FarshoreError, Unreachable, UsageError, WrongState
from protocol.positions import Cut
from site_primary.pace import Pace

KIND = "verify"
DAMAGE_SHOWN_MAX = 1000
SAVE_EVERY_S = 2.0
SHOW_EVERY_S = 0.25
SHOW_EVERY_PLACES = 100
ASK_AGAIN_MAX = 3
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
        found += (await _slice(group, at, request))[1]
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
                next_step=f"farshore job watch {job.number}, or job cancel {job.number}",
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


async def work(site: Site, job: Job) -> VerifyResult:
    """The job."""
    began = site.clock.monotonic()
    mended = 0
    if job.group in site.damaged and job.arguments["repair"]:
        mended = await revive(site, job, job.group)
    group = site.group(job.group)
    deadline = began + job.arguments["for_s"] if job.arguments["for_s"] else None
    found, complete, reasons = None, False, dict[Damage, str]()
    for _ in range(ROUNDS_MAX):
        places = 0
        if job.arguments["deep"]:
            found = load_round(group) or await _begin_round(group)
            complete = await _go_on(site, job, group, found, deadline)
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
    verified = mark_copies(group, found if complete else None, affected)
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


async def _begin_round(group: Group) -> VerifyRound:
    """A new round, for everything that is written now. It should be in the index; where that cannot be,
    because the journal cannot be read, the round is for what is durable, and will find why."""
    failures = group.checkpoints.failures
    indexed: asyncio.Future[Cut] = asyncio.get_running_loop().create_future()
    group.checkpoints.when_indexed(lambda cut: None if indexed.done() else indexed.set_result(cut))
    while not indexed.done() and group.checkpoints.failures == failures and not group.failed:
        await asyncio.wait({indexed}, timeout=0.2)
    if indexed.done():
        target, reached = indexed.result(), indexed.result().position
    else:
        target, reached = Cut(group.head.timeline, group.writer.durable), group.checkpoints.reached
    if not group.head:
        raise WrongState(f"{group.name} has no history yet", subject=group.name)
    began = VerifyRound(group=group, began_utc_ns=group.clock.utc_ns(), target=target, indexed=reached)
    began.save()
    return began


async def _go_on(site: Site, job: Job, group: Group, at: VerifyRound, deadline: float | None) -> bool:
    """Check slice after slice; whether the round came to its end."""
    clock = site.clock
    pace = Pace(job.arguments["rate_bytes_s"])
    saved = shown = clock.monotonic()
    while (request := at.next()) is not None:
        now = clock.monotonic()
        if deadline is not None and now >= deadline:
            at.save()
            return False
        read_bytes, _ = await _slice(group, at, request)
        pace.spend(read_bytes, clock.monotonic())
        if clock.monotonic() - saved > SAVE_EVERY_S:
            at.save()
            saved = clock.monotonic()
        if clock.monotonic() - shown > SHOW_EVERY_S:
            total = group.segments.total_bytes() if isinstance(request, VerifyJournal) else None
            part = "journal" if total else "index"
            job.progress(at.journal_bytes if total else at.version_bytes, total, "bytes", part)
            shown = clock.monotonic()
        wait_s = pace.wait_s(1, clock.monotonic())
        if wait_s:
            await asyncio.sleep(wait_s)
    return True


async def _slice(
    group: Group, at: VerifyRound, request: VerifyJournal | VerifyIndex
) -> tuple[int, list[Damage]]:
    """Check one slice and note what it found; the bytes that it read, and the damage."""
    figures = await ask_indexer(group, request)
    found: JournalSlice | IndexSlice
    if isinstance(request, VerifyJournal):
        found = journal = JournalSlice.from_figures(figures)
        at.took_journal(request, journal)
    else:
        found = index = IndexSlice.from_figures(figures)
        at.took_index(index)
    damage = [each for each in found.damage if at.still_here(each)]
    if found.missed:
        damage.append(Damage(Fault.MORE, (0, 0, 0, 0)))
    _note(group, damage)
    return found.read_bytes, damage


def _note(group: Group, damage: list[Damage]) -> None:
    new = group.damage.found(damage)
    if new:
        group.emit(
            "damage.found",
            group=group.name,
            object=f"{group.name} {new[0].subject}",
            position=new[0].position,
            places=len(new),
            error=new[0].message,
        )


async def repair(site: Site, job: Job, group: Group) -> tuple[int, dict[Damage, str]]:
    """Mend what is known to be damaged, and what comes to light behind it; how many places were mended, and
    why the others were not."""
    source = site.ask_peer(group.name) if site.peer_of(group.name) else None
    mender = Repair(group, source, ask_indexer)
    mended, reasons = 0, dict[Damage, str]()
    waiting: deque[Damage] = deque(group.damage.all())
    whole: list[Damage] = []  # to be taken off the list together: each time is a sync
    try:
        while waiting:
            if mended % SHOW_EVERY_PLACES == 0:
                job.progress(mended, mended + len(waiting), "places", "mending")
            await asyncio.sleep(0)
            damage = waiting.popleft()
            try:
                behind = await mender.mend(damage)
            except Unreachable as error:
                # Asking for each of thousands of blocks would wait for the same silence.
                reasons[damage] = error.message
                mender = Repair(group, None, ask_indexer)
            except FarshoreError as error:
                reasons[damage] = error.message
            else:
                whole.append(damage)
                waiting.extend(behind)
                mended += 1
                if behind:
                    _note(group, behind)
    finally:
        group.damage.mended(whole)
    if mended:
        group.emit("damage.mended", group=group.name, object=group.name, places=mended, left=len(reasons))
    return mended, reasons


def mark_copies(
    group: Group, whole: VerifyRound | None, affected: list[tuple[Copy, list[Damage]]]
) -> list[str]:
    """Say of each copy what was found out about it; the ids of those that a whole round verified."""
    damaged = {copy.id: damage for copy, damage in affected}
    verified = []
    for copy in group.copies.at(group.spans(group.writer.written)):
        if copy.id in damaged:
            group.copies.damaged(copy.id, damage_text(damaged[copy.id]))
        elif whole is not None and whole.covers(copy) and group.kept.readable(copy.cut):
            group.copies.verified(copy.id, whole.began_utc_ns)
            verified.append(f"{copy.id:016x}")
        elif group.copies.mark_of(copy.id).damage:
            group.copies.mended(copy.id)
    return verified


async def ask_indexer(group: Group, request: IndexRequest) -> tuple[int, ...]:
    """The figures of an answer. A process that ended is begun again, and asked again; FarshoreError."""
    for attempt in range(ASK_AGAIN_MAX):
        answer: asyncio.Future[tuple[int, ...]] = asyncio.get_running_loop().create_future()

        def done(error: Exception | None, figures: tuple[int, ...]) -> None:
            if answer.done():  # noqa: B023 - each attempt waits for its own answer
                return
            if error is None:
                answer.set_result(figures)  # noqa: B023
            else:
                answer.set_exception(error)  # noqa: B023

        group.checkpoints.indexer.start(request, done)
        try:
            return await answer
        except FarshoreError:
            if attempt + 1 == ASK_AGAIN_MAX:
                raise
    raise FarshoreError("the indexer process does not answer", subject=group.name)


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
        subject = f"{group.name}/{name} block {damage.place[2]}" if name else subject
    return DamageInfo(
        object=subject,
        position=damage.position,
        message=f"{damage.message}; not mended: {reason}" if reason else damage.message,
        next=step,
    )
