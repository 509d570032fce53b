"""An exception that nobody expects, from every method of every port that a group stands on: each in a group
of its own, at both sites, through a life of that group and the next start. The others go on.

The methods are read from the ports; one that no life calls makes this red.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import structlog.testing

import engine.journal.room
from console.demo.host import Host
from daemon.exports import SiteExports
from daemon.operations import dispatch
from daemon.service import exception_handler
from engine.group.compartment import HeldClock, HeldIndexer
from engine.index.requests import Indexer
from engine.ports.clock import Clock
from engine.ports.disk import Disk, DiskFile
from engine.ports.durable import RealDisk, RealFile
from engine.ports.lmdb_store import LmdbStore, _Transaction
from engine.ports.store import Cursor, ReadTransaction, Store, WriteTransaction
from protocol.commands.backup import BackupCreate
from protocol.commands.pair import PairCreate
from protocol.commands.volume import VolumeCreate
from protocol.errors import FarshoreError
from tests.support.sites import short_directory
from tests.unit.daemon.stage import BLOCK, Bang, Stage, make_one_site, open_site

Owner = Callable[[Any], str]


def _path_of(file: Any) -> str:
    return os.readlink(f"/proc/self/fd/{file.fileno()}") if file.fileno() >= 0 else ""


# port, the real part, and how to tell whose it is: by a path below the group's directory, or its name.
PARTS: list[tuple[type, type, Owner]] = [
    (DiskFile, RealFile, _path_of),
    (Disk, RealDisk, lambda part: f"{part._root}/"),
    (Store, LmdbStore, lambda part: str(part.path)),
    (ReadTransaction, _Transaction, lambda part: str(part._store.path)),
    (WriteTransaction, _Transaction, lambda part: str(part._store.path)),
    (Clock, HeldClock, lambda part: f"/groups/{part._compartment.name}/"),
    (Indexer, HeldIndexer, lambda part: f"/groups/{part._compartment.name}/"),
]
GOOD = ("good", "other")
STEP_S = 10.0
# What the daemon calls for no group: the indexer writes its index and looks backwards in it
# (test_compartments.py throws from its answers), and small files are the site's. Why a disk is full is asked
# where it is, which it is not here.
ELSEWHERE = {
    "cursor-prev",
    "Disk.read_file",
    "Disk.replace_file",
    "Disk.why_full",
    "Store.write",
    "WriteTransaction.delete",
    "WriteTransaction.put",
    "WriteTransaction.put_sorted",
}


def methods(port: type) -> list[str]:
    """That a port declares."""
    return [name for name, value in vars(port).items() if callable(value) and not name.startswith("_")]


CASES = [
    (port, real, owner, name)
    for port, real, owner in PARTS
    for name in methods(port)
    if not (port is WriteTransaction and name in methods(ReadTransaction))
]
NAMES = {f"bad-{number}": f"{port.__name__}.{name}" for number, (port, _, _, name) in enumerate(CASES)}
CURSORS = {f"cursor-{name.replace('_', '-')}": name for name in methods(Cursor)}


class _ThrowingCursor:
    """A cursor of which one method throws."""

    def __init__(self, cursor: Any, name: str, hits: Counter[str], group: str) -> None:
        self._cursor, self._name, self._hits, self._group = cursor, name, hits, group

    def __getattr__(self, name: str) -> Any:
        if name == self._name:
            self._hits[self._group] += 1
            raise Bang(f"Cursor.{name}")
        return getattr(self._cursor, name)


@pytest.fixture
def hits(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each group was thrown at; thrown only while `armed` is counted."""
    found: Counter[str] = Counter()

    def throwing(real: type, name: str, owner: Owner, group: str) -> None:
        before = getattr(real, name)

        def method(self: Any, *words: Any, **more: Any) -> Any:
            if found["armed"] and f"/groups/{group}/" in owner(self):
                found[group] += 1
                raise Bang(NAMES[group])
            return before(self, *words, **more)

        monkeypatch.setattr(real, name, method)

    for number, (_, real, owner, name) in enumerate(CASES):
        throwing(real, name, owner, f"bad-{number}")
    before = _Transaction.cursor

    def cursor(self: Any, table: str) -> Any:
        made = before(self, table)
        group = next((each for each in CURSORS if f"/groups/{each}/" in str(self._store.path)), None)
        if group is None or not found["armed"]:
            return made
        return _ThrowingCursor(made, CURSORS[group], found, group)

    monkeypatch.setattr(_Transaction, "cursor", cursor)
    monkeypatch.setattr(engine.journal.room, "SEGMENT_BYTES", 128 << 10)
    monkeypatch.setattr(engine.journal.room, "SEGMENT_BYTES_MIN", 64 << 10)
    return found


