"""The daemon's end of metrics: a child process answers scrapes, and asks for a snapshot when one comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from daemon.alerts.conditions import Condition
from daemon.metrics.snapshot import take
from daemon.metrics.snapshot_rows import encode_snapshot
from daemon.restarts import restart_for_ever
from daemon.site import Site
from farshore.children import child_words


class MetricsSource:
    """One site's. `start` on its loop; `close` before the site stops. `standing`: what is wrong now."""

    def __init__(self, site: Site, standing: Callable[[], list[Condition]]) -> None:
        self._site = site
        self._standing = standing
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, if site.toml says where."""
        if self._site.config.metrics:
            work = restart_for_ever("metrics.defect", self._serve, self._site.clock, self._ended)
            self._task = asyncio.get_running_loop().create_task(work, name="metrics")

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _ended(self, defect: Exception | None, again_s: float) -> None:
        why = str(defect or "the process ended: is the address taken?")
        self._site.events.emit("metrics.failed", object=self._site.config.metrics, error=why, again_s=again_s)

    async def _serve(self) -> None:
        """One child, until it ends."""
        process = await asyncio.create_subprocess_exec(
            *child_words("daemon.metrics.server", self._site.config.metrics),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        asked, answers = process.stdout, process.stdin
        try:
            while asked is not None and answers is not None and await asked.readline():
                answers.write(encode_snapshot(await take(self._site, self._standing)) + b"\n")
                await answers.drain()
        except ConnectionError:
            return  # it has ended
        finally:
            if answers is not None:
                answers.close()
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
