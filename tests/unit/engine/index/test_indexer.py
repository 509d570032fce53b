"""The indexer as a process: what it is asked and answers, and that its death costs one try."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from daemon.indexer_pool import IndexerPool
from engine.history.timelines import Timeline
from engine.index.checkpoint import CheckpointPlan
from engine.index.requests import encode_request
from protocol.errors import RemoteProtocolError
from protocol.positions import Cut
from protocol.rows import unpack_row
from tests.unit.engine.group_rig import GroupRig

TIMEOUT_S = 30.0


def plan_of(rig: GroupRig) -> CheckpointPlan:
    end = rig.end
    return CheckpointPlan(target=end, durable=end.position, timelines=tuple(rig.group.timelines.all()))


def test_a_plan_survives_its_row() -> None:
    timelines = tuple(
        Timeline(id=id_, parent=id_ - 1, fork=100 * id_, generation=id_, writer="lon", lane=id_ % 2)
        for id_ in range(1, 500)
    )
    plan = CheckpointPlan(target=Cut(9, 1234), durable=5678, timelines=timelines)
    kind, *fields = unpack_row(encode_request(plan))
    assert kind == "checkpoint"
    assert CheckpointPlan.from_row(tuple(fields)) == plan


def test_anything_else_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        CheckpointPlan.from_row((1, 2, 3))


def children() -> list[int]:
    """Processes that this one started."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # a thread of an earlier test that ends just now
            found += map(int, (task / "children").read_text().split())
    return found


class Asked:
    """Plans given to an indexer process, and its answers."""

    def __init__(self, directory: Path) -> None:
        self.pool = IndexerPool(directory.parent, 1)
        self.indexer = self.pool.of(directory.name)

    def begin(self, plan: CheckpointPlan) -> asyncio.Future[Exception | None]:
        answer: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.indexer.start(plan, lambda error, _: answer.set_result(error))
        return answer

    async def ask(self, plan: CheckpointPlan) -> Exception | None:
        return await asyncio.wait_for(self.begin(plan), TIMEOUT_S)


async def new_child(before: list[int]) -> int:
    """The process id of a child that was not there `before`."""
    for _ in range(3000):
        made = [pid for pid in children() if pid not in before]
        if made:
            return made[0]
        await asyncio.sleep(0.005)
    raise AssertionError("no child was started")


def test_a_checkpoint_by_the_child_is_seen_here(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a")

    async def scenario() -> None:
        asked = Asked(rig.directory / "g")
        before = children()
        assert await asked.ask(plan_of(rig)) is None
        child = await new_child(before)
        rig.write(volume, 1, b"b")
        assert await asked.ask(plan_of(rig)) is None
        assert child in children()
        await asked.pool.stop()
        assert child not in children()

    asyncio.run(scenario())
    assert rig.reopen().frames == 0
    assert rig.letters("root") == "ab.."


def test_a_plan_that_fails_is_answered_and_the_child_goes_on(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a")

    async def scenario() -> None:
        asked = Asked(rig.directory / "g")
        plan = plan_of(rig)
        beyond = Cut(plan.target.timeline, plan.target.position + 100)
        past_durable = CheckpointPlan(target=beyond, durable=plan.durable, timelines=plan.timelines)
        past_the_end = CheckpointPlan(target=beyond, durable=beyond.position, timelines=plan.timelines)
        assert "durable" in str(await asked.ask(past_durable))
        assert "corruption" in str(await asked.ask(past_the_end))
        assert await asked.ask(plan) is None
        await asked.pool.stop()

    asyncio.run(scenario())
    assert rig.reopen().frames == 0


def test_a_child_killed_half_way_costs_one_try(rig: GroupRig) -> None:
    """Nothing of it is in the index, and the next plan gets another child."""
    volume = rig.create("root", 200)
    for block in range(200):
        rig.write(volume, block, b"a")

    async def scenario() -> None:
        asked = Asked(rig.directory / "g")
        before = children()
        answer = asked.begin(plan_of(rig))
        child = await new_child(before)
        os.kill(child, signal.SIGSTOP)
        assert not answer.done()
        os.kill(child, signal.SIGKILL)
        failure = await asyncio.wait_for(answer, TIMEOUT_S)
        assert "indexer process ended" in str(failure)
        with rig.group.store.read() as read:
            assert not read.cursor("versions").next()
        assert await asked.ask(plan_of(rig)) is None
        await asked.pool.stop()

    asyncio.run(scenario())
    assert rig.reopen().frames == 0
    assert rig.letters("root") == "a" * 200


def test_a_child_killed_while_idle_is_replaced(rig: GroupRig) -> None:
    volume = rig.create("root", 4)

    async def scenario() -> None:
        asked = Asked(rig.directory / "g")
        before = children()
        assert await asked.ask(plan_of(rig)) is None
        os.kill(await new_child(before), signal.SIGKILL)
        rig.write(volume, 0, b"a")
        answers = [await asked.ask(plan_of(rig)), await asked.ask(plan_of(rig))]
        assert answers[-1] is None
        await asked.pool.stop()

    asyncio.run(scenario())
    assert rig.reopen().frames == 0
