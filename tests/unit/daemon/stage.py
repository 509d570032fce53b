"""Two whole sites in this process with real parts, and groups that tests break."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec import Raw

from console.demo.host import Host
from daemon.config import SiteConfig, load_config
from daemon.data_directory import check_identity, make_site, read_keys
from daemon.operations import dispatch
from daemon.operations.paging import NextPage, Page, encoded
from daemon.real_parts import real_site
from daemon.service import exception_handler
from daemon.site import Site
from engine.group.group import Group
from engine.peering.pair_states import PairState
from protocol.commands.base import BaseCommand, ReplyType
from protocol.commands.pair import PairCreate
from protocol.commands.volume import VolumeCreate
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
            event.group or event.object for event in site.events.since(0, 10_000)[0] if event.kind == kind
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


def open_site(directory: Path) -> Site:
    """The site of a directory, not started yet."""
    config, identity, keys = load_config(directory), check_identity(directory), read_keys(directory)
    return real_site(directory, config, identity, keys, asyncio.get_running_loop())


async def make_one_site(parent: Path, name: str) -> Site:
    """A new site, running in this process."""
    directory = parent / name
    make_site(directory, SiteConfig(name=name, replication=f"tcp://127.0.0.1:{free_port()}"))
    site = open_site(directory)
    await site.start()
    return site


@contextlib.asynccontextmanager
async def staged(names: tuple[str, ...] = GROUPS, alone: tuple[str, ...] = ()) -> AsyncIterator[Stage]:
    """The stage with these groups, all paired, and some at `a` alone."""
    parent = short_directory()
    sites = [await make_one_site(parent, name) for name in ("a", "b")]
    stage = Stage(a=sites[0], b=sites[1])
    asyncio.get_running_loop().set_exception_handler(exception_handler(stage.stopped.append))
    try:
        for one, other in (sites, sites[::-1]):
            one.peers.add(other.own)
            one.transport.allow(one.peers.allowed())
        for name in names:
            await dispatch(stage.a, VolumeCreate(group=name, volume="v", size_bytes=1 << 20))
            await dispatch(stage.a, PairCreate(group=name, peer="b", mode="async"))
        for name in alone:
            await dispatch(stage.a, VolumeCreate(group=name, volume="v", size_bytes=1 << 20))
        await stage.paired(*names)
        yield stage
    finally:
        for site in (stage.a, stage.b):
            await site.stop()
        shutil.rmtree(parent)


async def carried_out(site: Site, command: BaseCommand[ReplyType]) -> ReplyType:
    """The whole reply to a command."""
    answer = await dispatch(site, command)
    assert not isinstance(answer, NextPage)
    return answer.reply if isinstance(answer, Page) else answer


async def answered(site: Site, command: BaseCommand[Any]) -> Raw:
    """What a control server sends."""
    return encoded(await dispatch(site, command))
