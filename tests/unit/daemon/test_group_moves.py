"""Groups that are renamed or deleted: what keeps them from it, and a loss of power in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from console.demo.host import Host
from daemon import group_moves
from daemon.operations import dispatch
from daemon.site import Site
from protocol.commands.backup import BackupCreate, BackupLock
from protocol.commands.clone import CloneCreate, CloneDelete
from protocol.commands.group import GroupDelete, GroupList, GroupRename, GroupShow
from protocol.commands.pair import PairCreate, PairDelete
from protocol.commands.volume import VolumeCreate
from protocol.cut_text import CutLabel, CutLatest
from protocol.errors import Busy, FarshoreError, NotAllowed, NotFound, Unsafe, WrongState
from tests.unit.daemon.stage import BLOCK, Stage, carried_out, open_site, staged


def read(site: Site, path: str) -> bytes:
    with Host(Path(site.nbd_addresses[0].removeprefix("unix:")), path) as host:
        return host.read(0, BLOCK)


async def reopened(site: Site, before: Callable[[Site], object] = lambda _: None) -> Site:
    """`before` is given the site once it is open and not started."""
    await site.stop()
    again = open_site(site.directory)
    before(again)
    await again.start()
    return again


async def refused_by_pair(stage: Stage, name: str, error: type[FarshoreError], said: str) -> None:
    """The pair is made, and the peer refuses it with that word."""
    await dispatch(stage.a, PairCreate(group=name, peer="b"))
    await stage.until(lambda: said in stage.a.shippers[name].reason)
    await dispatch(stage.a, PairDelete(group=name, confirm=name))


def test_c34_a_group_left_over_is_renamed_or_deleted_and_its_name_is_free() -> None:
    async def play() -> None:
        async with staged(("good",), alone=("bad", "other")) as stage:
            await stage.write("good", b"g")
            await stage.paired("good")
            with pytest.raises(WrongState, match="paired with b") as refused:
                await dispatch(stage.a, GroupDelete(group="good", confirm="good"))
            assert refused.value.next_step == "`farshore pair delete good --confirm good`"
            # Deleted at b alone it would be there again within seconds.
            with pytest.raises(WrongState, match="paired with a") as refused:
                await dispatch(stage.b, GroupDelete(group="good", confirm="good"))
            assert "at a, which writes it, then here" in refused.value.next_step
            # The pair is deleted at both; then the group is made anew at a, where the old one went.
            for site in (stage.a, stage.b):
                await dispatch(site, PairDelete(group="good", confirm="good"))
            with pytest.raises(Unsafe):
                await dispatch(stage.a, GroupDelete(group="good"))
            old = await carried_out(stage.a, GroupDelete(group="good", confirm="good"))
            assert not (stage.a.directory / "groups" / "good").exists()
            await dispatch(stage.a, VolumeCreate(group="good", volume="v", size_bytes=1 << 20))
            await refused_by_pair(stage, "good", WrongState, "another one of the same name")
            await dispatch(stage.b, GroupRename(group="good", new="old"))
            kept = await carried_out(stage.b, GroupShow(group="old"))
            assert (kept.group_id, kept.volumes) == (old.group_id, 1)
            await dispatch(stage.a, PairCreate(group="good", peer="b"))
            await stage.write("good", b"n")
            await stage.paired("good")
            # Another name at one site only: the other one is told, and both go on from what they hold.
            for site in (stage.a, stage.b):
                await dispatch(site, PairDelete(group="good", confirm="good"))
            await dispatch(stage.a, GroupRename(group="good", new="vm1"))
            assert await asyncio.to_thread(read, stage.a, "vm1/v") == b"n" * BLOCK
            await refused_by_pair(stage, "vm1", WrongState, "farshore group rename good vm1")
            await dispatch(stage.b, GroupRename(group="good", new="vm1"))
            await dispatch(stage.a, PairCreate(group="vm1", peer="b"))
            await stage.paired("vm1")
            stage.a, stage.b = await reopened(stage.a), await reopened(stage.b)
            await stage.paired("vm1")
            listed = await carried_out(stage.b, GroupList())
            assert [(each.group, each.role) for each in listed.groups] == [
                ("old", "secondary"),
                ("vm1", "secondary"),
            ]
            assert not stage.said(stage.a, "group.missing")

    asyncio.run(play())


def test_a_group_in_use_or_locked_is_not_deleted() -> None:
    async def play() -> None:
        async with staged((), alone=("good", "other")) as stage:
            await stage.write("good", b"g")
            gone = GroupDelete(group="good", confirm="good")

            def connected() -> Host:
                return Host(Path(stage.a.nbd_addresses[0].removeprefix("unix:")), "good/v")

            with await asyncio.to_thread(connected) as host:
                await asyncio.to_thread(host.read, 0, BLOCK)
                with pytest.raises(Busy, match="1 hosts"):
                    await dispatch(stage.a, gone)
                with pytest.raises(Busy, match="1 hosts"):
                    await dispatch(stage.a, GroupRename(group="good", new="new"))
            await stage.until(lambda: not stage.a.exports.hosts_of(stage.group("good")))
            await dispatch(stage.a, CloneCreate(group="good", clone="try", cut=CutLatest()))
            with pytest.raises(Busy, match="clone"):
                await dispatch(stage.a, gone)
            await dispatch(stage.a, CloneDelete(clone="try", confirm="try"))
            await stage.until(lambda: not stage.a.state.drops("good"))
            with pytest.raises(Busy, match="taken"):
                await dispatch(stage.a, GroupRename(group="good", new="other"))
            await dispatch(stage.a, BackupCreate(group="good", label="kept"))
            await dispatch(stage.a, BackupLock(group="good", cut=CutLabel(label="kept"), lock_s=3600))
            with pytest.raises(NotAllowed, match="retention lock"):
                await dispatch(stage.a, gone)
            assert (await carried_out(stage.a, GroupShow(group="good"))).locked_until is not None
            # A lock goes with the group to its new name.
            await dispatch(stage.a, GroupRename(group="good", new="new"))
            with pytest.raises(NotAllowed, match="retention lock"):
                await dispatch(stage.a, GroupDelete(group="new", confirm="new"))

    asyncio.run(play())


@pytest.mark.parametrize("to", [None, "new"])
@pytest.mark.parametrize("step", ["begun", "rows", "directory"])
def test_a_loss_of_power_in_the_middle_is_finished_at_the_next_start(to: str | None, step: str) -> None:
    async def play() -> None:
        async with staged((), alone=("good", "other")) as stage:
            await stage.write("good", b"g")
            groups = stage.a.directory / "groups"

            def cut_short(site: Site) -> None:
                group_moves.begin(site.disk, site.state.group("good"), to)
                if step != "begun":
                    group_moves.move_rows(site._parts.store, "good", to)
                if step == "directory" and to is not None:
                    (groups / "good").rename(groups / to)
                elif step == "directory":
                    (groups / "good" / "index.mdb").unlink()

            stage.a = await reopened(stage.a, cut_short)
            left = {path.name for path in groups.iterdir()}
            if to is None:
                assert left == {"other"}
                with pytest.raises(NotFound):
                    stage.a.state.group("good")
            else:
                name = "good" if step == "begun" else to
                assert left == {name, "other"}
                assert await asyncio.to_thread(read, stage.a, f"{name}/v") == b"g" * BLOCK
            await dispatch(stage.a, VolumeCreate(group="fresh", volume="v", size_bytes=1 << 20))
            assert not list(groups.glob(f"*/{group_moves.MARK}"))

    asyncio.run(play())


@pytest.mark.parametrize("text", [b"junk", b'{"group_id":"00000000000000ff","to":null}'])
def test_a_mark_that_does_not_fit_its_group_changes_nothing(text: bytes) -> None:
    async def play() -> None:
        async with staged((), alone=("good",)) as stage:
            await stage.write("good", b"g")
            mark = stage.a.directory / "groups" / "good" / group_moves.MARK
            stage.a = await reopened(stage.a, lambda _: mark.write_bytes(text))
            assert not mark.exists()
            assert await asyncio.to_thread(read, stage.a, "good/v") == b"g" * BLOCK

    asyncio.run(play())
