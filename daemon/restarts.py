"""A child process that ends is started again, later and later while one after another dies young."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from engine.group.compartment import attempt_async
from engine.ports.clock import Clock

AGAIN_S, AGAIN_MAX_S = 1.0, 60.0


async def restart_for_ever(
    what: str,
    serve: Callable[[], Awaitable[object]],
    clock: Clock,
    on_end: Callable[[Exception | None, float], None],
) -> None:
    """Await `serve`, which is one child until it ends, again and again, until cancelled. A defect of it is
    logged as `what`. `on_end` gets the defect, if it was one, and the seconds until the next child: twice as
    many each time, and few again after one that lived for longer than the most."""
    delay_s = AGAIN_S
    while True:
        began_s = clock.monotonic()
        defect = await attempt_async(what, serve())
        if clock.monotonic() - began_s > AGAIN_MAX_S:
            delay_s = AGAIN_S
        on_end(defect, delay_s)
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, AGAIN_MAX_S)
