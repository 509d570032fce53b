"""The daemon's end of one indexer process: started when first needed, and again if it has died."""

from __future__ import annotations

import asyncio
import enum
import pathlib
import sys
from collections.abc import Coroutine
from typing import Any

from engine.index.indexer import LENGTH
from farshore.children import child_words
from protocol.rows import unpack_row

STOP_TIMEOUT_S = 10.0
# How often a process is looked at while it works.
LOOK_EVERY_S = 5.0


class Work(enum.Enum):
    """What a process is at."""

    NONE = ""
    URGENT = "urgent"
    OTHER = "other"

    def __bool__(self) -> bool:
        return self is not Work.NONE


class IndexerProcess:
    """See `engine.index.indexer` for what the child does and how the two talk. It is asked one thing at a
    time. `groups`: the directory that holds those of groups; `silent_s`: how long it may use no processor and
    touch no memory before it counts as hung. A sync of the disk looks like that too, so it is a long time.
    """

    def __init__(self, groups: pathlib.Path, silent_s: float) -> None:
        self.group = ""  # whose index it may have open
        self.work = Work.NONE
        self._groups = groups
        self._silent_s = silent_s
        self._process: asyncio.subprocess.Process | None = None

    @property
    def runs(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.returncode is None

    async def ask(self, group: str, request: bytes) -> tuple[object, ...]:
        """The answer's row. OSError, RemoteProtocolError or IncompleteReadError if the process ended, or
        hangs: then it is to be given up."""
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await self._start()
        if process.stdin is None or process.stdout is None:
            raise OSError("no pipes to the indexer")
        self.group = group
        name = group.encode()
        process.stdin.write(LENGTH.pack(len(name)) + name + LENGTH.pack(len(request)) + request)
        return unpack_row(await self._watched(process, _answer(process.stdin, process.stdout)))

    async def _start(self) -> asyncio.subprocess.Process:
        # A session of its own: Ctrl-C in the daemon's terminal must not stop the checkpoint that a clean
        # stop waits for.
        return await asyncio.create_subprocess_exec(
            *child_words("engine.index.indexer", str(self._groups)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=sys.stderr,
            start_new_session=True,
        )

    async def _watched(
        self, process: asyncio.subprocess.Process, answer: Coroutine[Any, Any, bytes]
    ) -> bytes:
        clock = asyncio.get_running_loop().time
        reading = asyncio.ensure_future(answer)
        did, since = _doings(process.pid), clock()
        try:
            while not (await asyncio.wait({reading}, timeout=min(LOOK_EVERY_S, self._silent_s)))[0]:
                now = _doings(process.pid)
                if now != did:
                    did, since = now, clock()
                elif clock() - since >= self._silent_s:
                    raise OSError(f"it has done nothing for {self._silent_s:g} s")
            return reading.result()
        finally:
            reading.cancel()

    def give_up(self) -> asyncio.subprocess.Process | None:
        """End it at once; the next question is another process's. What was ended, unless it has gone: the
        kernel may have it wait for a disk, and then it still holds its index."""
        process, self._process, self.group = self._process, None, ""
        if process is None or process.returncode is not None:
            return None
        process.kill()
        return process

    async def stop(self) -> None:
        """End the child: at the end of its input it stops by itself."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _answer(requests: asyncio.StreamWriter, answers: asyncio.StreamReader) -> bytes:
    """What it says once it has taken the request: a large one does not fit into the pipe."""
    await requests.drain()
    (length,) = LENGTH.unpack(await answers.readexactly(LENGTH.size))
    return await answers.readexactly(length)


def _doings(pid: int) -> tuple[str, ...]:
    """What a process has done, in numbers that grow: pages that it met, and its processor time (proc(5),
    /proc/PID/stat, fields 10 to 15). Empty if it has gone."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ()
    return tuple(fields.rpartition(")")[2].split()[7:13])
