"""What holds a loop: the processor time that each of its callbacks takes.

Of the loop's own thread, so neither a busy machine nor another thread counts. Only what is called back on the
loop that is watched; wrapped where asyncio itself runs a callback, so no callback escapes it, whoever
registered it.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from asyncio.events import Handle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class LoopWatch:
    """The longest callback since `reset`, in seconds of processor time, and what it was."""

    longest_s: float = 0.0
    what: str = ""
    count: int = 0
    _thread: int = field(default_factory=threading.get_ident)

    def reset(self) -> None:
        self.longest_s, self.what, self.count = 0.0, "", 0

    def ran(self, handle: Handle, took_s: float) -> None:
        self.count += 1
        if took_s > self.longest_s:
            self.longest_s, self.what = took_s, _text(handle)


def _text(handle: Handle) -> str:
    """A task's step says where the task waits next, a closure what it has: of a callback that a compartment
    holds, that callback."""
    callback = getattr(handle, "_callback", None)
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        where = [f"{frame.f_code.co_qualname}:{frame.f_lineno}" for frame in owner.get_stack(limit=4)]
        return f"{owner.get_name()} {owner.get_coro()!r} at {where}"
    cells = getattr(callback, "__closure__", None) or ()
    return " ".join([repr(handle), *(repr(cell.cell_contents) for cell in cells)])


@contextmanager
def watched() -> Iterator[LoopWatch]:
    """While it lasts, callbacks of loops in this thread are timed. What the tests' process has collected so
    far is left out of garbage collections: a daemon has no such heap."""
    watch, run = LoopWatch(), Handle._run

    def timed(handle: Handle) -> None:
        if threading.get_ident() != watch._thread:
            run(handle)
            return
        began = time.thread_time()
        try:
            run(handle)
        finally:
            watch.ran(handle, time.thread_time() - began)

    gc.collect()
    gc.freeze()
    Handle._run = timed  # type: ignore[method-assign, assignment]
    try:
        yield watch
    finally:
        Handle._run = run  # type: ignore[method-assign]
        gc.unfreeze()
