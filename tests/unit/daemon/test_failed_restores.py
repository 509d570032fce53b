"""A restore that cannot go on before it has written anything leaves volumes and hosts as they were."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from daemon.operations import dispatch
from daemon.operations.restore import _carry_out
from engine.group.group import Group
from engine.peering.restore_ways import Chosen, Way
from protocol.commands.restore import RestoreVolume
from protocol.cut_text import CutPosition
from protocol.errors import Busy, WrongState
from protocol.limits import TIMED_LEASES_MAX
from protocol.positions import Cut
from site_primary.restore_volume import plan_restore
from tests.unit.daemon.stage import Stage, staged


def refuse(*_: object, **__: object) -> None:
    raise WrongState("refused by the test")


def restore_to(cut: Cut) -> RestoreVolume:
    named = CutPosition(timeline=cut.timeline, position=cut.position)
    return RestoreVolume(group="good", volume="v", cut=named, confirm="good/v", force=True, start=True)


async def written_twice(stage: Stage) -> tuple[Group, Cut]:
    """The group, and the cut between two writes."""
    group = stage.group("good")
    await stage.write("good", b"1")
    cut = group.end
    await stage.write("good", b"2")
    return group, cut


def closed(stage: Stage, group: Group) -> str | None:
    return stage.a.state.closed(group.name, group.volume("v").id)


def test_without_room_for_the_way_back_no_host_has_to_go() -> None:
    async def play() -> None:
        async with staged() as stage:
            group, cut = await written_twice(stage)
            timed: Any = group.kept.timed
            timed._ends |= dict.fromkeys(map(str, range(TIMED_LEASES_MAX)), 1 << 62)
            plan = plan_restore(group, ["v"], cut, skip_missing=False)
            chosen = Chosen(way=Way.WRITE, cut=cut, lease="", there=False)
            job: Any = object()
            with pytest.raises(Busy):
                await _carry_out(stage.a, group, plan, chosen, restore_to(cut), "good/v", "volume", job)
            assert closed(stage, group) is None
            await stage.write("good", b"3")

    asyncio.run(play())


def test_what_fails_once_hosts_are_gone_lets_them_come_back() -> None:
    async def play() -> None:
        async with staged() as stage:
            group, cut = await written_twice(stage)
            broken: Any = group
            was, broken.append_records = group.append_records, refuse
            with pytest.raises(WrongState, match="by the test"):
                await dispatch(stage.a, restore_to(cut))
            broken.append_records = was
            assert stage.said(stage.a, "volume.restore_failed") == ["good"]
            assert closed(stage, group) is None
            await stage.write("good", b"3")
            await dispatch(stage.a, restore_to(cut))
            assert closed(stage, group) is None

    asyncio.run(play())
