"""nbdkit's memory plugin: what the client itself can do here, with nothing stored and nothing mirrored."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

READY_TIMEOUT_S = 30.0
NAME = "nbdkit memory"


@dataclass(slots=True)
class NbdkitMemory:
    """An export that is kept in memory, and the process that serves it on a socket at `path`."""

    path: Path
    process: subprocess.Popen[bytes]
    name: str = NAME

    @property
    def uri(self) -> str:
        """Where fio connects."""
        return f"nbd+unix:///?socket={self.path}"

    def pids(self) -> list[int]:
        """Of the one process."""
        return [self.process.pid]

    def settle(self) -> float:
        """Nothing is behind."""
        return 0.0


@contextmanager
def nbdkit_memory(path: Path, *, size_bytes: int) -> Iterator[NbdkitMemory]:
    """One that runs, for as long as the body does."""
    words = ["nbdkit", "--foreground", f"--unix={path}", "memory", str(size_bytes)]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not path.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("nbdkit did not start")
            time.sleep(0.02)
        yield NbdkitMemory(path, process)
    finally:
        process.kill()
        process.wait()
