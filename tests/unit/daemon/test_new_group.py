"""A group that does not open when it is made leaves no row behind, or keeps its name."""

from __future__ import annotations

import asyncio
import errno
import shutil
from typing import Any

import pytest

from daemon.new_group import make_group
from daemon.operations import dispatch
from engine.group.group import Group
from engine.group.recovery import recover_group
from engine.group.site_state import GroupRow, Role
from protocol.commands.volume import VolumeCreate
from protocol.errors import FarshoreError
from tests.support.sites import short_directory
from tests.unit.daemon.stage import make_one_site, open_site
from tests.unit.daemon.two_sites import TwoSites

NEW = GroupRow(name="new", group_id="0" * 16, role=Role.SECONDARY, head=0, created_utc_ns=1)
CREATE = VolumeCreate(group="new", volume="v", size_bytes=1 << 20)


def test_it_can_be_made_again_once_the_cause_is_gone() -> None:
    """Its row stayed, under a name that nothing at the site knew as taken."""

    async def play() -> None:
        parent = short_directory()
        site = await make_one_site(parent, "a")
        try:
            index = site.directory / "groups" / "new" / "index.mdb"
            index.parent.mkdir(parents=True)
            index.write_bytes(b"not an index" * 4096)
            with pytest.raises((FarshoreError, OSError)):
                await dispatch(site, CREATE)
            assert site.state.groups() == []
            assert not site.has_group("new")
            index.unlink()
            await dispatch(site, CREATE)
            assert [row.name for row in site.state.groups()] == ["new"]
        finally:
            await site.stop()
            shutil.rmtree(parent)

    asyncio.run(play())


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "no address space")])
def test_what_does_not_open_leaves_nothing(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not its files either: at a start they would be of nobody."""

    async def play() -> None:
        parent = short_directory()
        site = await make_one_site(parent, "a")
        try:

            def out_of_memory(*_: object, **__: object) -> None:
                raise error

            with monkeypatch.context() as patched:
                patched.setattr("daemon.open_group.recover_group", out_of_memory)
                with pytest.raises((type(error), FarshoreError)):
                    await dispatch(site, CREATE)
            assert site.state.groups() == []
            assert not site.has_group("new")
            assert not (site.directory / "groups" / "new").exists()
            await dispatch(site, CREATE)
        finally:
            await site.stop()
            shutil.rmtree(parent)

    asyncio.run(play())


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "no address space")])
def test_a_start_opens_the_others(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever keeps one group closed is its own."""

    async def play() -> None:
        parent = short_directory()
        site = await make_one_site(parent, "a")
        for name in ("one", "other"):
            await dispatch(site, VolumeCreate(group=name, volume="v", size_bytes=1 << 20))
        await site.stop()

        def out_of_memory(group: Group, *more: Any, **how: Any) -> Any:
            if group.name == "one":
                raise error
            return recover_group(group, *more, **how)

        monkeypatch.setattr("daemon.open_group.recover_group", out_of_memory)
        site = open_site(site.directory)
        await site.start()
        try:
            assert list(site.groups) == ["other"]
            assert list(site.damaged) == ["one"]
            assert [each.group for each in site.events.since(0, 1000)[0] if each.kind == "group.damaged"] == [
                "one"
            ]
        finally:
            await site.stop()
            shutil.rmtree(parent)

    asyncio.run(play())


def test_what_cannot_be_taken_back_keeps_its_name() -> None:
    sites = TwoSites()
    aside: dict[str, FarshoreError] = {}

    def fails_to_open(_: GroupRow) -> Group:
        sites.commit_fails_next(sites.b)
        raise OSError(errno.EMFILE, "too many open files")

    with pytest.raises(OSError, match="too many open files"):
        make_group(NEW, sites.process(sites.b).state, fails_to_open, aside.__setitem__)
    assert list(aside) == ["new"]
