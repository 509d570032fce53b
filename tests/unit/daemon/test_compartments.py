"""Failure has a compartment: an exception that nobody expects, thrown from every port and message handler of
one of several groups, with real parts; the other groups go on serving and nothing stops the site."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from console.demo.host import Host
from daemon.config import SiteConfig, load_config
from daemon.data_directory import check_identity, make_site, read_keys
from daemon.operations import dispatch
from daemon.service import exception_handler
from daemon.site import Site
from engine.group import Group
from engine.pair_states import PairState
from protocol.commands import PairCreate, VolumeCreate
from protocol.errors import WrongState
from tests.support.sites import free_port, short_directory

GROUPS = ("bad", "good", "other")
BLOCK = 4096
PATIENCE_S = 30.0


class Bang(Exception):
    """What nobody expects."""


def bang(*_: object, **__: object) -> None:
    raise Bang("thrown by the test")


@dataclass
class Stage:
    """Sites `a` and `b` in this process, three groups written at `a` and paired with `b`."""

    a: Site
    b: Site
    stopped: list[str] = field(default_factory=list)

    def group(self, name: str, at: str = "a") -> Group:
        site: Site = getattr(self, at)
        return site.groups[name]

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not true():  # noqa: ASYNC110 - several sites, no one event
                await asyncio.sleep(0.01)

    def said(self, site: Site, kind: str) -> list[str]:
        return [
            event.group or event.subject for event in site.events.since(0, 10_000)[0] if event.kind == kind
        ]

    async def host(self, name: str, talk: Callable[[Host], Any]) -> Any:
        def work() -> Any:
            with Host(Path(self.a.nbd_addresses[0].removeprefix("unix:")), f"{name}/v") as host:
                return talk(host)

        return await asyncio.wait_for(asyncio.to_thread(work), PATIENCE_S)

    async def write(self, name: str, letter: bytes = b"w") -> None:
        def talk(host: Host) -> None:
            host.write(0, letter * BLOCK)
            host.flush()
            assert host.read(0, BLOCK) == letter * BLOCK

        await self.host(name, talk)

    async def paired(self, *names: str) -> None:
        def all_paired() -> bool:
            if not set(names) <= set(self.b.groups):
                return False
            ends = [(self.a.shippers[name], self.group(name), self.group(name, "b")) for name in names]
            return all(s.state is PairState.PAIRED and g.end == o.end for s, g, o in ends)

        await self.until(all_paired)

    async def check_others(self) -> None:
        """Hosts of the other groups write, and the peer gets it."""
        for name in ("good", "other"):
            await self.write(name, b"x")
        await self.paired("good", "other")
        for site in (self.a, self.b):
            assert not [name for name in ("good", "other") if site.groups[name].failed]
            assert not set(self.said(site, "group.failed")) - {"bad"}
        assert self.stopped == []


async def _site(parent: Path, name: str) -> Site:
    directory = parent / name
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    make_site(directory, SiteConfig(name=name, replication=endpoint, witness=str(parent / "state")))
    site = Site(
        directory=directory,
        config=load_config(directory),
        identity=check_identity(directory),
        keys=read_keys(directory),
        loop=asyncio.get_running_loop(),
    )
    await site.start()
    return site


@contextlib.asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    parent = short_directory()
    sites = [await _site(parent, name) for name in ("a", "b")]
    stage = Stage(a=sites[0], b=sites[1])
    asyncio.get_running_loop().set_exception_handler(exception_handler(stage.stopped.append))
    try:
        for one, other in (sites, sites[::-1]):
            one.peers.add(other.own)
            one.transport.allow(one.peers.allowed())
        for name in GROUPS:
            await dispatch(stage.a, VolumeCreate(group=name, volume="v", size_bytes=1 << 20))
            await dispatch(stage.a, PairCreate(group=name, peer="b", mode="async"))
        await stage.paired(*GROUPS)
        yield stage
    finally:
        for site in sites:
            await site.stop()
        shutil.rmtree(parent)


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
    disk.start_sync = lambda files, directories, done: disk._start(bang, done)
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


async def shipper_timer(stage: Stage) -> None:
    shipper: Any = stage.a.shippers["bad"]
    shipper._tick = bang
    shipper._link.hang_up()
    shipper._connect()


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
    shipper_timer,
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


# -- what ends a session or a connection only


async def receiver_message(stage: Stage) -> Callable[[], None]:
    receiver: Any = stage.b.receivers["bad"]
    was, receiver.on_message = receiver.on_message, bang
    await stage.write("bad")
    await stage.until(lambda: stage.said(stage.b, "peer.session_failed"))
    return lambda: setattr(receiver, "on_message", was)


async def shipper_message(stage: Stage) -> Callable[[], None]:
    link: Any = stage.a.shippers["bad"]._link
    was, link._on_message = link._on_message, bang
    before = link.session
    await stage.write("bad")
    await stage.until(lambda: link.session != before)
    return lambda: setattr(link, "_on_message", was)


async def door(stage: Stage) -> Callable[[], None]:
    """A question, and the report that every asker begins with."""
    peer_door: Any = stage.b._door
    was, peer_door._report = peer_door._report, bang
    asking = asyncio.ensure_future(stage.a.ask_peer("bad").report())
    await asyncio.sleep(0)
    await stage.write("good")
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    return lambda: setattr(peer_door, "_report", was)


async def host_read(stage: Stage) -> Callable[[], None]:
    await stage.write("bad")
    export: Any = next(export for (name, _), export in stage.a.exports.live.items() if name == "bad")
    view, export.view = export.view, _Broken()
    with pytest.raises(OSError):
        await stage.host("bad", lambda host: host.read(0, BLOCK))
    return lambda: setattr(export, "view", view)


class _Broken:
    """A view of which everything throws."""

    def __getattr__(self, name: str) -> Any:
        raise Bang(name)


ENDS_LESS = [receiver_message, shipper_message, door, host_read]


@pytest.mark.parametrize("throw", ENDS_LESS, ids=lambda each: each.__name__)
def test_a_defect_in_a_session_or_connection_ends_that_one(throw: Any) -> None:
    async def play() -> None:
        async with staged() as stage:
            mend = await throw(stage)
            await stage.check_others()
            mend()
            # The group itself never stopped, and goes on once the defect is gone.
            await stage.write("bad", b"y")
            await stage.paired("bad")
            assert not stage.group("bad").failed
            assert not stage.group("bad", "b").failed

    asyncio.run(play())


def test_a_group_that_does_not_open_keeps_no_other_closed(tmp_path: Path) -> None:
    """C4: whatever opening one of them throws, and whatever its rows hold."""

    async def play() -> None:
        parent = short_directory()
        site = await _site(parent, "a")
        try:
            for name in GROUPS:
                await dispatch(site, VolumeCreate(group=name, volume="v", size_bytes=1 << 20))
        finally:
            await site.stop()
        store = (parent / "a" / "groups" / "bad" / "index.mdb").write_bytes(b"not an index" * 4096)
        assert store
        again = Site(
            directory=parent / "a",
            config=load_config(parent / "a"),
            identity=check_identity(parent / "a"),
            keys=read_keys(parent / "a"),
            loop=asyncio.get_running_loop(),
        )
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
