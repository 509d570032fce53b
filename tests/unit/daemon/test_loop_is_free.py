"""No command holds the hosts' loop: none of its callbacks takes more than 20 ms of processor time, over a
site with many backups, many intervals and large sparse maps.

Processor time of the loop's thread, and of each callback the best of some tries: neither a busy machine nor a
garbage collection that comes at the wrong moment makes it red. What takes long takes long each time.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from console.client import Client
from daemon.control import ControlServer
from daemon.operations import dispatch
from daemon.operations.waiting import wait_durable
from daemon.site import Site
from engine.group.group import Group
from protocol.commands.backup import BackupCreate, BackupDeleteMany, BackupList, BackupPrune, BackupShow
from protocol.commands.base import Command
from protocol.commands.branch import BranchList
from protocol.commands.clone import CloneList
from protocol.commands.drill import DrillList
from protocol.commands.event import Events
from protocol.commands.group import GroupList
from protocol.commands.job import JobList
from protocol.commands.journal import JournalShow
from protocol.commands.restore import RestoreGroup, RestoreVolume
from protocol.commands.schedule import ScheduleList
from protocol.commands.site import SiteStatus
from protocol.commands.timeline import Timeline
from protocol.commands.volume import VolumeCreate, VolumeList, VolumeShow
from protocol.cut_text import CutLabel, CutPosition
from protocol.events import Revert, VolumeCreated
from protocol.positions import Cut
from site_primary.backup import take_backup
from tests.support.loop_watch import LoopWatch, Tries, watched
from tests.unit.daemon.stage import BLOCK, Stage, answered, staged

TRIES, TRIES_MAX = 3, 8
# After a try that held the loop, before the next: what makes a machine slow comes and goes.
PAUSE_S = 0.2
BACKUPS, VOLUMES, RESTORES = 1_000, 30, 150
EXTENTS = 20_000
NBD_TIMEOUT_S = 120


def written(group: Group, volume: int, *blocks: int) -> Cut:
    """Blocks of a volume, as of a host; the cut after them."""
    group.append(
        [(1, volume, block, 1) for block in blocks], [b"x" * BLOCK] * len(blocks), BLOCK * len(blocks)
    )
    return group.end


async def filled(stage: Stage) -> Cut:
    """Fill the group; a cut from before the restores."""
    site, group = stage.a, stage.group("good")
    await dispatch(site, VolumeCreate(group="good", volume="huge", size_bytes=1 << 40))
    await dispatch(site, VolumeCreate(group="good", volume="map", size_bytes=1 << 30))
    group.append_records([VolumeCreated(name=f"w{n}", size_bytes=1 << 20) for n in range(VOLUMES)])
    huge, scattered, turned = (group.volume(name).id for name in ("huge", "map", "v"))
    for first in range(0, EXTENTS, 500):
        written(group, scattered, *[2 * block for block in range(first, first + 500)])
        await asyncio.sleep(0)
    for number in range(50):
        written(group, huge, number << 22)
    for number in range(BACKUPS):
        label = f"l{number}" if number % 2 else ""
        take_backup(group, volume=None, label=label, cut=None, pinned=False, rng=site.rng)
        if number % 100 == 0:
            await asyncio.sleep(0)
    cut = before = group.end
    for number in range(RESTORES):
        written(group, turned, number % 256)
        group.append_records([Revert(volume=turned, cut=cut)])
        cut = written(group, turned, 7 * number % 256)
    await wait_durable(group)
    await stage.paired("good")
    return before


@asynccontextmanager
async def served(stage: Stage) -> AsyncIterator[None]:
    """Both sites answer on their control sockets."""
    loop, servers = asyncio.get_running_loop(), []
    for site in (stage.a, stage.b):
        servers.append(ControlServer(loop, site.control_endpoint, partial(answered, site)))
        servers[-1].start()
    try:
        yield
    finally:
        for server in servers:
            await server.close()


def ask(site: Site, command: Command) -> Callable[[], Any]:
    """A command as the console gives it, from another thread."""

    def call() -> None:
        with Client(site.control_endpoint) as client:
            client.call(command, 120.0)

    return call


def nbdinfo(site: Site, *words: str) -> Callable[[], Any]:
    """A map, by another process."""
    socket = site.nbd_addresses[0].removeprefix("unix:")
    line = ["nbdinfo", *words[:-1], f"nbd+unix:///{words[-1]}?socket={socket}"]
    return partial(subprocess.run, line, check=True, capture_output=True, timeout=NBD_TIMEOUT_S)


def works(stage: Stage, before: Cut) -> dict[str, Callable[[], Any]]:
    """Whatever grows with what there is."""
    a, b = stage.a, stage.b
    cut = CutPosition(timeline=before.timeline, position=before.position)
    now_ns = a.clock.utc_ns()
    hour = {"from_ns": now_ns - 3600 * 10**9, "to_ns": now_ns}
    queries: list[Command] = [
        SiteStatus(), BackupList(), BackupList(group="good", volume="v"), VolumeList(), GroupList(), Events(),
        VolumeShow(group="good", volume="v", history=True), BranchList(group="good"), CloneList(), JobList(),
        BackupShow(group="good", cut=CutLabel(label="l1")), ScheduleList(), DrillList(),
        BackupShow(group="good", cut=CutLabel(label="l1"), space=True), Timeline(group="good", **hour),
        BackupCreate(group="good"), JournalShow(group="good", limit=5_000),
        BackupPrune(group="good", keep_last=10, keep_daily=3, labelled=True, dry_run=True),
        RestoreGroup(group="good", cut=cut, dry_run=True),
        RestoreVolume(group="good", volume="v", cut=cut, confirm="good/v", start=True),
    ]  # fmt: skip
    found = {f"{number} {type(query).__name__}": ask(a, query) for number, query in enumerate(queries)}
    found |= {f"{type(query).__name__} at b": ask(b, query) for query in (SiteStatus(), BackupList())}
    found["map"] = nbdinfo(a, "--map", "good/map")
    found["sparse map"] = nbdinfo(a, "--map", "good/huge")
    found["changed"] = nbdinfo(a, f"--map=farshore:changed-since/{before}", "good/v")
    return found


async def tried(watch: LoopWatch, work: Callable[[], Any]) -> Tries:
    """Until a callback that took too long did not in another try."""
    tries = Tries()
    for _ in range(TRIES_MAX):
        if tries.over:
            await asyncio.sleep(PAUSE_S)
        watch.reset()
        await asyncio.to_thread(work)
        tries.add(watch)
        if not tries.over:
            break
    return tries


def test_no_command_holds_the_loop() -> None:
    async def play() -> dict[str, str]:
        async with staged(names=("good",)) as stage:
            before, held = await filled(stage), {}
            async with served(stage):
                with watched() as watch:
                    for name, work in works(stage, before).items():
                        tries = await tried(watch, work)
                        if tries.over:
                            held[name] = tries.text()
                    watch.reset()
                    labels = tuple(CutLabel(label=f"l{number}") for number in range(1, BACKUPS, 2))
                    many = BackupDeleteMany(group="good", cuts=labels, confirm="good")
                    await asyncio.to_thread(ask(stage.a, many))
                    assert watch.count > len(labels) / 250
            return held

    assert asyncio.run(play()) == {}
