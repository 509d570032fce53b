"""Setting names of production modules and classes for as long as a run lasts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tests.sim.shape import Patch


@contextmanager
def patched(patches: Iterable[Patch]) -> Iterator[None]:
    """Set them, and put back what was there."""
    before: list[Patch] = []
    try:
        for owner, name, value in patches:
            before.append((owner, name, getattr(owner, name)))
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in reversed(before):
            setattr(owner, name, value)
