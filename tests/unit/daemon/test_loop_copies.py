"""Commands about backups, clones, restores, drills, jobs and the past of a group that has much of everything:
none of them holds the hosts' loop for more than 20 ms of processor time."""

from __future__ import annotations

import asyncio

import pytest

from daemon.operations import dispatch
from daemon.operations.waiting import wait_durable
from protocol.commands.backup import (
    BackupCreate,
    BackupDelete,
    BackupDeleteMany,
    BackupList,
    BackupLock,
    BackupPin,
    BackupPrune,
    BackupShow,
)
from protocol.commands.clone import CloneCreate, CloneDelete, CloneList
from protocol.commands.cut import CutResolve
from protocol.commands.drill import (
    DrillKey,
    DrillList,
    DrillPlans,
    DrillPlanSet,
    DrillProof,
    DrillRecord,
    DrillSign,
    DrillStep,
    VolumeDigest,
)
from protocol.commands.event import Events
from protocol.commands.job import JobCancel, JobList, JobShow, JobWatch
from protocol.commands.journal import JournalShow
from protocol.commands.restore import RestoreGroup, RestoreVolume
from protocol.commands.timeline import Timeline
from protocol.commands.verify import Verify, VerifyStart
from protocol.cut_text import CutLabel, CutLatest, CutPosition, CutTime
from protocol.positions import Cut
from site_primary.backup import take_backup
from tests.unit.daemon.every_command import Giver, Kind, giving
from tests.unit.daemon.stage import Stage, staged
from tests.unit.daemon.test_loop_is_free import filled

COMMANDS_GIVEN: frozenset[Kind] = frozenset({
    BackupCreate, BackupDelete, BackupDeleteMany, BackupList, BackupLock, BackupPin, BackupPrune, BackupShow,
    CloneCreate, CloneDelete, CloneList, CutResolve, DrillKey, DrillList, DrillPlans, DrillPlanSet,
    DrillRecord, DrillSign, Events, JobCancel, JobList, JobShow, JobWatch, JournalShow, RestoreGroup,
    RestoreVolume, Timeline, Verify, VerifyStart,
})  # fmt: skip
GROUP = "good"
CLONES, DRILLS, MORE_BACKUPS = 24, 90, 2_000


def labels(first: int, count: int) -> list[CutLabel]:
    """Of the backups that `filled` takes: each second one has a label."""
    return [CutLabel(label=f"l{number}") for number in range(first, first + 2 * count, 2)]


async def backups(stage: Stage, give: Giver) -> None:
    a, many = stage.a, labels(301, 100)
    made = await give(a, *[BackupCreate(group=GROUP, label=f"new{n}") for n in range(3)])
    assert {each.kind for each in made} == {"mark"}
    for site in (a, stage.b):
        await give(site, BackupList())
        await give(site, BackupShow(group=GROUP, cut=many[0], space=True))
    await give(a, *[BackupPin(group=GROUP, cut=cut) for cut in labels(1, 3)])
    await give(a, *[BackupLock(group=GROUP, cut=cut, lock_s=3600) for cut in labels(11, 3)])
    looks = [BackupDelete(group=GROUP, cut=cut, dry_run=True) for cut in labels(21, 3)]
    await give(a, *looks, note="dry run")
    gone = [BackupDelete(group=GROUP, cut=cut, confirm=cut.label) for cut in labels(21, 3)]
    assert all(each.deleted for each in await give(a, *gone))
    parts = [tuple(many[first : first + 30]) for first in (0, 30, 60)]
    look = [BackupDeleteMany(group=GROUP, cuts=tuple(many), dry_run=True)] * 3
    await give(a, *look, note="dry run")
    deleted = await give(a, *[BackupDeleteMany(group=GROUP, cuts=cuts, confirm=GROUP) for cuts in parts])
    assert [len(each.deleted) for each in deleted] == [30, 30, 30]
    await give(a, *[BackupPrune(group=GROUP, keep_last=10, labelled=True, dry_run=True)] * 3, note="dry run")
    steps = (700, 500, 300)
    pruned = await give(
        a, *[BackupPrune(group=GROUP, keep_last=left, labelled=True, confirm=GROUP) for left in steps]
    )
    assert all(each.deleted for each in pruned)


async def clones(stage: Stage, give: Giver, before: Cut) -> None:
    """Beside more backups than before: to make and to delete a clone costs the same."""
    group = stage.group(GROUP)
    for number in range(MORE_BACKUPS):
        take_backup(group, volume=None, label="", cut=None, pinned=False, rng=stage.a.rng)
        if number % 50 == 0:
            await asyncio.sleep(0)
    await wait_durable(group)
    cut = CutPosition(timeline=before.timeline, position=before.position)
    names = [f"clone{number}" for number in range(CLONES)]
    await give(stage.a, *[CloneCreate(group=GROUP, cut=cut, clone=name) for name in names])
    assert len((await give(stage.a, CloneList()))[0].clones) == CLONES
    await give(stage.a, *[CloneDelete(clone=name, confirm=name) for name in names])


