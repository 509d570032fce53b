"""Hosts find groups and clones by one name: no two of them ever share it, whoever makes the second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from daemon.open_group import OpenGroup
from daemon.operations import dispatch
from protocol.commands.clone import CloneCreate, CloneDelete
from protocol.commands.group import GroupRename, GroupShow
from protocol.commands.pair import PairCreate
from protocol.commands.volume import VolumeCreate
from protocol.cut_text import CutLatest
from protocol.errors import Busy, Corruption, Refused
from tests.unit.daemon.stage import Stage, carried_out, staged

SIZE = 1 << 20


def clone_of(group: str, name: str) -> CloneCreate:
    return CloneCreate(group=group, clone=name, cut=CutLatest())


def test_a_peers_group_does_not_get_the_name_of_a_clone() -> None:
    """After a takeover, hosts of the group were connected to the clone, and wrote to it."""

    async def play() -> None:
        async with staged(("good",)) as stage:
            await stage.paired("good")
            await dispatch(stage.b, clone_of("good", "new"))
            await dispatch(stage.a, VolumeCreate(group="new", volume="v", size_bytes=SIZE))
            await dispatch(stage.a, PairCreate(group="new", peer="b"))
            await stage.until(lambda: "new is a clone here" in stage.a.shippers["new"].reason)
            assert "new" not in stage.b.groups
            assert stage.b.state.pair("new") is None
            with pytest.raises(Refused, match="new is a clone here"):
                await dispatch(stage.b, VolumeCreate(group="new", volume="v", size_bytes=SIZE))
            await dispatch(stage.b, CloneDelete(clone="new", confirm="new"))
            await stage.paired("new")

    asyncio.run(play())


def test_a_clone_of_a_group_that_cannot_be_opened_keeps_its_name() -> None:
    """A group or a clone of that name made the clone a branch, or hosts find it once its group was mended."""

    async def play() -> None:
        async with staged((), alone=("good", "other")) as stage:
            await dispatch(stage.a, clone_of("good", "try"))
            was = stage.a.groups.pop("good")
            stage.a.damaged["good"] = Corruption("damaged by the test")
            try:
                with pytest.raises(Refused, match="try is a clone here"):
                    await dispatch(stage.a, VolumeCreate(group="try", volume="v", size_bytes=SIZE))
                with pytest.raises(Refused, match="already"):
                    await dispatch(stage.a, clone_of("other", "try"))
                with pytest.raises(Busy, match="taken"):
                    await dispatch(stage.a, GroupRename(group="other", new="try"))
            finally:
                del stage.a.damaged["good"]
                stage.a.groups["good"] = was

    asyncio.run(play())


async def make_group(stage: Stage) -> None:
    await dispatch(stage.a, VolumeCreate(group="new", volume="v", size_bytes=SIZE))


async def make_clone(stage: Stage) -> None:
    await dispatch(stage.a, clone_of("other", "new"))


async def rename_another(stage: Stage) -> None:
    await dispatch(stage.a, GroupRename(group="other", new="new"))


@pytest.mark.parametrize("make", [make_group, make_clone, rename_another])
def test_the_name_that_a_group_is_on_its_way_to_is_not_free(
    make: Callable[[Stage], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it was closed, which takes a checkpoint, its new name could be given to another; the rows of
    that one were then written over with those of the first."""

    async def play() -> None:
        async with staged((), alone=("good", "other")) as stage:
            moved = (await carried_out(stage.a, GroupShow(group="good"))).group_id
            closed = asyncio.Event()
            close = OpenGroup.close

            async def close_late(made: OpenGroup) -> None:
                await closed.wait()
                await close(made)

            monkeypatch.setattr(OpenGroup, "close", close_late)
            renaming = asyncio.create_task(dispatch(stage.a, GroupRename(group="good", new="new")))
            await stage.until(lambda: "good" not in stage.a.groups)
            try:
                with pytest.raises((Busy, Refused)):
                    await make(stage)
            finally:
                closed.set()
                await renaming
            assert (await carried_out(stage.a, GroupShow(group="new"))).group_id == moved
            assert sorted(stage.a.groups) == ["new", "other"]

    asyncio.run(play())
