"""The indexers of a site: a few processes, by its processors, that work for all its groups in turn.

Rules. One request of a group at a time, urgent ones first, and the next one only after whoever asked has been
told of the last. Groups take turns. Urgent requests of all groups go first too, but where both kinds wait,
each has at least one process: hosts wait for the one, and the disk fills without the other. A process has one
group's index open, so a group goes to the one that has its own if that is idle.

A process that dies or hangs is replaced and costs the group that it worked for one failed request. A hung one
may hold that group's index until the kernel lets it end: until then nothing more is done for that group.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
from collections import deque
from functools import partial

from daemon.indexer_process import STOP_TIMEOUT_S, IndexerProcess, Work
from engine.group.compartment import Defect
from engine.index.indexer import LET_GO
from engine.index.requests import IndexerDone, IndexRequest, Unanswered, encode_request
from protocol.errors import FarshoreError, RemoteProtocolError
from protocol.rows import check_row

# One for what hosts wait for and one for the rest, at least; more would have nothing to work with.
PROCESSES_MIN = 2
PROCESSES_MAX = 8
HUNG_AFTER_S = 120.0


def processes_for(processors: int) -> int:
    """How many a site has: one processor is the daemon's."""
    return min(max(PROCESSES_MIN, processors - 1), PROCESSES_MAX)


class IndexerPool:
    """`groups`: the directory that holds those of groups."""

    def __init__(
        self, groups: pathlib.Path, processes: int | None = None, silent_s: float = HUNG_AFTER_S
    ) -> None:
        count = processes or processes_for(len(os.sched_getaffinity(0)))
        self._processes = [IndexerProcess(groups, silent_s) for _ in range(count)]
        self._waiting: deque[GroupIndexing] = deque()  # groups with requests, in the order of their turns
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    def of(self, group: str, on_defect: Defect = lambda _: None) -> GroupIndexing:
        """The indexer of a group. `on_defect` is told of what may not happen here: a request may then never
        be answered."""
        return GroupIndexing(self, group, on_defect)

    def wants(self, group: GroupIndexing) -> None:
        """A group has something to do that it had not."""
        if not group.runs and group not in self._waiting:
            self._waiting.append(group)
        self._hand_out()

    def _hand_out(self) -> None:
        while (group := self._next()) is not None:
            self._waiting.remove(group)
            process = self._process_for(group.name)
            process.group, process.work = group.name, Work.URGENT if group.urgent else Work.OTHER
            asked = (group.urgent or group.others).popleft()
            group.runs = True
            task = asyncio.get_running_loop().create_task(self._work(process, group, *asked), name="indexer")
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, group))

    def _ended(self, group: GroupIndexing, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        defect = None if task.cancelled() else task.exception()
        if isinstance(defect, Exception):
            group.on_defect(defect)

    def _next(self) -> GroupIndexing | None:
        """The group whose turn it is, if a process may take it."""
        at_work = [process.work for process in self._processes if process.work]
        if self._stopped or len(at_work) == len(self._processes):
            return None
        ready = [group for group in self._waiting if not group.ending]
        urgent = next((group for group in ready if group.urgent), None)
        other = next((group for group in ready if not group.urgent), None)
        others = at_work.count(Work.OTHER)
        if other is not None and not others and at_work:
            return other
        if urgent is None and others < max(1, len(self._processes) - 1):
            return other
        return urgent

    def _process_for(self, group: str) -> IndexerProcess:
        """Of the idle ones: the one that has the group's index, else one that runs."""
        idle = [process for process in self._processes if not process.work]
        return min(idle, key=lambda process: (process.group != group, not process.runs))

    async def _work(
        self, process: IndexerProcess, group: GroupIndexing, request: IndexRequest, done: IndexerDone
    ) -> None:
        try:
            await self._carry_out(process, group, request, done)
        finally:
            process.work, group.runs = Work.NONE, False
            if group.urgent or group.others:
                self._waiting.append(group)  # behind those that wait by now
            self._hand_out()

    async def _carry_out(
        self, process: IndexerProcess, group: GroupIndexing, request: IndexRequest, done: IndexerDone
    ) -> None:
        try:
            answer = await process.ask(group.name, encode_request(request))
            figures = check_row(answer[1:], *(int for _ in answer[1:])) if answer[:1] == ("done",) else None
        except (OSError, RemoteProtocolError, asyncio.IncompleteReadError) as error:
            ended = process.give_up()
            if ended is not None:
                self._wait_for_end(ended, group)
            group.tell(done, Unanswered(f"the indexer process ended: {error}"), ())
            return
        if figures is not None:
            group.tell(done, None, figures)
        else:
            group.tell(done, FarshoreError(" ".join(str(part) for part in answer[1:])), ())

    def _wait_for_end(self, process: asyncio.subprocess.Process, group: GroupIndexing) -> None:
        async def wait() -> None:
            await process.wait()
            group.ending = False
            self._hand_out()

        group.ending = True
        task = asyncio.get_running_loop().create_task(wait(), name="indexer")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def let_go(self, group: GroupIndexing) -> None:
        """No process has a group's index open any more. What one is at is carried out, if that ends soon."""
        if group in self._waiting:
            self._waiting.remove(group)
        for process in self._processes:
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    while process.work and process.group == group.name:
                        await group.until_told()
            except TimeoutError:
                process.give_up()
            if process.group == group.name and not process.work:
                await self._close_index(process)

    async def _close_index(self, process: IndexerProcess) -> None:
        process.work = Work.URGENT
        try:
            if process.runs:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.ask("", LET_GO)
        except (TimeoutError, OSError, RemoteProtocolError, asyncio.IncompleteReadError):
            process.give_up()
        finally:
            process.work = Work.NONE
            self._hand_out()

    async def stop(self) -> None:
        """End them. What waits is not carried out."""
        self._stopped = True
        self._waiting.clear()
        for task in list(self._tasks):
            task.cancel()
        for process in self._processes:
            await process.stop()


class GroupIndexing:
    """One group's requests: see `engine.index.requests.Indexer`."""

    def __init__(self, pool: IndexerPool, name: str, on_defect: Defect) -> None:
        self.name = name
        self.on_defect = on_defect
        self.urgent: deque[tuple[IndexRequest, IndexerDone]] = deque()
        self.others: deque[tuple[IndexRequest, IndexerDone]] = deque()
        self.runs = False  # one of them is being carried out
        self.ending = False  # a process that hung with the group's index is not gone yet
        self._pool = pool
        self._stopped = False
        self._told = asyncio.Event()

    def start(self, request: IndexRequest, done: IndexerDone) -> None:
        """See `Indexer.start`."""
        (self.urgent if request.URGENT else self.others).append((request, done))
        self._pool.wants(self)

    def tell(self, done: IndexerDone, error: Exception | None, figures: tuple[int, ...]) -> None:
        """A request ended."""
        self._told.set()
        if not self._stopped:
            done(error, figures)

    async def until_told(self) -> None:
        """Until the request that is being carried out has ended."""
        self._told.clear()
        await self._told.wait()

    async def stop(self) -> None:
        """See `GroupIndexer.stop`."""
        self._stopped = True
        self.urgent.clear()
        self.others.clear()
        await self._pool.let_go(self)
