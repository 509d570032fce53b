"""Waiting for what a port does away from the loop, in a coroutine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from engine.ports.disk import Disk, DiskFile


async def synced(disk: Disk, files: Sequence[DiskFile], directories: Sequence[str] = ()) -> None:
    """Make files and directories durable (`Disk.start_sync`) without holding the loop. OSError."""
    done: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()

    def told(error: OSError | None) -> None:
        if not done.done():  # whoever waited has gone
            done.set_result(error)

    disk.start_sync(files, directories, told)
    error = await done
    if error is not None:
        raise error
