"""What holds a loop: the processor time that each of its callbacks takes.

Of the loop's own thread, so neither another thread nor waiting for a processor counts. Only what is called
back on the loop that is watched; wrapped where asyncio itself runs a callback, so no callback escapes it,
whoever registered it.

A busy machine inflates processor time as well. So a callback that was over the limit is held to the limit
times how much slower the machine is right after it, and a work is held to what *the same* callback took in
the best of its tries: what takes long takes long each time, while a jump of the clock or a cold cache meets
one callback in one try and another in the next.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from asyncio.events import Handle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.support.yardstick import Yardstick

HELD_S_MAX = 0.020
# Less than two by more than times differ: what holds the loop for twice the limit is found, however busy the
# machine is. Work in memory is slowed by more, plain Python by less.
SLOWER_MAX = 1.75


@dataclass(frozen=True, slots=True)
class Held:
    """A callback that took too long: its processor time over how much slower the machine was."""

    held_s: float
    what: str


@dataclass
class LoopWatch:
    """How many callbacks there were since `reset`, and by kind the longest of those that took too long."""

    over: dict[str, Held] = field(default_factory=dict)
    count: int = 0
    yardstick: Yardstick = field(default_factory=Yardstick)
    _thread: int = field(default_factory=threading.get_ident)

    def reset(self) -> None:
        """Before another try. Many looks at the yardstick find what it costs at its best."""
        self.over, self.count = {}, 0
        self.yardstick.look()

    def ran(self, callback: Any, args: Sequence[Any], took_s: float) -> None:
        """A callback was called with these arguments, and took so much processor time."""
        self.count += 1
        if took_s <= HELD_S_MAX:
            return
        slower = min(self.yardstick.slower(), SLOWER_MAX)
        if took_s <= HELD_S_MAX * slower:
            return
        kind = kind_of(callback, args)
        if kind not in self.over or self.over[kind].held_s < took_s / slower:
            what = f"{took_s * 1e3:.0f} ms, {slower:.1f} times as slow: {_text(callback, args)}"
            self.over[kind] = Held(took_s / slower, what)


@dataclass(slots=True)
class Tries:
    """Of one work: how many there were, and what took too long in each of them, at its best."""

    count: int = 0
    over: dict[str, Held] = field(default_factory=dict)

    def add(self, watch: LoopWatch) -> None:
        """What the watch saw since it was reset was a try."""
        if self.count == 0:
            self.over = dict(watch.over)
        else:
            self.over = {
                kind: min(held, watch.over[kind], key=lambda each: each.held_s)
                for kind, held in self.over.items()
                if kind in watch.over
            }
        self.count += 1

    def text(self) -> str:
        """For how long at least the loop was held, and by what."""
        return "; ".join(held.what for held in self.over.values())


def kind_of(callback: Any, args: Sequence[Any] = ()) -> str:
    """What a callback is, whichever object it is of: a task by its coroutine; of one that is handed another,
    as a compartment's or a link's, both."""
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return _name(owner.get_coro())
    if isinstance(callback, partial):
        return kind_of(callback.func, callback.args)
    cells = [cell.cell_contents for cell in getattr(callback, "__closure__", None) or ()]
    inner = [_name(each) for each in (*cells, *args) if hasattr(each, "__qualname__")]
    return " ".join([_name(callback), *inner])


def _name(called: Any) -> str:
    return str(getattr(called, "__qualname__", type(called).__qualname__))


def _text(callback: Any, args: Sequence[Any]) -> str:
    """A task's step says where the task waits next, a closure what it has: of a callback that a compartment
    holds, that callback."""
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        where = [f"{frame.f_code.co_qualname}:{frame.f_lineno}" for frame in owner.get_stack(limit=4)]
        return f"{owner.get_name()} {owner.get_coro()!r} at {where}"
    cells = getattr(callback, "__closure__", None) or ()
    return " ".join(repr(each) for each in (callback, *args, *(cell.cell_contents for cell in cells)))


@contextmanager
def watched() -> Iterator[LoopWatch]:
    """While it lasts, callbacks of loops in this thread are timed. What the tests' process has collected so
    far is left out of garbage collections: a daemon has no such heap."""
    watch, run = LoopWatch(), Handle._run

    def timed(handle: Handle) -> None:
        if threading.get_ident() != watch._thread:
            run(handle)
            return
        # What a callback cancels itself would be forgotten.
        callback, args = handle._callback, handle._args  # type: ignore[attr-defined]
        began = time.thread_time()
        try:
            run(handle)
        finally:
            watch.ran(callback, args, time.thread_time() - began)

    gc.collect()
    gc.freeze()
    Handle._run = timed  # type: ignore[method-assign, assignment]
    try:
        yield watch
    finally:
        Handle._run = run  # type: ignore[method-assign]
        gc.unfreeze()
