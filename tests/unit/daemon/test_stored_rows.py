"""What is wrong with one stored row keeps no other group and not the daemon from starting: every table of the
site's state and of a group's index, with rubbish in it, with a whole site that starts on it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from daemon.jobs import Jobs
from daemon.operations import dispatch
from daemon.operations.job import resume_jobs
from daemon.service import exception_handler
from daemon.site import STORED_TABLES, Site
from engine.group.site_state import SITE_TABLES, SiteState
from engine.group.stored_rows import CLOSED_UNREADABLE, SET_ASIDE, sort_out
from engine.index.index_file import open_index
from engine.index.versions import TABLES
from protocol.commands.backup import BackupCreate, BackupList
from protocol.commands.base import Command
from protocol.commands.branch import BranchList
from protocol.commands.clone import CloneList
from protocol.commands.drill import DrillList
from protocol.commands.event import Events
from protocol.commands.job import JobList
from protocol.commands.journal import JournalShow
from protocol.commands.site import SiteStatus
from protocol.commands.volume import VolumeCreate, VolumeList
from protocol.errors import FarshoreError
from protocol.positions import POSITION_MAX
from protocol.rows import pack_row
from tests.golden.engine_samples import filled_state
from tests.sim.sim_store import SimStore, StoreFile
from tests.support.sites import short_directory
from tests.unit.daemon.stage import Stage, make_one_site, open_site

BIG = (1 << 64) - 1
NUL = b"\0"
U64 = bytes(7) + b"\1"
PLACE = b"\1" + 4 * U64  # a damage's
TEXTS = ("{}", "null", "null")

VALUES: list[bytes] = [
    b"",
    b"\xc1",
    b"\x00",
    b"rubbish",
    b"\xff" * 8,
    b"\x91" * 600 + b"\xc0",
    bytes(500),
    pack_row(()),
    pack_row((1, "two", 3.0, None, True)),
    pack_row((BIG, BIG)),
    pack_row((-1, -1)),
    pack_row((BIG,)),
]
# Those with which a whole site is started.
STARTED = [b"\xc1", pack_row((BIG, BIG)), pack_row((1, "two", 3.0, None, True))]
GOOD = ("good", "other")
KEYS: dict[str, list[bytes]] = {
    "groups": [b"bad"],
    "pairs": [b"bad"],
    "closed": [b"bad\0" + U64, b"bad", b"bad\0abc"],
    "heads": [b"bad\0" + U64, b"bad", b"bad\0abc"],
    "shipped": [b"bad", b"bad\0abc"],
    "leases": [b"bad\0export:1", b"bad\0\xff\xfe"],
    "lease_ends": [b"bad\0export:1", b"bad\0\xff\xfe"],
    "heard": [b"bad"],
    "drops": [b"bad\0" + U64, b"bad\0abc"],
    "clones": [b"lab", b"\xff\xfe", b"../x"],
    "drills": [b"bad\0" + U64, b"bad\0" + bytes(9), b"bad\0abc"],
    "proofs": [b"bad\0" + U64, b"bad\0abc"],
    "told_drills": [b"bad\0" + U64, b"bad\0" + bytes(9)],
    "drill_plans": [b"bad\0", b"bad\0abc"],
    "jobs": [U64, b"\xff" * 8, b"x", bytes(8)],
    "job_givers": [U64, b"\xff" * 8, b"x", bytes(8)],
    "damage": [b"bad\0" + PLACE, b"bad\0\xee" + 4 * U64, b"bad\0abc"],
    "rounds": [b"bad\0\1", b"bad\0\2", b"bad\0\3"],
    "copy_marks": [b"bad\0" + U64, b"bad\0abc"],
    "verified_by": [b"bad\0" + U64, b"bad\0abc"],
    "accepted": [b"bad\0" + U64, b"bad\0abc"],
    "access": [b"bad\0" + U64 + b"uid:7", b"bad\0" + U64 + b"uid:07", b"bad\0" + U64, b"bad\0abc"],
    "locks": [b"bad\0m", b"bad\0s" + 2 * U64, b"bad\0b" + U64, b"bad\0abc", b"\0clock"],
    "news": [b"0" * 32, b"\xff\xfe"],
    SET_ASIDE: [U64, b"x"],
}


def others(name: str, head: int) -> dict[str, list[tuple[bytes, bytes]]]:
    """Rows of the right types, and yet nothing that may be."""
    group = name.encode()
    arguments = '{"a":1e999,"b":' + "9" * 99 + "}"
    jobs = [
        ("verify", name, "x", "running", True, 1, 0, *TEXTS),
        ("verify", name, "x", "running", True, 1, 0, "[" * 9000, "null", "null"),
        ("compare", "nobody", "x", "running", True, 1, 0, "[]", "null", "null"),
        ("never", name, "x", "running", True, 1, 0, arguments, "null", "null"),
        ("verify", name, "x", "failed", False, 1, 2, "{}", "null", '{"code":5}'),
    ]
    clones = [
        (name, 5, 197, (), (197,), 1, False, ""),
        (name, 5, 197, (7,), (197,), 1, True, ""),
        (name, head, 197, (head,), (197,), 1, True, ""),
    ]
    return {
        "groups": [(group, pack_row(("0" * 16, "primary", 77, 1)))],
        "pairs": [(group, pack_row(("nobody", "async", "paired", "", False)))],
        "drops": [(group + NUL + U64, pack_row(((head, 0),)))],
        "clones": [(b"lab", pack_row(row)) for row in clones],
        "jobs": [(U64, pack_row(row)) for row in jobs],
        "leases": [(group + b"\0job:1", pack_row((77, POSITION_MAX)))],
        "heads": [(group + NUL + U64, NUL)],
        "heard": [(group, b"\xff" * 8)],
        "lease_ends": [(group + b"\0none", U64)],
        "rounds": [(group + b"\0\1", pack_row((1, 77, 5, 5, (), 0, 0, b"", b"", 0, 0, 0, 0)))],
    }


def test_every_table_of_a_site_has_a_check() -> None:
    """A new table must say what becomes of a bad row in it, here and in engine/group/stored_rows.py."""
    by_themselves = {"groups", "pairs", SET_ASIDE}
    assert set(SITE_TABLES) == set(STORED_TABLES) | by_themselves == set(KEYS)


def test_what_a_version_wrote_itself_stays_as_it_is() -> None:
    state = filled_state()
    store = state._store
    before = {table: state.notes(table) for table in SITE_TABLES}
    found = sort_out(store, STORED_TABLES, 1)
    assert (found.set_aside, found.closed) == ([], {})
    assert {table: state.notes(table) for table in SITE_TABLES} == before


@pytest.mark.parametrize("table", sorted(STORED_TABLES))
def test_each_bad_row_is_replaced_set_aside_or_closes_its_group(table: str) -> None:
    for key in KEYS[table]:
        for value in VALUES:
            store = SimStore(StoreFile(), SITE_TABLES)
            state = SiteState(store)
            state.put_notes("groups", {b"bad": pack_row(("0" * 16, "primary", 5, 1))})
            state.put_notes(table, {key: value})
            found = sort_out(store, STORED_TABLES, 10**18)
            left = state.notes(table).get(key)
            aside = state.notes(SET_ASIDE)
            assert len(found.set_aside) == len(aside)
            if found.closed:
                assert (set(found.closed), left, aside) == ({"bad"}, value, {}), (key, value)
                assert f"state.mdb {table} bad" in found.closed["bad"].message
            elif aside:
                assert pack_row((10**18, table, key, value)) in aside.values()
                assert left != value
                assert found.set_aside[0].subject.startswith(f"state.mdb {table} ")
            # What is left can be read by whoever does so.
            again = sort_out(store, STORED_TABLES, 1)
            assert (again.set_aside, again.closed.keys()) == ([], found.closed.keys())
            Jobs(state, None, lambda *_, **__: None)  # type: ignore[arg-type]
            if table == "closed" and not found.closed and left is not None:
                assert state.closed("bad", 1) in (CLOSED_UNREADABLE, value.decode("latin-1"))


async def _prepared(parent: Path, names: Iterable[str]) -> dict[str, int]:
    """A site with these groups and two good ones, stopped; the head of each."""
    site = await make_one_site(parent, "a")
    try:
        for name in (*GOOD, *names):
            await dispatch(site, VolumeCreate(group=name, volume="v", size_bytes=1 << 20))
            await dispatch(site, BackupCreate(group=name, label="b1"))
        return {name: site.groups[name].head.timeline for name in site.groups}
    finally:
        await site.stop()


async def _good_serve(site: Site, stopped: list[str], what: object) -> None:
    """Hosts of the good groups write, and an operator sees everything."""
    assert set(GOOD) <= set(site.groups), what
    for name in GOOD:
        assert not site.groups[name].failed, what
    await Stage(site, site).write(GOOD[0], b"x")
    commands: list[Command] = [SiteStatus(), Events(), JobList(), VolumeList(), CloneList()]
    for command in commands:
        await dispatch(site, command)
    for name in (*site.groups, *site.damaged):
        kinds: list[Any] = [BackupList, DrillList, BranchList, JournalShow]
        for of_group in kinds:
            try:
                await dispatch(site, of_group(group=name))
            except FarshoreError:
                assert name in site.damaged, (what, name)
    assert stopped == [], what
    errors = {e.kind for e in site.events.since(0, 10_000)[0] if e.level == "error"}
    assert errors <= {"row.set_aside", "group.damaged", "group.failed"}, (what, errors)


def test_no_row_of_the_state_keeps_another_group_or_the_daemon_from_starting() -> None:
    """Of every table a bad row at once, each about a group of its own."""

    async def play() -> None:
        parent = short_directory()
        stopped: list[str] = []
        asyncio.get_running_loop().set_exception_handler(exception_handler(stopped.append))
        named = {table: f"bad-{table}" for table in SITE_TABLES}
        try:
            heads = await _prepared(parent, named.values())
            saved = (parent / "a" / "state.mdb").read_bytes()
            for number in range(len(STARTED) + 4):
                (parent / "a" / "state.mdb").write_bytes(saved)
                site = open_site(parent / "a")
                wrote = {}
                for table, name in named.items():
                    if number < len(STARTED):
                        rows = [(key.replace(b"bad", name.encode()), STARTED[number]) for key in KEYS[table]]
                    else:
                        rows = others(name, heads[name]).get(table, [])[number - len(STARTED) :][:1]
                    site.state.put_notes(table, dict(rows))
                    wrote[table] = rows
                await site.stop()
                site = open_site(parent / "a")
                await site.start()
                resume_jobs(site)
                await asyncio.sleep(0)
                await _good_serve(site, stopped, wrote)
                await site.stop()
        finally:
            shutil.rmtree(parent)

    asyncio.run(play())


def test_no_row_of_an_index_keeps_another_group_or_the_daemon_from_starting() -> None:
    keys: dict[str, list[bytes]] = {
        "versions": [b"x", bytes(28), bytes(29)],
        "blocks": [b"x", bytes(28)],
        "regions": [b"x", bytes(20)],
        "timelines": [b"x", U64],
        "records": [b"x", 2 * U64],
        "meta": [b"checkpoint", b"base" + U64, b"basex", b"pending-base", b"retention", b"sweep"],
    }
    assert set(keys) == set(TABLES)

    async def play() -> None:
        parent = short_directory()
        stopped: list[str] = []
        asyncio.get_running_loop().set_exception_handler(exception_handler(stopped.append))
        named = {f"bad-{table}-{at}": (table, key) for table in keys for at, key in enumerate(keys[table])}
        try:
            await _prepared(parent, named)
            for value in STARTED:
                for name, (table, key) in named.items():
                    store = open_index(parent / "a" / "groups" / name)
                    with store.write() as write:
                        write.put(table, key, value)
                    store.close()
                site = open_site(parent / "a")
                await site.start()
                await _good_serve(site, stopped, value)
                for name, error in site.damaged.items():
                    assert f"the row {named[name][0]} " in error.message
                assert {named[name][0] for name in site.damaged} == {"timelines", "records", "meta"}
                await site.stop()
        finally:
            shutil.rmtree(parent)

    asyncio.run(play())


def test_a_row_set_aside_says_so_once_and_can_be_looked_up() -> None:
    async def play() -> None:
        parent = short_directory()
        try:
            await _prepared(parent, ())
            for expected in (1, 0):
                site = open_site(parent / "a")
                if expected:
                    site.state.put_notes("jobs", {U64: b"\xc1"})
                    await site.stop()
                    site = open_site(parent / "a")
                known = site.events.since(0, 100)[1]  # of earlier starts, as events are kept
                await site.start()
                said: list[Any] = [e for e in site.events.since(known, 100)[0] if e.kind == "row.set_aside"]
                assert [e.object for e in said] == ["state.mdb jobs 0000000000000001"][:expected]
                assert len(site.state.notes(SET_ASIDE)) == 1
                assert set(site.groups) == set(GOOD)
                await site.stop()
        finally:
            shutil.rmtree(parent)

    asyncio.run(play())
