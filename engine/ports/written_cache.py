"""How much of what journals wrote lately stays in the page cache.

A journal is written once, and little of it is read again: by the indexer and the peer within seconds, by
hosts what they do not have in caches of their own. Left to the kernel it fills the memory of the machine
before anything of it goes, and pushes out what others use. Pages that are new to a virtual machine are dear,
too: measured 3 ms of processor for each MiB, where one that was just given back takes 0.4. What is read again
later stays in the cache like any other file's.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress

PART_OF_MEMORY = 16
LEAST_BYTES = 256 << 20
MOST_BYTES = 8 << 30


def default_bytes() -> int:
    """A sixteenth of this machine's memory, within bounds."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(max(memory_bytes // PART_OF_MEMORY, LEAST_BYTES), MOST_BYTES)


class WrittenCache:
    """Files that were written and will not be again, oldest first; at most `most_bytes` of them are meant to
    be cached. Used by one thread."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._files: deque[tuple[str, int]] = deque()
        self._bytes = 0

    def add(self, path: str, size_bytes: int) -> list[str]:
        """Take in a file; which ones are to be given up for it (`drop_cached`)."""
        self._files.append((path, size_bytes))
        self._bytes += size_bytes
        given_up = []
        while self._bytes > self.most_bytes:
            oldest, freed_bytes = self._files.popleft()
            self._bytes -= freed_bytes
            given_up.append(oldest)
        return given_up


def drop_cached(path: str) -> None:
    """Give back the clean pages of a file, if it is still there. What is not on the disk yet stays."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
