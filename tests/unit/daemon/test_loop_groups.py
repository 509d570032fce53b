"""Commands about volumes, groups, schedules and seeds at a site that has dozens of groups: none of them holds
the hosts' loop for more than 20 ms of processor time."""

from __future__ import annotations

import asyncio
from functools import partial

from protocol.commands.group import GroupDelete, GroupList, GroupRename, GroupShow
from protocol.commands.schedule import ScheduleList, ScheduleNext, ScheduleRemove, ScheduleSet
from protocol.commands.seed import SeedBegin, SeedKeep, SeedList, SeedRemove
from protocol.commands.site import SiteAccept, SiteStatus
from protocol.commands.volume import (
    VolumeCreate,
    VolumeDelete,
    VolumeList,
    VolumeOffline,
    VolumeOnline,
    VolumeRename,
    VolumeResize,
    VolumeShow,
    VolumeUri,
)
from protocol.commands.volume_access import VolumeAccess, VolumeAllow, VolumeDisallow
from protocol.commands.volume_import import VolumeFill, VolumeFilled
from protocol.cut_text import CutLatest
from protocol.positions import Cut
from tests.unit.daemon.every_command import Giver, Kind, giving
from tests.unit.daemon.stage import Stage, staged
from tests.unit.daemon.test_loop_is_free import written
from tests.unit.daemon.test_seeds import CONTENT, fill

COMMANDS_GIVEN: frozenset[Kind] = frozenset({
    GroupDelete, GroupList, GroupRename, GroupShow, ScheduleList, ScheduleNext, ScheduleRemove, ScheduleSet,
    SeedBegin, SeedKeep, SeedList, SeedRemove, SiteAccept, SiteStatus, VolumeAccess, VolumeAllow,
    VolumeCreate, VolumeDelete, VolumeDisallow, VolumeFill, VolumeFilled, VolumeList, VolumeOffline,
    VolumeOnline, VolumeRename, VolumeResize, VolumeShow, VolumeUri,
})  # fmt: skip
GROUPS = [f"g{number:02}" for number in range(36)]
SEEDS, HOSTS = 12, 40
WRITES, BLOCKS = 40, 250


async def volumes(stage: Stage, give: Giver) -> None:
    a, some = stage.a, GROUPS[:3]
    made = await give(a, *[VolumeCreate(group=name, volume="v", size_bytes=1 << 30) for name in GROUPS])
    assert len(made) == len(GROUPS)
    for name in some:
        for first in range(WRITES):
            group = stage.group(name)
            written(group, group.volume("v").id, *[2 * (first * BLOCKS + block) for block in range(BLOCKS)])
            await asyncio.sleep(0)
    await give(
        a, *[VolumeCreate(group=name, volume="w", size_bytes=1 << 20) for name in GROUPS], note="in it"
    )
    assert len((await give(a, VolumeList()))[0].volumes) == 2 * len(GROUPS) + 1
    await give(a, VolumeShow(group=GROUPS[0], volume="v", history=True))
    await give(a, VolumeUri(group=GROUPS[0], volume="v", cut=CutLatest(), sound=True))
    await give(a, *[VolumeResize(group=name, volume="v", size_bytes=2 << 30) for name in some], note="grow")
    smaller = [VolumeResize(group=name, volume="v", size_bytes=1 << 20, confirm=f"{name}/v") for name in some]
    assert all(each.position for each in await give(a, *smaller, note="shrink"))
    await give(a, *[VolumeOffline(group=name, volume="v") for name in some])
    assert all(
        each.online for each in await give(a, *[VolumeOnline(group=name, volume="v") for name in some])
    )
    filling = await give(a, *[VolumeFill(group=name, volume="v") for name in some])
    done = zip(some, filling, strict=True)
    await give(a, *[VolumeFilled(group=name, volume="v", token=each.token) for name, each in done])
    await give(a, *[VolumeRename(group=name, volume="w", to="u") for name in some])
    gone = [VolumeDelete(group=name, volume="u", confirm=f"{name}/u") for name in some]
    assert all(each.deleted for each in await give(a, *gone))


async def access(stage: Stage, give: Giver) -> None:
    a, name = stage.a, GROUPS[0]
    hosts = [f"uid:{number}" for number in range(HOSTS)]
    await give(a, *[VolumeAllow(group=name, volume="v", host=host, right="rw") for host in hosts])
    assert len((await give(a, VolumeAccess(group=name, volume="v")))[0].entries) == HOSTS
    await give(a, *[VolumeDisallow(group=name, volume="v", host=host) for host in hosts[:3]])


async def schedules(stage: Stage, give: Giver) -> None:
    a, cron, zone = stage.a, "30 2 29 2 1", "Europe/Berlin"
    await give(a, *[ScheduleSet(group=name, cron=cron, zone=zone, keep_last=5) for name in GROUPS])
    assert len((await give(a, ScheduleList()))[0].schedules) == len(GROUPS) + 1
    await give(a, ScheduleNext(cron=cron, zone=zone, count=100))
    await give(a, ScheduleNext(group=GROUPS[0], count=100), note="of a group")
    await give(a, *[ScheduleRemove(group=name) for name in GROUPS[:3]])


async def seeds(stage: Stage, give: Giver) -> None:
    """For volumes that a copy from the peer is to bring."""
    a, names = stage.a, [{"group": "seeded", "volume": f"v{number}"} for number in range(SEEDS)]
    size = len(CONTENT)
    begun = await give(a, *[SeedBegin(**name, size_bytes=size, data_bytes=size) for name in names])
    for each in begun:
        await asyncio.to_thread(fill, each)
    tokens = zip(names, begun, strict=True)
    await give(a, *[SeedKeep(**name, token=each.token) for name, each in tokens])
    assert len((await give(a, SeedList()))[0].seeds) == SEEDS
    removed = await give(a, *[SeedRemove(**name) for name in names])
    assert all(each.size_bytes for each in removed)


async def groups(stage: Stage, give: Giver) -> None:
    a = stage.a
    await give(a, SiteStatus())
    assert len((await give(a, GroupList()))[0].groups) == len(GROUPS) + 1
    await give(a, GroupShow(group=GROUPS[0]))
    for name in GROUPS[3:6]:
        group = stage.group(name)
        group.turned_back.found(Cut(group.end.timeline, group.end.position + 1), "the test")
    accepted = await give(a, *[SiteAccept(group=name, confirm=name) for name in GROUPS[3:6]])
    assert all(each.head for each in accepted)
    await give(a, *[GroupRename(group=name, new=f"new-{name}") for name in GROUPS[:6]])
    named = [f"new-{name}" for name in GROUPS[:6]]
    await give(a, *[GroupDelete(group=name, confirm=name) for name in named])
    await stage.until(partial(_gone, stage, named))


def _gone(stage: Stage, names: list[str]) -> bool:
    return not set(names) & set(stage.a.groups)


def test_no_command_about_groups_holds_the_loop() -> None:
    async def play() -> Giver:
        async with staged(names=("good",)) as stage, giving(stage) as give:
            for part in (volumes, access, schedules, seeds, groups):
                await part(stage, give)
            return give

    give = asyncio.run(play())
    assert give.given == COMMANDS_GIVEN
    assert give.held() == {}
