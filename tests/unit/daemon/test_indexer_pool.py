"""Indexers that a site's groups share: turns, and what a process that dies or hangs costs whom."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from daemon.indexer_pool import PROCESSES_MAX, PROCESSES_MIN, IndexerPool, processes_for
from engine.index.checkpoint import CheckpointPlan
from engine.index.index_file import INDEX_FILE, open_index
from engine.index.requests import IndexRequest
from engine.integrity.verify_slices import VerifyIndex
from protocol.positions import Cut
from tests.unit.engine.index.test_indexer import children, new_child

TIMEOUT_S = 60.0
NEVER_S = 3600.0
# Longer than a busy machine keeps a process from its processor.
HUNG_S = 8.0
# A plan that is refused: what is asked here is who answers, when, and for whom.
URGENT = CheckpointPlan(target=Cut(1, 2), durable=1, timelines=())
LARGE = CheckpointPlan(target=Cut(1, 2), durable=1, timelines=(), branches=(Cut(1, 1 << 61),) * 40_000)
OTHER = VerifyIndex(start=b"", deep=False)
Answer = asyncio.Future[str]


class Rig:
    """Groups with empty indexes, a pool, and in which order it answered."""

    def __init__(self, directory: Path, pool: IndexerPool) -> None:
        self.directory = directory
        self.pool = pool
        self.order: list[str] = []
        self.groups = {name: pool.of(name) for name in "abcdef"}
        for name in self.groups:
            (directory / name).mkdir()
            open_index(directory / name).close()

    def ask(self, name: str, request: IndexRequest, what: str = "") -> Answer:
        """What is answered: nothing, or what went wrong."""
        answer: Answer = asyncio.get_running_loop().create_future()

        def done(error: Exception | None, _: tuple[int, ...]) -> None:
            self.order.append(what or name)
            if not answer.done():
                answer.set_result(str(error or ""))

        self.groups[name].start(request, done)
        return answer

    async def all(self, *answers: Answer) -> list[str]:
        return list(await asyncio.wait_for(asyncio.gather(*answers), TIMEOUT_S))


@asynccontextmanager
async def rig_of(directory: Path, processes: int, silent_s: float = NEVER_S) -> AsyncIterator[Rig]:
    pool = IndexerPool(directory, processes, silent_s)
    try:
        yield Rig(directory, pool)
    finally:
        await pool.stop()


def test_there_are_as_many_as_processors() -> None:
    assert [processes_for(count) for count in (1, 2, 4, 64)] == [
        PROCESSES_MIN,
        PROCESSES_MIN,
        3,
        PROCESSES_MAX,
    ]


def test_all_groups_are_served_by_few_processes(tmp_path: Path) -> None:
    async def scenario() -> None:
        before = children()
        async with rig_of(tmp_path, 2) as rig:
            answers = await rig.all(*(rig.ask(name, OTHER) for name in "abcdef" * 3))
            assert answers == [""] * 18
            assert len(set(children()) - set(before)) <= 2
        assert not set(children()) - set(before)

    asyncio.run(scenario())


def test_groups_take_turns(tmp_path: Path) -> None:
    """One that asks for much does not keep another that asks for little."""

    async def scenario() -> None:
        async with rig_of(tmp_path, 1) as rig:
            many = [rig.ask("a", OTHER) for _ in range(10)]
            few = [rig.ask(name, OTHER) for name in "bc"]
            await rig.all(*many, *few)
            assert rig.order == ["a", "b", "c"] + 9 * ["a"]

    asyncio.run(scenario())


def test_what_hosts_wait_for_goes_first_and_the_rest_is_not_forgotten(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with rig_of(tmp_path, 1) as rig:
            others = [rig.ask(name, OTHER, "other") for name in "abc"]
            urgent = [rig.ask(name, URGENT, "urgent") for name in "adef"]
            await rig.all(*others, *urgent)
            assert rig.order == ["other"] + 4 * ["urgent"] + 2 * ["other"]
        async with rig_of(tmp_path / "more", 2) as rig:
            went_on = asyncio.Event()
            turns = itertools.cycle("bcd")

            def again(*_: object) -> None:
                if not went_on.is_set():
                    rig.groups[next(turns)].start(URGENT, again)

            for _ in range(3):
                again()
            rig.ask("a", OTHER).add_done_callback(lambda _: went_on.set())
            # Urgent requests never end before it: what waits for none of them to be left waits for ever.
            await asyncio.wait_for(went_on.wait(), TIMEOUT_S)

    (tmp_path / "more").mkdir()
    asyncio.run(scenario())


def test_a_process_that_dies_costs_the_group_that_it_worked_for_one_request(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with rig_of(tmp_path, 1) as rig:
            before = children()
            first = rig.ask("a", OTHER)
            others = [rig.ask(name, OTHER) for name in "bcdef"]
            child = await new_child(before)
            os.kill(child, signal.SIGKILL)
            assert "indexer process ended" in (await rig.all(first))[0]
            assert await rig.all(*others, rig.ask("a", OTHER)) == [""] * 6

    asyncio.run(scenario())


def test_while_one_hangs_the_other_groups_are_served(tmp_path: Path) -> None:
    async def scenario() -> None:
        before = children()
        async with rig_of(tmp_path, 2, silent_s=NEVER_S) as rig:
            await rig.all(rig.ask("a", URGENT))
            child = await new_child(before)
            os.kill(child, signal.SIGSTOP)
            hung = rig.ask("a", URGENT)
            others = await rig.all(*(rig.ask(name, URGENT) for name in "bcdef"))
            assert all("durable" in each for each in others)
            assert not hung.done()
            os.kill(child, signal.SIGCONT)
            assert "durable" in (await rig.all(hung))[0]

    asyncio.run(scenario())


def test_one_that_hangs_is_replaced(tmp_path: Path) -> None:
    """Nothing is done for its group before it has gone: it could still commit."""

    async def scenario() -> None:
        before = children()
        async with rig_of(tmp_path, 1, silent_s=HUNG_S) as rig:
            await rig.all(rig.ask("a", URGENT))
            child = await new_child(before)
            os.kill(child, signal.SIGSTOP)
            assert "done nothing for" in (await rig.all(rig.ask("a", URGENT)))[0]
            assert "durable" in (await rig.all(rig.ask("a", URGENT)))[0]
            assert child not in children()

    asyncio.run(scenario())


def test_one_that_hangs_before_it_has_taken_a_large_request_is_replaced(tmp_path: Path) -> None:
    """What does not fit into the pipe waits for it as the answer does."""

    async def scenario() -> None:
        before = children()
        async with rig_of(tmp_path, 1, silent_s=HUNG_S) as rig:
            await rig.all(rig.ask("a", URGENT))
            os.kill(await new_child(before), signal.SIGSTOP)
            assert "done nothing for" in (await rig.all(rig.ask("a", LARGE)))[0]
            assert "durable" in (await rig.all(rig.ask("b", LARGE)))[0]

    asyncio.run(scenario())


def maps_of(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def test_a_group_that_is_let_go_is_held_open_by_nobody(tmp_path: Path) -> None:
    """One of its name that comes later has another file."""

    async def scenario() -> None:
        async with rig_of(tmp_path, 2) as rig:
            before = children()
            await rig.all(*(rig.ask(name, OTHER) for name in "abab"))
            waiting = [rig.ask("b", OTHER) for _ in range(5)]
            await rig.groups["a"].stop()
            for child in set(children()) - set(before):
                assert str(tmp_path / "a" / INDEX_FILE) not in maps_of(child)
            assert await rig.all(*waiting) == [""] * 5

    asyncio.run(scenario())


def test_a_group_whose_index_cannot_be_opened_is_the_only_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with rig_of(tmp_path, 1) as rig:
            (tmp_path / "a" / INDEX_FILE).write_bytes(b"not an index" * 4096)
            answers = await rig.all(*(rig.ask(name, OTHER) for name in "abcabc"))
            assert [bool(each) for each in answers] == [True, False, False] * 2

    asyncio.run(scenario())


@pytest.mark.parametrize("processes", [1, 2])
def test_a_defect_in_whoever_is_told_is_its_groups(tmp_path: Path, processes: int) -> None:
    async def scenario() -> None:
        async with rig_of(tmp_path, processes) as rig:
            defects: list[Exception] = []

            def bang(*_: object) -> None:
                raise ZeroDivisionError

            rig.pool.of("a", defects.append).start(OTHER, bang)
            assert await rig.all(*(rig.ask(name, OTHER) for name in "bcd")) == [""] * 3
            assert [type(each) for each in defects] == [ZeroDivisionError]

    asyncio.run(scenario())
