"""Threads on which real disks do what takes a while: one set for all disks of a site."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from engine.ports.written_cache import WrittenCache, default_bytes, drop_cached

T = TypeVar("T")

# For all disks that share them. Who syncs waits for the disk and not for a processor, and what groups sync at
# the same time the file system commits together. Nobody waits for a preallocation of 64 MiB, so those have
# threads of their own beside the ones that answer a host's FLUSH.
SYNC_THREADS = 16
OTHER_THREADS = 2


class DiskThreads:
    """Threads on which disks do what takes a while, made as they are needed; they call back on `loop`.

    `cached_bytes`: how much of what these disks wrote once stays in the page cache; 0: by this machine's
    memory.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, cached_bytes: int = 0) -> None:
        self.loop = loop
        self.written = WrittenCache(cached_bytes or default_bytes())
        self.syncs = ThreadPoolExecutor(SYNC_THREADS, "farshore-sync")
        self.others = ThreadPoolExecutor(OTHER_THREADS, "farshore-disk")

    def all_at_once(self, work: Iterable[Callable[[], T]]) -> list[T]:
        """Do all of it before returning, while the loop stands still; what each gave. It raises nothing."""
        return [each.result() for each in [self.syncs.submit(each) for each in work]]

    def wrote_once(self, path: str, size_bytes: int) -> None:
        """A file has all that will be written to it: give up the oldest of those for it."""
        for each in self.written.add(path, size_bytes):
            self.others.submit(drop_cached, each)

    def close(self) -> None:
        """Wait for what was started and stop the threads; twice is fine."""
        self.syncs.shutdown(wait=True)
        self.others.shutdown(wait=True)


def one_by_one(work: Iterable[Callable[[], T]]) -> list[T]:
    """`DiskThreads.all_at_once` without threads."""
    return [each() for each in work]
