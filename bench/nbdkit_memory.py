"""nbdkit's memory plugin: what the client itself can do here, with nothing stored and nothing mirrored."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

READY_TIMEOUT_S = 30.0


class NbdkitMemory:
    """An export of `size_bytes` kept in memory, served on a socket in `directory`; a context manager."""

    name = "nbdkit memory"

    def __init__(self, directory: Path, *, size_bytes: int) -> None:
        self._directory = directory
        self._size_bytes = size_bytes
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Where fio connects."""
        return f"nbd+unix:///?socket={self._directory / 'memory.sock'}"

    def pids(self) -> list[int]:
        """Of the one process."""
        return [self._process.pid] if self._process is not None else []

    def settle(self) -> float:
        """Nothing is behind."""
        return 0.0

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / "memory.sock"
        words = ["nbdkit", "--foreground", f"--unix={path}", "memory", str(self._size_bytes)]
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not path.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError("nbdkit did not start")
            time.sleep(0.02)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it; twice is fine."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
