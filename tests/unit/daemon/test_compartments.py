"""Failure has a compartment: an exception that nobody expects, thrown from every port and message handler of
one of several groups, with real parts; the other groups go on serving and nothing stops the site."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from daemon.operations import dispatch
from daemon.service import exception_handler
from engine.group.group import Group
from engine.group.holds import Holder
from engine.peering.pair_states import PairState
from protocol.commands.volume import VolumeCreate
from protocol.errors import WrongState
from tests.support.sites import short_directory
from tests.unit.daemon.stage import GROUPS, Bang, Stage, bang, make_one_site, open_site, staged

Throw = Callable[[Stage], Coroutine[Any, Any, None]]


async def _write_that_fails(stage: Stage) -> None:
    with contextlib.suppress(OSError):
        await stage.write("bad")


# -- what stops the group at a


async def journal_write(stage: Stage) -> None:
    stage.group("bad").writer.append = bang  # type: ignore[method-assign]
    await _write_that_fails(stage)


async def disk_sync(stage: Stage) -> None:
    stage.group("bad").disk.start_sync = bang  # type: ignore[method-assign]
    await _write_that_fails(stage)


async def disk_thread(stage: Stage) -> None:
    disk: Any = stage.group("bad").disk
    disk.start_sync = lambda files, directories, done: disk._start(disk._threads.syncs, bang, done)
    await _write_that_fails(stage)


async def disk_callback(stage: Stage) -> None:
    stage.group("bad").listeners.durable.append(bang)
    await _write_that_fails(stage)


async def frame_listener(stage: Stage) -> None:
    stage.group("bad").listeners.frame.append(bang)
    await _write_that_fails(stage)


async def view_listener(stage: Stage) -> None:
    stage.group("bad").listeners.view.append(bang)
    with pytest.raises(Bang):
        await dispatch(stage.a, VolumeCreate(group="bad", volume="w", size_bytes=1 << 20))


async def memtable(stage: Stage) -> None:
    stage.group("bad").memtable.apply = bang  # type: ignore[method-assign]
    await _write_that_fails(stage)


async def timer(stage: Stage) -> None:
    stage.group("bad").clock.call_later(0.001, bang)


async def soon(stage: Stage) -> None:
    stage.group("bad").clock.call_soon(bang)


async def indexer_answer(stage: Stage) -> None:
    group = stage.group("bad")
    group.checkpoints._done = bang  # type: ignore[method-assign]
    group.checkpoints.begin()


async def indexer_task(stage: Stage) -> None:
    """What talks to the child process fails, so that nobody would ever be answered."""
    indexer: Any = stage.a._groups._made["bad"].parts.indexer
    indexer._pool._carry_out = bang
    stage.group("bad").checkpoints.begin()


async def store_in_recovery_of_a_view(stage: Stage) -> None:
    """A record that cannot be derived from: half of the group knows of it."""
    stage.group("bad").volumes.apply = bang  # type: ignore[method-assign]
    with pytest.raises(Bang):
        await dispatch(stage.a, VolumeCreate(group="bad", volume="w", size_bytes=1 << 20))


async def hold_listener(stage: Stage) -> None:
    group = stage.group("bad")
    group.listeners.view.append(bang)
    with pytest.raises(Bang):
        group.holds.put(Holder.FENCED, "by the test")


async def shipper_timer(stage: Stage) -> None:
    shipper: Any = stage.a.shippers["bad"]
    shipper.session._on_due = bang
    shipper._connect()


async def shipper_turn(stage: Stage) -> None:
    shipper: Any = stage.a.shippers["bad"]
    shipper.window.take_turn = bang
    queue = stage.a.traffic.to(shipper.peer).queue
    queue.set_rate(64 << 10)
    queue.sent(1 << 20)
    assert not shipper.session.ready(shipper.window)
    queue.set_rate(0)


STOPS_THE_GROUP = [
    journal_write,
    disk_sync,
    disk_thread,
    disk_callback,
    frame_listener,
    view_listener,
    memtable,
    timer,
    soon,
    indexer_answer,
    indexer_task,
    store_in_recovery_of_a_view,
    hold_listener,
    shipper_timer,
    shipper_turn,
]


@pytest.mark.parametrize("throw", STOPS_THE_GROUP, ids=lambda each: each.__name__)
def test_a_defect_in_a_group_stops_that_group(throw: Throw) -> None:
    async def play() -> None:
        async with staged() as stage:
            await throw(stage)
            await stage.until(lambda: stage.group("bad").failed)
            assert "Bang" in stage.group("bad").failed
            assert stage.said(stage.a, "group.failed") == ["bad"]
            with pytest.raises(Exception, match="has stopped"):
                await stage.write("bad")
            with pytest.raises(WrongState, match="has stopped"):
                stage.group("bad").require_serving()
            await stage.check_others()
            assert not stage.group("bad", "b").failed

    asyncio.run(play())


@pytest.mark.parametrize(
    "break_it",
    [
        lambda group: setattr(group.writer, "append", bang),
        lambda group: setattr(group.memtable, "apply", bang),
        lambda group: group.listeners.durable.append(bang),
    ],
    ids=["journal_write", "memtable", "durable"],
)
def test_a_defect_in_the_copy_stops_it_there(break_it: Callable[[Group], None]) -> None:
    async def play() -> None:
        async with staged() as stage:
            break_it(stage.group("bad", "b"))
            await stage.write("bad")  # hosts at the primary do not notice
            await stage.until(lambda: stage.group("bad", "b").failed)
            assert stage.said(stage.b, "group.failed") == ["bad"]
            await stage.write("bad")
            await stage.until(lambda: stage.a.shippers["bad"].state is PairState.SUSPENDED)
            await stage.check_others()
            assert not stage.group("bad").failed

    asyncio.run(play())


def test_a_group_that_does_not_open_keeps_no_other_closed(tmp_path: Path) -> None:
    """C4: whatever opening one of them throws, and whatever its rows hold."""

    async def play() -> None:
        parent = short_directory()
        site = await make_one_site(parent, "a")
        try:
            for name in GROUPS:
                await dispatch(site, VolumeCreate(group=name, volume="v", size_bytes=1 << 20))
        finally:
            await site.stop()
        store = (parent / "a" / "groups" / "bad" / "index.mdb").write_bytes(b"not an index" * 4096)
        assert store
        again = open_site(parent / "a")
        again.state.put_notes("groups", {b"../../x": b"\xc1", b"nobody": b"\xc1"})
        again.state.put_notes("pairs", {b"other": b"\xc1"})
        stopped: list[str] = []
        asyncio.get_running_loop().set_exception_handler(exception_handler(stopped.append))
        try:
            await again.start()
            assert set(again.groups) == {"good"}
            assert set(again.damaged) == {"../../x", "nobody", "other", "bad"}
            stage = Stage(again, again)
            assert set(stage.said(again, "group.damaged")) == set(again.damaged)
            await stage.write("good")
            assert stopped == []
        finally:
            await again.stop()
            shutil.rmtree(parent)

    asyncio.run(play())
