"""A host that writes one block after another, and the oracle of what a volume held after each write.

Write number n names itself in every 16 bytes of its block, and goes out only once n - 1 was answered. So the
newest number in an image says which writes must be in it, all of them and no other; and when each was sent
and answered says which moments it may be of.
"""

from __future__ import annotations

import random
import threading
import time
from array import array
from bisect import bisect_right
from pathlib import Path
from struct import Struct
from typing import Self

from console.demo.host import Host

BLOCK_BYTES = 4096
_STAMP = Struct(">QQ")


class WriteLog:
    """Writes at random to blocks `first` to `first + count - 1` of an export, from a thread while the `with`
    body runs, with `pause_s` between two."""

    def __init__(
        self, path: Path, export: str, *, first: int, count: int, seed: int, pause_s: float = 0.0
    ) -> None:
        self.first = first
        self.count = count
        self._path = path
        self._export = export
        self._pause_s = pause_s
        self._rng = random.Random(seed)
        self._blocks = array("Q")  # of write number i + 1
        self._sent_ns = array("Q")
        self._answered_ns = array("Q")
        self._stop = threading.Event()
        self._moved = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failure: OSError | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        assert self._failure is None, f"a write failed: {self._failure}"

    @property
    def answered(self) -> int:
        """How many writes were answered."""
        return len(self._answered_ns)

    def wait_for(self, count: int) -> None:
        """Until `count` more writes are answered."""
        with self._moved:
            target = self.answered + count
            assert self._moved.wait_for(lambda: self.answered >= target or self._failure, 60), "stuck"
        assert self._failure is None, f"a write failed: {self._failure}"

    def _run(self) -> None:
        try:
            with Host(self._path, self._export) as host:
                while not self._stop.wait(self._pause_s):
                    self._write_next(host)
        except OSError as error:
            with self._moved:
                self._failure = error
                self._moved.notify_all()

    def _write_next(self, host: Host) -> None:
        block = self._rng.randrange(self.first, self.first + self.count)
        self._blocks.append(block)
        self._sent_ns.append(time.time_ns())
        host.write(block * BLOCK_BYTES, stamped(block, len(self._blocks)))
        with self._moved:
            self._answered_ns.append(time.time_ns())
            self._moved.notify_all()

    def bounds_at(self, utc_ns: int) -> tuple[int, int]:
        """Of an image of that moment: the least and the greatest number that the newest write in it may
        have. The site's clock is ours."""
        return bisect_right(self._answered_ns, utc_ns), bisect_right(self._sent_ns, utc_ns)

    def newest(self, region: bytes) -> int:
        """The newest number in what an image holds of the blocks."""
        return max(_STAMP.unpack_from(region, at)[1] for at in range(0, len(region), BLOCK_BYTES))

    def replay(self) -> Replay:
        """The oracle, from the start."""
        return Replay(self.first, self.count, self._blocks)


class Replay:
    """What the blocks hold after one write after another."""

    def __init__(self, first: int, count: int, blocks: array[int]) -> None:
        self._first = first
        self._blocks = blocks
        self._region = bytearray(count * BLOCK_BYTES)
        self._done = 0

    def to(self, number: int) -> bytearray:
        """After write `number`, which must not be before that of the last call."""
        assert number >= self._done, "the oracle does not go back"
        for at in range(self._done, number):
            block = self._blocks[at]
            offset = (block - self._first) * BLOCK_BYTES
            self._region[offset : offset + BLOCK_BYTES] = stamped(block, at + 1)
        self._done = number
        return self._region


def stamped(block: int, number: int) -> bytes:
    """A block's bytes: the pair (block, number) over and over."""
    return _STAMP.pack(block, number) * (BLOCK_BYTES // _STAMP.size)
