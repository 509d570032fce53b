"""Restores one upon the other: each is an event, and only the newest is compared in full."""

from __future__ import annotations

import asyncio

import pytest

from daemon.jobs import JobState
from daemon.operations import comparing
from engine.peering.peer_requests import PeerRequests
from engine.peering.restore_ways import INTERVALS_READ_BY_ALL, Way, choose_way, depth_of
from protocol.commands.restore import RestoreReply, RestoreVolume
from protocol.cut_text import CutPosition
from protocol.errors import Unreachable
from protocol.peer_requests import MANY_REVERTS
from protocol.positions import Cut
from tests.unit.daemon.stage import BLOCK, PATIENCE_S, Stage, carried_out, staged

DEEP = 70


async def restore(stage: Stage, cut: Cut) -> RestoreReply:
    named = CutPosition(timeline=cut.timeline, position=cut.position)
    command = RestoreVolume(group="good", volume="v", cut=named, confirm="good/v", force=True, start=True)
    return await carried_out(stage.a, command)


def journaled(stage: Stage, number: int) -> Cut:
    """A write as of a host, and the cut after it."""
    group = stage.group("good")
    content = number.to_bytes(4) * (BLOCK // 4)
    group.append([(1, group.volume("v").id, number % 7, 1)], [content], BLOCK)
    return group.end


async def deepened(stage: Stage, times: int) -> list[RestoreReply]:
    """So many restores, each to the cut after the last one's write and before another."""
    cut, replies = journaled(stage, 0), []
    for number in range(1, times + 1):
        journaled(stage, 2 * number)
        replies.append(await restore(stage, cut))
        cut = journaled(stage, 2 * number + 1)
    return replies


def test_restores_stay_events_at_both_sites_however_many_there_were() -> None:
    async def play() -> None:
        async with staged(names=("good",)) as stage:
            replies = await deepened(stage, DEEP)
            assert {(reply.way, reply.copied_bytes) for reply in replies} == {("revert", 0)}
            await stage.paired("good")
            contents = []
            for at in ("a", "b"):
                group = stage.group("good", at)
                view = group.live_view(group.volume("v"))
                assert len(view.intervals) == DEEP + 1 > INTERVALS_READ_BY_ALL
                with view.batch() as batch:
                    contents.append(view.read(batch, 0, 8 * BLOCK))
            assert contents[0] == contents[1]

    asyncio.run(play())


def test_one_compare_is_left_of_ten_restores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "RATE_BYTES_S", BLOCK)  # none ends by itself

    async def play() -> None:
        async with staged(names=("good",)) as stage:
            replies = await deepened(stage, 10)
            jobs = [stage.a.jobs.get(reply.job) for reply in replies if reply.job is not None]
            assert len(jobs) == 10
            tasks = [job.task for job in jobs[:-1] if job.task is not None]
            await asyncio.wait(tasks, timeout=PATIENCE_S)
            assert [job.state for job in jobs] == [JobState.CANCELLED] * 9 + [JobState.RUNNING]
            assert [job.number for job in stage.a.jobs.running(comparing.KIND)] == [jobs[-1].number]

    asyncio.run(play())


def test_what_is_compared_no_longer_is_not_called_verified() -> None:
    """Of a group's restore, after which one volume was turned back again."""

    async def play() -> None:
        async with staged(names=("good",)) as stage:
            group, site = stage.group("good"), stage.a
            cut = journaled(stage, 1)
            older = comparing.start(site, group, ["v"], cut, group.end, "good")
            older.arguments = {**older.arguments, "volumes": ["v", "w"]}  # of which one went on
            comparing.start(site, group, ["v"], cut, group.end, "good/v")
            assert comparing._is_superseded(site, older, "v")
            assert not comparing._is_superseded(site, older, "w")

    asyncio.run(play())


@pytest.mark.parametrize("answer", [False, Unreachable("away")])
def test_a_peer_that_would_refuse_so_many_gets_blocks(
    answer: bool | Unreachable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of an earlier version; also one that cannot be asked, which may be of one."""

    async def reads(_: PeerRequests, what: str) -> bool:
        assert what == MANY_REVERTS
        if isinstance(answer, Unreachable):
            raise answer
        return answer

    async def play() -> None:
        async with staged(names=("good",)) as stage:
            await deepened(stage, INTERVALS_READ_BY_ALL - 2)
            group = stage.group("good")
            volumes = (group.volume("v"),)
            await stage.paired("good")

            async def way() -> Way:
                shipper = stage.a.shippers["good"]

                def ask() -> PeerRequests:
                    return stage.a.ask_peer("good")

                return (await choose_way(group, volumes, group.end, "test", 1.0, shipper, ask)).way

            monkeypatch.setattr(PeerRequests, "reads", reads)
            assert (depth_of(group, volumes, group.end), await way()) == (47, Way.REVERT)
            before = journaled(stage, 4)
            journaled(stage, 5)
            await restore(stage, before)
            await stage.paired("good")
            assert (depth_of(group, volumes, group.end), await way()) == (48, Way.WRITE)

    asyncio.run(play())
