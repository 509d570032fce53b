"""What a verification does: it checks slice after slice in the group's indexer process, paced, repairs what
is damaged, and says of each copy what was found out about it."""

from __future__ import annotations

import asyncio
from collections import deque

from daemon.jobs import Job
from daemon.operations.paging import TimeSlices
from daemon.site import Site
from engine.copies.copies import Copy
from engine.copies.copy_marks import CopyMark
from engine.group.group import Group
from engine.index.requests import IndexRequest
from engine.integrity.damage import damage_text
from engine.integrity.faults import Damage, Fault
from engine.integrity.repair import Repair
from engine.integrity.verify_rounds import VerifyRound
from engine.integrity.verify_slices import IndexSlice, JournalSlice, VerifyIndex, VerifyJournal
from protocol.errors import FarshoreError, Unreachable, WrongState
from protocol.positions import Cut
from site_primary.shipping.rate_limit import TokenBucket

SAVE_EVERY_S = 2.0
SHOW_EVERY_S = 0.25
SHOW_EVERY_PLACES = 100
MARKS_A_COMMIT = 500
ASK_AGAIN_MAX = 3


async def begin_round(group: Group) -> VerifyRound:
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
    began = VerifyRound(group=group, began_utc_ns=group.damage.moment_ns(), target=target, indexed=reached)
    began.save()
    return began


async def go_on(site: Site, job: Job, group: Group, at: VerifyRound, deadline: float | None) -> bool:
    """Check slice after slice; whether the round came to its end."""
    clock = site.clock
    pace = TokenBucket(job.arguments["rate_bytes_s"])
    saved = shown = clock.monotonic()
    checked = 0
    while (request := at.next()) is not None:
        # Each run gets on: one that has hardly any time, at a machine that is busy, would else never end.
        if checked and deadline is not None and clock.monotonic() >= deadline:
            at.save()
            return False
        read_bytes, _ = await check_slice(group, at, request)
        checked += 1
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


async def check_slice(
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


async def mark_copies(
    site: Site, group: Group, whole: VerifyRound | None, affected: list[tuple[Copy, list[Damage]]], by: str
) -> list[str]:
    """Say of each copy what was found out about it, by whom; the ids of those that a whole round verified."""
    damaged, slices = {copy.id: damage for copy, damage in affected}, TimeSlices(site)
    verified, marks = [], dict[int, CopyMark | None]()
    for copy in reversed(list(group.copies.newest(group.spans(group.writer.written)))):
        before = group.copies.mark_of(copy.id)
        if copy.id in damaged:
            marks[copy.id] = CopyMark(before.verified_utc_ns, damage_text(damaged[copy.id]))
        elif whole is not None and whole.covers(copy) and group.kept.readable(copy.cut):
            marks[copy.id] = CopyMark(whole.began_utc_ns, "")
            verified.append(f"{copy.id:016x}")
        elif before.damage:
            marks[copy.id] = CopyMark(before.verified_utc_ns, "")
        if len(marks) == MARKS_A_COMMIT:
            _note_living(group, marks, whole, by)
        await slices.pause()
    _note_living(group, marks, whole, by)
    return verified


def _note_living(group: Group, marks: dict[int, CopyMark | None], whole: VerifyRound | None, by: str) -> None:
    """Of copies that were not deleted meanwhile; takes them out."""
    living = {each: mark for each, mark in marks.items() if not group.copies.was_deleted(each)}
    marks.clear()
    if whole is not None:
        verified = CopyMark(whole.began_utc_ns, "")
        given = [each for each, mark in living.items() if mark == verified]
        group.copies.note_giver(given, whole.began_utc_ns, by)
    group.copies.note(living)


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
