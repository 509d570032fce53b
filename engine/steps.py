"""Long work as a generator: it yields between two steps, and returns what came of it.

Whoever has a loop lets hosts have their turns in between (daemon.operations.paging `in_slices`); whoever has
none does it at once.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")


def at_once(steps: Generator[None, None, T]) -> T:
    """All steps, one after the other."""
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            found: T = ended.value
            return found
