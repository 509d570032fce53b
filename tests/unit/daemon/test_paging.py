"""Lists in pages: put together they are the whole, whatever comes and goes, and no list is too large."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from console.cli import main
from console.client import Client
from daemon.control import ControlServer
from daemon.operations import dispatch, paging
from daemon.operations.waiting import wait_durable
from daemon.site import Site
from engine.group.group import Group
from engine.integrity.drills import Drill, Step
from engine.ports.clock import SystemClock
from protocol.commands.backup import BackupList, Mirror
from protocol.commands.branch import BranchList, VolumeDiff
from protocol.commands.clone import CloneCreate, CloneInfo, CloneList
from protocol.commands.cut import CutInfo
from protocol.commands.drill import DrillList
from protocol.commands.event import Events
from protocol.commands.job import JobList
from protocol.commands.journal import JournalShow
from protocol.commands.pages import MORE, PagedCommand, add_page, row_bytes
from protocol.commands.peer import PeerListReply
from protocol.commands.schedule import ScheduleList
from protocol.commands.site import SiteStatus
from protocol.commands.verify import VerifyStart
from protocol.commands.volume import VolumeCreate, VolumeList, VolumeShow
from protocol.cut_text import CutLatest
from protocol.envelopes import decode_answer, encode_answer, ok_answer, read_data
from protocol.errors import FarshoreError, UsageError
from protocol.events import VolumeCreated
from protocol.limits import (
    CONTROL_MESSAGE_BYTES_MAX,
    CONTROL_PAGE_BYTES,
    GROUPS_MAX,
    LEASE_NAME_BYTES_MAX,
    NAME_CHARS_MAX,
    PEER_LEASES_MAX,
    PEERS_MAX,
    TIMED_LEASES_MAX,
    VOLUMES_PER_GROUP_MAX,
)
from site_primary.backup import delete_backups, take_backup
from tests.support.sites import short_directory
from tests.unit.console.stub_site import BACKUP, GROUP, PEER
from tests.unit.daemon.stage import answered, make_one_site, staged

GROUPS = ("bad", "good", "other")


def back_up(site: Site, group: Group, count: int) -> None:
    """So many backups of the whole group."""
    for _ in range(count):
        take_backup(group, volume=None, label="", cut=None, pinned=False, rng=site.rng)


def note_drills(site: Site, count: int) -> None:
    """So many of each group; those of the same number began at the same time."""
    for name in GROUPS:
        for number in range(count):
            site.drills.add(
                Drill(
                    group=name,
                    started_utc_ns=1_000 + number,
                    volumes=("v",),
                    cut=site.groups[name].end,
                    cut_utc_ns=0,
                    ok=True,
                    recovery_ms=1,
                    data_age_ms=-1,
                    steps=(Step(step="fsck", volume="v", state="ok", took_ms=1, said="clean"),),
                )
            )


@asynccontextmanager
async def filled() -> AsyncIterator[Site]:
    """A site with some rows in each list."""
    async with staged(names=(), alone=GROUPS) as stage:
        site = stage.a
        for name in GROUPS:
            group = site.groups[name]
            group.append_records([VolumeCreated(name=f"w{n}", size_bytes=1 << 20) for n in range(4)])
            back_up(site, group, 5)
            for number in range(3):
                await dispatch(site, CloneCreate(group=name, cut=CutLatest(), clone=f"{name}-{3 - number}"))
            await wait_durable(group)
            await dispatch(site, VerifyStart(group=name))
        note_drills(site, 4)
        await asyncio.wait({job.task for job in site.jobs.all() if job.task is not None})
        site.damaged["gone"] = FarshoreError("cannot be opened")
        yield site


def taken(data: dict[str, Any]) -> int:
    """Bytes of a row or a reply."""
    return len(msgspec.msgpack.encode(data))


def rows_of(reply: dict[str, Any]) -> list[Any]:
    """Rows that the pages of a reply share out."""
    (found,) = [reply[name] for name in ROW_LISTS if name in reply]
    assert isinstance(found, list)
    return found


ROW_LISTS = ("groups", "backups", "volumes", "clones", "schedules", "jobs", "drills", "events", "frames")
LISTS: list[PagedCommand[Any]] = [
    SiteStatus(),
    VolumeList(),
    VolumeList(group="good"),
    VolumeShow(group="good", volume="v"),
    VolumeShow(group="good", volume="v", history=True),
    BackupList(),
    BackupList(group="good"),
    BackupList(group="good", volume="w1"),
    CloneList(),
    ScheduleList(),
    JobList(),
    DrillList(),
    DrillList(limit=7),
    DrillList(group="good", limit=2),
    Events(limit=10_000),
    Events(limit=5),
    Events(since=3, limit=9),
    JournalShow(group="good"),
    JournalShow(group="good", limit=3),
]


async def said(site: Site, command: PagedCommand[Any]) -> dict[str, Any]:
    """The fields that the client is sent."""
    return read_data(await answered(site, command))


async def in_pages(site: Site, command: PagedCommand[Any]) -> tuple[dict[str, Any], int]:
    """The reply that the pages make up, and their number."""
    whole = await said(site, replace(command, after=""))
    count = 1
    while (more := whole.pop(MORE)) is not None:
        page = await said(site, replace(command, after=more))
        assert rows_of(page)
        add_page(whole, page)
        count += 1
    return whole, count


MOVING = {"time", "complete_until", "durable", "checkpointed", "journal_bytes", "oldest_check"}


def steady(said: Any) -> Any:
    """A reply without what changes while nothing is done."""
    if isinstance(said, dict):
        return {key: steady(value) for key, value in said.items() if key not in MOVING}
    return [steady(each) for each in said] if isinstance(said, list) else said


def test_pages_make_up_the_whole_list(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        async with filled() as site:
            for command in LISTS:
                whole = steady(await said(site, command))
                assert MORE not in whole
                rows = rows_of(whole)
                assert len(rows) > 1
                # Two rows fit only where they are small; one that is larger has a page to itself.
                for budget, least in ((1, len(rows)), (2 * taken(rows[0]) + 8, 2), (1 << 20, 1)):
                    monkeypatch.setattr(paging, "CONTROL_PAGE_BYTES", budget)
                    found, pages = await in_pages(site, command)
                    assert steady(found) == whole, command
                    assert [key for key in found if key not in MOVING] == list(whole), "in the same order"
                    assert pages >= least if least < len(rows) else pages == least, command

    asyncio.run(play())


def test_a_page_has_as_many_rows_as_were_asked_for() -> None:
    async def play() -> None:
        async with filled() as site:
            for command in LISTS:
                rows = steady(rows_of(await said(site, command)))
                found, after, most = list[Any](), "", 2
                while after is not None:
                    page = await said(site, replace(command, after=after, rows=most))
                    assert len(rows_of(page)) == min(most, len(rows) - len(found))
                    found += steady(rows_of(page))
                    after = page[MORE]
                assert found == rows, command
                whole = await said(site, replace(command, rows=1))
                assert steady(rows_of(whole)) == rows, "a client that knows no pages gets all"

    asyncio.run(play())


def test_rows_that_come_and_go_neither_repeat_others_nor_hide_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        async with filled() as site:
            monkeypatch.setattr(paging, "CONTROL_PAGE_BYTES", 1)
            group = site.groups["good"]
            there = {row["id"] for row in (await said(site, BackupList(group="good")))["backups"]}
            command = BackupList(group="good", after="")
            page = await said(site, command)
            seen = [row["id"] for row in page["backups"]]
            copies = group.copies.at(group.spans())
            # The newest, which the client has, goes, the oldest one too, and a newer one comes.
            delete_backups(group, [copies[-1], copies[0]])
            back_up(site, group, 1)
            while page[MORE] is not None:
                page = await said(site, replace(command, after=page[MORE]))
                seen += [row["id"] for row in page["backups"]]
            assert len(seen) == len(set(seen)) == 4
            assert set(seen) == there - {f"{copies[0].id:016x}"}

    asyncio.run(play())


def test_backups_of_one_time_are_listed_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the clock went back, all that are taken have one time: their positions say the order."""

    async def run() -> None:
        async with filled() as site:
            group, now_ns = site.groups["good"], site.clock.utc_ns()
            monkeypatch.setattr(SystemClock, "utc_ns", lambda _: now_ns - 86_400 * 10**9)
            back_up(site, group, 3)
            listed = (await said(site, BackupList(group="good")))["backups"]
            taken = [f"{copy.id:016x}" for copy in group.copies.at(group.spans())]
            assert [row["id"] for row in listed] == taken[::-1]

    asyncio.run(run())


