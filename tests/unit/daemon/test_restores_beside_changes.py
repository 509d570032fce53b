"""A volume that is deleted or renamed before a restore of it begins, or in the middle of one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from daemon.operations import comparing, dispatch, restore, restore_by_writes
from engine.group.group import Group
from engine.peering.restore_ways import Chosen, Way, choose_way
from engine.retention.timed_leases import asked_lease
from protocol.commands.base import BaseCommand
from protocol.commands.restore import RestoreGroup
from protocol.commands.volume import VolumeCreate, VolumeDelete, VolumeRename
from protocol.cut_text import CutPosition
from protocol.errors import Busy, FarshoreError, WrongState
from protocol.positions import Cut
from tests.unit.daemon.stage import Stage, staged
from tests.unit.daemon.test_failed_restores import restore_to, written_twice

CHANGES: list[BaseCommand[Any]] = [
    VolumeDelete(group="good", volume="v", confirm="good/v"),
    VolumeRename(group="good", volume="v", to="w", force=True),
]


async def outcome(stage: Stage, command: BaseCommand[Any]) -> FarshoreError | None:
    """What the restore, or the job that it began, failed with."""
    try:
        await dispatch(stage.a, command)
    except FarshoreError as error:
        return error
    await asyncio.wait([job.task for job in stage.a.jobs.all() if job.task is not None])
    failed = [job.error for job in stage.a.jobs.all() if job.error is not None]
    return WrongState(failed[0].message) if failed else None


@pytest.mark.parametrize("way", [Way.REVERT, Way.WRITE])
@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_before_it_began_is_refused_and_leaves_the_others_open(
    way: Way, change: BaseCommand[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The restore ended inside the daemon, and took the disks of the group's other hosts with it."""

    async def play() -> None:
        async with staged((), alone=("good",)) as stage:
            await dispatch(stage.a, VolumeCreate(group="good", volume="u", size_bytes=1 << 20))
            group, cut = await written_twice(stage)

            async def choose(*_: object) -> Chosen:
                with pytest.raises(Busy, match="a restore of good/v is under way"):
                    await dispatch(stage.a, change)
                return Chosen(way=way, cut=cut, lease="", there=False)

            carry_out = restore._carry_out

            async def carry_out_late(*words: Any) -> Any:
                """Its task has not begun yet when another command has its turn."""
                await dispatch(stage.a, change)
                return await carry_out(*words)

            monkeypatch.setattr(restore, "choose_way", choose)
            monkeypatch.setattr(restore, "_carry_out", carry_out_late)
            named = CutPosition(timeline=cut.timeline, position=cut.position)
            error = await outcome(stage, RestoreGroup(group="good", cut=named, confirm="good", force=True))
            assert error is not None
            assert "good/v was deleted or renamed meanwhile" in str(error)
            assert stage.a.exports.closed(group, group.volume("u")) is None
            assert not stage.a.rewriting

    asyncio.run(play())


@pytest.mark.parametrize("way", [Way.REVERT, Way.WRITE])
@pytest.mark.parametrize("change", CHANGES)
def test_a_volume_that_is_being_turned_back_is_not_changed(
    way: Way, change: BaseCommand[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []

    async def play() -> None:
        async with staged((), alone=("good",)) as stage:
            group, cut = await written_twice(stage)

            async def disturbed() -> None:
                if not refused:
                    refused.append("nothing")
                    with pytest.raises(Busy, match="a restore of good/v is under way"):
                        await dispatch(stage.a, change)
                    refused[0] = type(change).__name__

            async def choose(*_: object) -> Chosen:
                return Chosen(way=way, cut=cut, lease="", there=False)

            room, sample = restore_by_writes._room, comparing.sample

            async def room_later(*words: Any) -> None:
                await disturbed()
                await room(*words)

            async def sample_later(*words: Any) -> int:
                await disturbed()
                return await sample(*words)

            monkeypatch.setattr(restore, "choose_way", choose)
            monkeypatch.setattr(restore_by_writes, "_room", room_later)
            monkeypatch.setattr(comparing, "sample", sample_later)
            assert await outcome(stage, restore_to(cut)) is None
            assert stage.a.exports.closed(group, group.volume("v")) is None

    asyncio.run(play())
    assert refused != ["nothing"]


def test_a_second_restore_does_not_take_from_the_peer_what_it_holds_for_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By one name it holds one cut: a long restore that fetches it would have ended half way."""

    async def play() -> None:
        async with staged(("good",)) as stage:
            group, cut = await written_twice(stage)
            await stage.paired("good")
            first, held = asyncio.Event(), list[Cut]()
            choose = choose_way

            async def slowly(group: Group, volumes: Any, cut: Cut, *rest: Any) -> Chosen:
                chosen = await choose(group, volumes, cut, *rest)
                held.append(cut)
                if len(held) == 1:
                    await first.wait()
                return chosen

            monkeypatch.setattr(restore, "choose_way", slowly)
            one = asyncio.create_task(outcome(stage, restore_to(cut)))
            await stage.until(lambda: held)
            try:
                with pytest.raises(Busy, match="a restore of good is under way"):
                    await dispatch(stage.a, restore_to(group.end))
                assert stage.group("good", "b").kept.timed.get(asked_lease("a", "restore good/v")) == cut
            finally:
                first.set()
            assert await one is None
            assert held == [cut]

    asyncio.run(play())
