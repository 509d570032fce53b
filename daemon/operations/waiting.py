"""Waiting for positions, without polling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from daemon.site import Site
from engine.group.core import GroupCore
from engine.peering.pair_states import PairState
from protocol.errors import FarshoreError

PEER_WAIT_S = 10.0


async def wait_durable(group: GroupCore) -> None:
    """Until everything written so far is durable here. FarshoreError if it never will be."""
    done: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()

    def durable(error: OSError | None) -> None:
        if not done.done():
            done.set_result(error)

    group.when_durable(durable)
    error = await done
    if error is not None:
        raise FarshoreError(
            f"the journal of {group.name} could not be made durable: {error}",
            subject=group.name,
            position=str(group.end),
            next_step="check the disk, then restart the site's daemon",
        )


async def wait_until(site: Site, reached: Callable[[], bool], timeout_s: float) -> bool:
    """Until `reached()`, asked again whenever something moved; False when the time is over."""
    deadline = site.clock.monotonic() + timeout_s
    while not reached():
        left_s = deadline - site.clock.monotonic()
        if left_s <= 0:
            return False
        changed = site.changed
        try:
            # Ages and silences change without an event: ask at least once a second.
            async with asyncio.timeout(min(left_s, 1.0)):
                await changed.wait()
        except TimeoutError:
            continue
    return True


async def wait_peer(site: Site, group: GroupCore, position: int) -> None:
    """Until a position is durable at a peer that is in step; not for long."""
    shipper = site.shippers.get(group.name)
    if shipper is not None and shipper.state is PairState.PAIRED:
        await wait_until(
            site,
            lambda: shipper.marks.remote_durable > position or shipper.state is not PairState.PAIRED,
            PEER_WAIT_S,
        )
