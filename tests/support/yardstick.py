"""How much slower than at its best this machine is at a moment: what a fixed piece of work costs now of
processor time, beside the least that it ever cost this process.

Processor time is no work done: of a processor that shares its caches, its memory and its core with others it
takes several times as much for the same work.
"""

from __future__ import annotations

import random
import time

# More than a core's own cache holds beside what else it does, in an order that is not that of memory: what a
# site has is so too. A loop over numbers alone would hardly notice a neighbour that takes all of memory.
PIECES = 10_000
LOOKS = 3


class Yardstick:
    """A fixed piece of work. `best_s` is the least that it cost, in seconds of processor time."""

    def __init__(self) -> None:
        self._pieces = [(number, str(number)) for number in range(PIECES)]
        random.Random(1).shuffle(self._pieces)
        self.best_s = float("inf")

    def slower(self) -> float:
        """How many times as much as at its best it costs now; 1 at least. Takes some ms."""
        return min(self.look() for _ in range(LOOKS)) / self.best_s

    def look(self) -> float:
        """What it costs this once."""
        began = time.thread_time()
        total = 0
        for number, text in self._pieces:
            total += number + len(text)
        took_s = time.thread_time() - began
        self.best_s = min(self.best_s, took_s)
        return took_s