async def live(stage: Stage, name: str) -> None:
    """What happens to a group; every step may fail."""

    def talk(host: Host) -> None:
        for at in range(64):
            host.write(at * BLOCK, bytes([at]) * BLOCK)
            if at % 8 == 7:
                host.flush()  # small frames, so that prepared segments are used
        host.read(0, 8 * BLOCK)

    steps: list[Callable[[], Any]] = [
        lambda: stage.host(name, talk),
        lambda: dispatch(stage.a, BackupCreate(group=name, label="kept")),
        lambda: stage.group(name).checkpoints.begin(),
        lambda: look_at_the_index(stage, name),
        lambda: dispatch(stage.a, VolumeCreate(group=name, volume="w", size_bytes=1 << 20)),
        lambda: stage.host(name, talk),
    ]
    for step in steps:
        with contextlib.suppress(Exception):
            done = step()
            if asyncio.iscoroutine(done):
                await asyncio.wait_for(done, STEP_S)


def look_at_the_index(stage: Stage, name: str) -> None:
    """As its timer does, which no short life awaits."""
    made = stage.a._groups._made[name]
    made.compartment.run(made.compaction.consider)


async def check_good(stage: Stage) -> None:
    """Their hosts write, their peer gets it, and nothing has stopped the site."""
    for name in GOOD:
        await stage.write(name, b"x")
    await stage.paired(*GOOD)
    assert stage.stopped == []


@pytest.mark.timeout(600)
@structlog.testing.capture_logs()  # hundreds of tracebacks
def test_what_any_port_throws_stays_in_its_group(hits: Counter[str]) -> None:
    async def play() -> None:
        parent = short_directory()
        stage = Stage(a=await make_one_site(parent, "a"), b=await make_one_site(parent, "b"))
        asyncio.get_running_loop().set_exception_handler(exception_handler(stage.stopped.append))
        try:
            for one, other in ((stage.a, stage.b), (stage.b, stage.a)):
                one.peers.add(other.own)
                one.transport.allow(one.peers.allowed())
            bad = [*NAMES, *CURSORS]
            for name in (*GOOD, *bad):
                await dispatch(stage.a, VolumeCreate(group=name, volume="v", size_bytes=1 << 20))
            hits["armed"] = 1
            await pair(stage, (*GOOD, *bad))
            await asyncio.gather(*(live(stage, name) for name in bad))
            await check_good(stage)
            for site in (stage.a, stage.b):
                await site.stop()
            stage.a, stage.b = open_site(stage.a.directory), open_site(stage.b.directory)
            for site in (stage.a, stage.b):
                await site.start()
            await check_good(stage)
            assert isinstance(stage.a.exports, SiteExports)
        finally:
            hits["armed"] = 0
            for site in (stage.a, stage.b):
                await site.stop()
            shutil.rmtree(parent)
        assert {NAMES.get(name, name) for name in bad if not hits[name]} == ELSEWHERE

    asyncio.run(play())


async def pair(stage: Stage, names: tuple[str, ...]) -> None:
    """Each with the other site, as far as that works."""
    for name in names:
        with contextlib.suppress(FarshoreError, OSError, Bang):
            await dispatch(stage.a, PairCreate(group=name, peer="b", mode="async"))
