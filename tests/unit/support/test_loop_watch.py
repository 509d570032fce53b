"""The watch finds what holds a loop, on any machine, and knows a callback again in another try."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from engine.group.compartment import Compartment
from tests.support.loop_watch import HELD_S_MAX, LoopWatch, Tries, kind_of, watched


def held_for(seconds: float) -> None:
    """Python, of so much processor time."""
    end_s = time.thread_time() + seconds
    while time.thread_time() < end_s:
        pass


def one() -> None:
    held_for(2 * HELD_S_MAX)


def other() -> None:
    held_for(2 * HELD_S_MAX)


def brief() -> None:
    held_for(HELD_S_MAX / 10)


def tried(*tries: Callable[[], None]) -> Tries:
    """A work that has one of these called back in each try."""

    async def play() -> Tries:
        with watched() as watch:
            found, loop = Tries(), asyncio.get_running_loop()
            for callback in tries:
                watch.reset()
                called = loop.create_future()
                loop.call_soon(callback)
                loop.call_soon(called.set_result, None)
                await called
                found.add(watch)
            return found

    return asyncio.run(play())


def test_what_holds_the_loop_in_each_try_is_found() -> None:
    found = tried(one, one, one)
    assert (found.count, list(found.over)) == (3, ["one"])
    assert "function one" in found.text()


def test_what_does_not_hold_it_in_each_try_is_not() -> None:
    """A jump of the clock, say, meets another callback in each try."""
    for tries in ((one, other, one), (one, brief, one), (brief, one, one)):
        assert tried(*tries).over == {}


def test_on_a_slow_machine_more_is_allowed_but_never_twice_the_limit() -> None:
    watch = LoopWatch()
    watch.yardstick.best_s = 1e-9  # so that what it costs now is much more
    watch.ran(one, (), 1.5 * HELD_S_MAX)
    assert watch.over == {}
    watch.ran(one, (), 2 * HELD_S_MAX)
    assert list(watch.over) == ["one"]


def test_on_a_machine_at_its_best_no_more_is_allowed() -> None:
    watch = LoopWatch()  # knows no better moment than now
    watch.ran(one, (), 1.01 * HELD_S_MAX)
    assert list(watch.over) == ["one"]


async def holds() -> None:
    one()


def test_a_callback_is_known_again_by_what_it_calls() -> None:
    numbers = iter(range(3))

    def begin() -> None:
        asyncio.get_running_loop().create_task(holds(), name=f"number {next(numbers)}")

    assert list(tried(begin, begin, begin).over) == ["holds"]
    compartment = Compartment("g", print)
    held, another = (kind_of(compartment.hold(callback)) for callback in (one, other))
    assert held != another
    assert held.endswith(" one")
    assert kind_of(compartment.run, (one,)) == "Compartment.run one"