async def the_past(stage: Stage, give: Giver, before: Cut) -> None:
    a, now_ns = stage.a, stage.a.clock.utc_ns()
    hour = {"from_ns": now_ns - 3600 * 10**9, "to_ns": now_ns}
    await give(a, Timeline(group=GROUP, buckets=1000, **hour))
    await give(a, JournalShow(group=GROUP, limit=5_000))
    await give(a, Events(limit=5_000))
    cut = CutPosition(timeline=before.timeline, position=before.position)
    for each in (cut, CutLabel(label="l999"), CutTime(utc_ns=now_ns), CutLatest()):
        await give(a, CutResolve(group=GROUP, cut=each), note=type(each).__name__)
    await give(a, *[RestoreGroup(group=GROUP, cut=cut, dry_run=True)] * 3, note="dry run")
    for kind in ("v", "map", "huge"):
        await give(
            a,
            *[RestoreVolume(group=GROUP, volume=kind, cut=cut, confirm=f"{GROUP}/{kind}", start=True)] * 3,
            note=kind,
        )
    restored = await give(a, *[RestoreGroup(group=GROUP, cut=cut, confirm=GROUP, start=True)] * 3)
    assert all(each.position for each in restored)


def drill(before: Cut, volumes: tuple[str, ...], started_utc_ns: int) -> DrillRecord:
    """A large one: of all volumes, with much that its check said."""
    steps = tuple(DrillStep(step="check", state="ok", took_s=1, volume=name) for name in volumes)
    digests = tuple(VolumeDigest(volume=name, digest="d" * 37, size_bytes=1 << 20) for name in volumes)
    return DrillRecord(
        group=GROUP,
        volumes=volumes,
        cut=CutPosition(timeline=before.timeline, position=before.position),
        started_utc_ns=started_utc_ns,
        ok=True,
        recovery_s=1.0,
        steps=steps,
        proof=DrillProof(version="1", command="check", exit_code=0, output="fine\n" * 300, digests=digests),
    )


async def drills(stage: Stage, give: Giver, before: Cut) -> None:
    a, now_ns = stage.a, stage.a.clock.utc_ns()
    volumes = tuple(sorted(stage.group(GROUP).volumes.at(stage.group(GROUP).spans())))
    await give(a, *[drill(before, volumes, now_ns + number) for number in range(DRILLS)])
    assert len((await give(a, DrillList(limit=DRILLS)))[0].drills) == DRILLS
    await give(a, *[DrillKey()] * 3)
    for form in ("text", "json", "html"):
        signed = await give(a, *[DrillSign(limit=DRILLS, format=form)] * 3, note=form)
        assert len(signed[0].drills) == DRILLS
    await give(a, *[DrillPlanSet(group=GROUP, every_s=86_400 * days, hook="check") for days in (1, 2, 3)])
    assert (await give(a, DrillPlans()))[0].plans


async def jobs(stage: Stage, give: Giver) -> None:
    a = stage.a
    assert (await give(a, Verify(group=GROUP)))[0].ok
    begun = []
    for _ in range(3):
        (job, *_) = await give(a, *[VerifyStart(group=GROUP, rate_bytes_s=1 << 20)] * 3)
        begun.append(job.job)
        await dispatch(a, JobCancel(job=job.job))
    running = [
        (await give(a, *[VerifyStart(group=GROUP, rate_bytes_s=1 << 20)] * 3))[0].job,
        (await give(stage.b, *[VerifyStart(group=GROUP, rate_bytes_s=1 << 20)] * 3))[0].job,
    ]
    assert (await give(a, JobList()))[0].jobs
    for kind in (JobShow, JobWatch):
        assert (await give(a, kind(job=running[0])))[0].job == running[0]
    ended = await give(a, *[JobCancel(job=running[0])] * 3)
    assert ended[0].state == "cancelled" or ended[0].cancelling
    await give(stage.b, *[JobCancel(job=running[1])] * 3, note="at b")


@pytest.mark.timeout(900)  # where others take most of the machine
def test_no_command_about_copies_holds_the_loop() -> None:
    async def play() -> Giver:
        async with staged(names=(GROUP,)) as stage:
            before = await filled(stage)
            async with giving(stage) as give:
                await backups(stage, give)
                await the_past(stage, give, before)
                await drills(stage, give, before)
                await jobs(stage, give)
                await clones(stage, give, before)
            return give

    give = asyncio.run(play())
    assert give.given == COMMANDS_GIVEN
    assert give.held() == {}
