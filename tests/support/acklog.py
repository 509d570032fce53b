"""A host that writes at depth until its site dies, and knows of every write when it was acknowledged.

Write number n names itself in every 16 bytes of its block, and no block is written again while a write to it
is unanswered. So what any image holds says of each acknowledged write whether it is there.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from console.demo.host import Host

BLOCK_BYTES = 4096
DEPTH = 64
_STAMP = Struct(">QQ")


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A write that a host was told is written, and when (UTC)."""

    number: int
    block: int
    utc_ns: int


class AckLog:
    """Writes to blocks `first` to `first + count - 1` of a volume. `acknowledged` is what must be there, but
    for writes that a newer one to the same block covers; `unanswered` may be there or not."""

    def __init__(self, count: int, *, first: int = 0, seed: int) -> None:
        self.acknowledged: dict[int, Acknowledged] = {}  # by block, the newest
        self.unanswered: dict[int, list[int]] = {}  # by block, numbers
        self.total = 0
        self._blocks = range(first, first + count)
        self._rng = random.Random(seed)
        self._number = 0
        self._in_flight: dict[int, tuple[int, int]] = {}  # cookie to (block, number)

    def write_until(self, path: Path, export: str, over: Callable[[], bool]) -> None:
        """Write at depth until `over` says so or the site is gone."""
        try:
            with Host(path, export) as host:
                while not over():
                    self._send(host)
                    while len(self._in_flight) >= DEPTH:
                        self._take_reply(host)
                while self._in_flight:
                    self._take_reply(host)
        except OSError:
            pass
        for block, number in self._in_flight.values():
            self.unanswered.setdefault(block, []).append(number)
        self._in_flight.clear()

    def _send(self, host: Host) -> None:
        busy = {block for block, _ in self._in_flight.values()}
        block = self._rng.choice(self._blocks)
        while block in busy:
            block = self._rng.choice(self._blocks)
        self._number += 1
        cookie = host.submit_write(block * BLOCK_BYTES, stamped(block, self._number))
        self._in_flight[cookie] = (block, self._number)

    def _take_reply(self, host: Host) -> None:
        cookie, error = host.take_reply()
        block, number = self._in_flight.pop(cookie)
        assert not error, f"write {number} to block {block} was answered with error {error}"
        self.acknowledged[block] = Acknowledged(number, block, time.time_ns())
        self.total += 1

    def missing(self, image: bytes) -> list[Acknowledged]:
        """Acknowledged writes that an image lacks: its block is older. Anything else but what was sent fails
        at once."""
        found = []
        for block in self._blocks:
            number = number_at(image, block)
            write = self.acknowledged.get(block)
            if write is not None and number < write.number:
                found.append(write)
            elif number != (write.number if write else 0):
                assert number in self.unanswered.get(block, ()), f"block {block} holds {number}, never sent"
        return found

    def accept(self, image: bytes) -> None:
        """What an image holds is what must be there from now on."""
        self.unanswered.clear()
        for block in self._blocks:
            number = number_at(image, block)
            write = self.acknowledged.pop(block, None)
            if number:
                utc_ns = write.utc_ns if write is not None and write.number == number else 0
                self.acknowledged[block] = Acknowledged(number, block, utc_ns)


def stamped(block: int, number: int) -> bytes:
    """A block's bytes: the pair (block, number) over and over."""
    return _STAMP.pack(block, number) * (BLOCK_BYTES // _STAMP.size)


def number_at(image: bytes, block: int) -> int:
    """The number of the write that a block holds, 0 for none; fails if it is a mix."""
    found = image[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
    _, number = _STAMP.unpack_from(found)
    assert found == (stamped(block, number) if number else bytes(BLOCK_BYTES)), f"block {block} holds a mix"
    return int(number)
