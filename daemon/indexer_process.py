"""The daemon's end of the indexer: one child process a group, started when first needed and again if it
dies."""

from __future__ import annotations

import asyncio
import pathlib
import sys
from collections import deque

from engine.group.compartment import Defect
from engine.index.indexer import LENGTH
from engine.index.requests import IndexerDone, IndexRequest, encode_request
from farshore.children import child_words
from protocol.errors import FarshoreError, RemoteProtocolError
from protocol.rows import check_row, unpack_row

STOP_TIMEOUT_S = 10.0


class IndexerProcess:
    """See `engine.index.indexer` for what the child does and how the two talk. One request at a time, urgent
    ones first. `on_defect` is told of what may not happen here: a request may then never be answered."""

    def __init__(self, directory: pathlib.Path, on_defect: Defect = lambda _: None) -> None:
        self._directory = directory
        self._on_defect = on_defect
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._urgent: deque[tuple[IndexRequest, IndexerDone]] = deque()
        self._others: deque[tuple[IndexRequest, IndexerDone]] = deque()

    def start(self, request: IndexRequest, done: IndexerDone) -> None:
        """See `engine.index.requests.Indexer`."""
        (self._urgent if request.URGENT else self._others).append((request, done))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work(), name="indexer")
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        defect = None if task.cancelled() else task.exception()
        if isinstance(defect, Exception):
            self._on_defect(defect)

    async def _work(self) -> None:
        while self._urgent or self._others:
            request, done = (self._urgent or self._others).popleft()
            await self._carry_out(request, done)

    async def _carry_out(self, request: IndexRequest, done: IndexerDone) -> None:
        try:
            answer = await self._ask(encode_request(request))
            figures = check_row(answer[1:], *(int for _ in answer[1:])) if answer[:1] == ("done",) else None
        except (OSError, RemoteProtocolError, asyncio.IncompleteReadError) as error:
            self._process = None
            done(FarshoreError(f"the indexer process ended: {error}"), ())
            return
        if figures is not None:
            done(None, figures)
        else:
            done(FarshoreError(" ".join(str(part) for part in answer[1:])), ())

    async def _ask(self, request: bytes) -> tuple[object, ...]:
        process = self._process
        if process is None or process.returncode is not None:
            # A session of its own: Ctrl-C in the daemon's terminal must not stop the checkpoint that a clean
            # stop waits for.
            process = self._process = await asyncio.create_subprocess_exec(
                *child_words("engine.index.indexer", str(self._directory)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=sys.stderr,
                start_new_session=True,
            )
        if process.stdin is None or process.stdout is None:
            raise OSError("no pipes to the indexer")
        process.stdin.write(LENGTH.pack(len(request)) + request)
        await process.stdin.drain()
        (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
        return unpack_row(await process.stdout.readexactly(length))

    async def stop(self) -> None:
        """End the child: at the end of its input it stops by itself. What waits is not carried out."""
        self._urgent.clear()
        self._others.clear()
        if self._task is not None and not self._task.done():
            self._task.cancel()
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            if process.stdin is not None:
                process.stdin.close()
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