def test_a_key_of_another_list_is_refused() -> None:
    async def play() -> None:
        async with filled() as site:
            for after in ("x", "[]", '["good"]', "[1,2,3,4,5]", "[-1,-1,-1]", "\ud800", "null"):
                for command in (*LISTS, BranchList(group="good")):
                    if isinstance(command, ScheduleList) and after == '["good"]':
                        continue
                    with pytest.raises(UsageError, match="no page begins"):
                        await dispatch(site, replace(command, after=after))

    asyncio.run(play())


def test_the_largest_rows_fit_into_a_page_and_the_largest_other_replies_into_one() -> None:
    name = "n" * NAME_CHARS_MAX
    cut = CutInfo(timeline="f" * 16, position=1 << 62, text="f" * 36, time="2026-11-29T00:00:00.000000Z")
    volumes, exports = [name] * VOLUMES_PER_GROUP_MAX, [f"{name}/{name}"] * VOLUMES_PER_GROUP_MAX
    backup = replace(
        BACKUP,
        volumes=volumes,
        local_mirrors=[Mirror(source=f"{name}/{name}", to=f"{name}/{name}@{name}") for _ in volumes],
        held_by=["n" * LEASE_NAME_BYTES_MAX] * (TIMED_LEASES_MAX + PEER_LEASES_MAX),
    )
    assert row_bytes(replace(GROUP, last_backup=backup)) < CONTROL_PAGE_BYTES
    clone = CloneInfo(
        clone=name, group=name, volumes=volumes, cut=cut, created="2026-11-29T00:00:00Z", temporary=False,
        purpose=name, bytes=1 << 50, hosts=1 << 10, reason="r" * 1000, exports=exports,
    )  # fmt: skip
    assert row_bytes(clone) < CONTROL_PAGE_BYTES
    peers = [replace(PEER, groups=[name] * (GROUPS_MAX // PEERS_MAX))] * PEERS_MAX
    assert row_bytes(PeerListReply(peers=peers)) < CONTROL_PAGE_BYTES
    extents = [(1 << 50, 1 << 50)] * 100
    diff = VolumeDiff(volume=name, differing_bytes=1 << 50, extents=extents)
    assert VOLUMES_PER_GROUP_MAX * row_bytes(diff) < CONTROL_PAGE_BYTES


VOLUMES, BACKUPS = 200, 330


def test_a_site_with_many_backups_of_many_volumes_says_all_of_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    words = {
        "backup list big": lambda data: len(data["backups"]) == BACKUPS,
        "backup list": lambda data: len(data["backups"]) == BACKUPS,
        "volume list": lambda data: len(data["volumes"]) == VOLUMES,
        "volume show big/data-volume-007": lambda data: len(data["backups"]) == BACKUPS,
        "volume show big/data-volume-007 --history": lambda data: len(data["history"]["older"]) == 0,
        "status": lambda data: data["groups"][0]["volumes"] == VOLUMES,
        "clone list": lambda data: data == {"clones": []},
        "branch list big": lambda data: data == {"branches": []},
        "schedule list": lambda data: len(data["schedules"]) == 1,
        "job list": lambda data: data == {"jobs": []},
        "drill list": lambda data: data == {"drills": []},
        "drill report": lambda data: data["groups"] == [],
        "peer list": lambda data: data == {"peers": []},
        "journal show big --limit 10000": lambda data: len(data["frames"]) > BACKUPS,
        "events --limit 10000": lambda data: data["events"],
    }

    async def play() -> None:
        parent = short_directory()
        site = await make_one_site(parent, "a")
        control = ControlServer(asyncio.get_running_loop(), site.control_endpoint, partial(answered, site))
        control.start()
        try:
            await dispatch(site, VolumeCreate(group="big", volume="v0", size_bytes=1 << 20))
            group = site.groups["big"]
            group.append_records(
                [
                    VolumeCreated(name=f"data-volume-{number:03}", size_bytes=1 << 20)
                    for number in range(1, VOLUMES)
                ]
            )
            back_up(site, group, BACKUPS)
            with pytest.raises(FarshoreError, match="too large for one reply"):
                await dispatch(site, BackupList())
            page = await said(site, BackupList(after=""))
            assert CONTROL_PAGE_BYTES // 2 < taken(page) < CONTROL_PAGE_BYTES * 5 // 4
            for line, right in words.items():
                code = await asyncio.to_thread(main, (*line.split(), "--json", "--site", str(site.directory)))
                printed = capsys.readouterr().out.splitlines()[-1]  # after what the site logs
                assert code == 0, f"{line}: {printed[:300]}"
                assert right(json.loads(printed)["data"]), line
            assert await asyncio.to_thread(_cut_of_oldest, site) == BACKUPS
        finally:
            await control.close()
            await site.stop()
            shutil.rmtree(parent)

    asyncio.run(play())


def test_no_page_is_too_large_however_much_there_is() -> None:
    """As many volumes as a group may have, and thousands of backups of all of them."""
    backups = 2_000

    async def play() -> None:
        parent = short_directory()
        site = await make_one_site(parent, "a")
        try:
            await dispatch(site, VolumeCreate(group="big", volume="v0", size_bytes=1 << 20))
            group = site.groups["big"]
            names = [f"{'v' * (NAME_CHARS_MAX - 3)}{number:03}" for number in range(1, VOLUMES_PER_GROUP_MAX)]
            group.append_records([VolumeCreated(name=name, size_bytes=1 << 20) for name in names])
            back_up(site, group, backups)
            await wait_durable(group)
            seen, after = set[str](), ""
            while after is not None:
                answer = encode_answer(ok_answer(b"i" * 16, await answered(site, BackupList(after=after))))
                assert len(answer) < CONTROL_MESSAGE_BYTES_MAX
                page = read_data(decode_answer(answer).result())
                assert "backups" in page, page
                seen |= {row["id"] for row in page["backups"]}
                after = page[MORE]
            assert len(seen) == backups
        finally:
            await site.stop()
            shutil.rmtree(parent)

    asyncio.run(play())


def _cut_of_oldest(site: Site) -> int:
    """What `files versions` and `volume import` ask for, from another thread."""
    with Client(site.control_endpoint) as client:
        shown = client.call(VolumeShow(group="big", volume="v0", history=True))
        assert row_bytes(shown) > CONTROL_MESSAGE_BYTES_MAX
        found = client.call(BackupList(group="big", volume="v0")).backups
        assert found == shown.backups
        return len(found)
