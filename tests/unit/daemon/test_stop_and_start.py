"""What a stop leaves to the next start, and what a start does for all groups at once."""

from __future__ import annotations

import asyncio
import errno
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from console.demo.host import Host
from daemon.open_group import REPLAYED_BYTES
from daemon.operations import dispatch
from daemon.site import Site
from engine.journal.recovery import make_durable
from protocol.commands.volume import VolumeCreate
from tests.support.sites import short_directory
from tests.unit.daemon.stage import make_one_site, open_site
from tests.unit.engine.index.test_indexer import children

NAMES = ("one", "other", "third")
MIB = 1 << 20


@asynccontextmanager
async def site_with_groups() -> AsyncIterator[Site]:
    parent = short_directory()
    site = await make_one_site(parent, "a")
    try:
        for name in NAMES:
            await dispatch(site, VolumeCreate(group=name, volume="v", size_bytes=MIB))
        yield site
    finally:
        shutil.rmtree(parent)


async def write(site: Site, name: str, size_bytes: int) -> None:
    """Acknowledged, not flushed."""

    def talk() -> None:
        with Host(Path(site.nbd_addresses[0].removeprefix("unix:")), f"{name}/v") as host:
            for _ in range(-(-size_bytes // MIB)):
                host.write(0, b"w" * min(MIB, size_bytes))

    await asyncio.to_thread(talk)


def test_a_stop_makes_durable_what_was_written_and_checkpoints_what_is_much() -> None:
    """A checkpoint of each of a thousand groups took minutes."""

    async def play() -> None:
        async with site_with_groups() as site:
            before = children()
            await write(site, "one", 4096)
            await write(site, "other", 2 * REPLAYED_BYTES)
            groups = dict(site.groups)
            await site.stop()
            assert all(group.writer.durable == group.writer.written for group in groups.values())
            assert groups["other"].checkpoints.reached == groups["other"].writer.written
            assert groups["one"].checkpoints.reached == groups["third"].checkpoints.reached == 0
            assert children() == before
            again = open_site(site.directory)
            await again.start()
            try:
                assert {name: group.end for name, group in again.groups.items()} == {
                    name: group.end for name, group in groups.items()
                }
            finally:
                await again.stop()

    asyncio.run(play())


def test_a_checkpoint_that_takes_long_is_left_to_the_next_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine has no processor for it: the journal has all of it."""
    monkeypatch.setattr("daemon.open_group.LAST_CHECKPOINT_TIMEOUT_S", 0.2)
    monkeypatch.setattr("daemon.indexer_pool.STOP_TIMEOUT_S", 0.2)

    async def play() -> None:
        async with site_with_groups() as site:
            await write(site, "other", 2 * REPLAYED_BYTES)
            group = site.groups["other"]
            with monkeypatch.context() as patched:
                patched.setattr("daemon.indexer_process.IndexerProcess.ask", never)
                await site.stop()
            assert group.checkpoints.reached < group.writer.durable == group.writer.written
            again = open_site(site.directory)
            await again.start()
            try:
                assert again.groups["other"].end == group.end
            finally:
                await again.stop()

    asyncio.run(play())


async def never(*_: object) -> None:
    await asyncio.Event().wait()


def test_what_a_start_makes_durable_last_may_fail_for_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        async with site_with_groups() as site:
            await site.stop()
            synced = []

            def fails_for_one(disk: Any, *what: Any) -> None:
                if disk.root.name == "one":
                    raise OSError(errno.EIO, "the disk fails")
                synced.append(disk.root.name)
                make_durable(disk, *what)

            monkeypatch.setattr("engine.group.recovery.make_durable", fails_for_one)
            again = open_site(site.directory)
            await again.start()
            try:
                assert {name for name, group in again.groups.items() if group.failed} == {"one"}
                assert sorted(synced) == ["other", "third"]
                for name in ("other", "third"):
                    await write(again, name, 4096)
            finally:
                await again.stop()

    asyncio.run(play())
