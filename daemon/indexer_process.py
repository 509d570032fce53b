"""The daemon's end of the indexer: one child process a group, started when first needed and again if it
dies."""

from __future__ import annotations

import asyncio
import pathlib
import sys

from engine.checkpoint import CheckpointPlan, IndexerDone
from engine.indexer import LENGTH, encode_plan
from protocol.errors import FarshoreError, RemoteProtocolError
from protocol.rows import unpack_row

STOP_TIMEOUT_S = 10.0


class IndexerProcess:
    """See `engine.indexer` for what the child does and how the two talk. One plan at a time."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, plan: CheckpointPlan, done: IndexerDone) -> None:
        """See `engine.checkpoint.Indexer`."""
        self._task = asyncio.get_running_loop().create_task(self._run(plan, done), name="indexer")

    async def _run(self, plan: CheckpointPlan, done: IndexerDone) -> None:
        try:
            answer = await self._ask(encode_plan(plan))
        except (OSError, RemoteProtocolError, asyncio.IncompleteReadError) as error:
            self._process = None
            done(FarshoreError(f"the indexer process ended: {error}"))
            return
        if answer[:1] == ("done",):
            done(None)
        else:
            done(FarshoreError(" ".join(str(part) for part in answer[1:])))

    async def _ask(self, request: bytes) -> tuple[object, ...]:
        process = self._process
        if process is None or process.returncode is not None:
            # A session of its own: Ctrl-C in the daemon's terminal must not stop the checkpoint that a clean
            # stop waits for.
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "engine.indexer",
                str(self._directory),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        if process.stdin is None or process.stdout is None:
            raise OSError("no pipes to the indexer")
        process.stdin.write(LENGTH.pack(len(request)) + request)
        await process.stdin.drain()
        (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
        return unpack_row(await process.stdout.readexactly(length))

    async def stop(self) -> None:
        """End the child: at the end of its input it stops by itself."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            if process.stdin is not None:
                process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                process.kill()
                await process.wait()
