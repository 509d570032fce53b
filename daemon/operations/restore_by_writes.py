"""A restore by writes: the blocks that differ, written in pieces, as hosts and the peer leave room for it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

from daemon.jobs import Job
from daemon.operations.shapes import require_primary
from daemon.operations.waiting import wait_durable, wait_until
from daemon.site import Site
from engine.group.group import Group
from engine.peering.restore_ways import Chosen, Way
from protocol.errors import FarshoreError, TimedOut, Trimmed
from protocol.limits import BLOCK_BYTES, PEER_REQUEST_PATIENCE_S, SHIP_IN_FLIGHT_BYTES_MAX
from protocol.positions import Cut
from site_primary.restore_volume import RestorePlan, sample_blocks
from site_primary.rewrite_volume import (
    OwnPast,
    Past,
    PeerPast,
    begin_rewrite,
    check_rewritten,
    count_changed,
    end_rewrite,
    rewrite,
)

# How long the way back, and the cut that a restore is on its way to, are kept whatever the window is.
KEEP_S = 86_400.0
# And how often that is said anew while a restore by writes goes on: 1 TiB at 10 MB/s takes 29 h.
HOLD_ON_S = 3600.0
# A restore by writes waits while the peer is so far behind: hosts of other volumes share the link.
BEHIND_BYTES_MAX = 2 * SHIP_IN_FLIGHT_BYTES_MAX
STUCK_S = 300.0


def hold_past(group: Group, plan: RestorePlan, chosen: Chosen, name: str) -> None:
    """Keep here the way back, and the cut if it is read here. Busy; Trimmed."""
    with suppress(Trimmed):  # of a restore that was cut short long ago: it can still be completed
        group.kept.timed.hold(f"undo {name}", way_back(group, plan), KEEP_S)
    if chosen.way is Way.WRITE:
        group.kept.timed.hold(f"restore {name}", plan.cut, KEEP_S)


async def restore_by_writes(
    site: Site, group: Group, plan: RestorePlan, chosen: Chosen, name: str, job: Job
) -> tuple[Cut, int, int]:
    """The same of a restore by writes."""
    held_at = site.clock.monotonic()

    def looked_at(blocks: int) -> None:
        job.progress(job.done + blocks * BLOCK_BYTES, None, "bytes", "compared and written")

    async def room() -> None:
        nonlocal held_at
        if site.clock.monotonic() - held_at >= HOLD_ON_S:
            held_at = site.clock.monotonic()
            with suppress(FarshoreError, OSError):  # the hour before it was held for a day
                hold_past(group, plan, chosen, name)
            await chosen.hold_on(partial(site.ask_peer, group.name), KEEP_S)
        await _room(site, group)

    volumes = list(plan.volumes)
    end = group.end
    pasts = _pasts(site, group, plan, chosen, end, PEER_REQUEST_PATIENCE_S)
    begin_rewrite(group, volumes, plan.cut, plan.before)
    site.events.emit("volume.rewriting", group=group.name, object=name, position=str(end), cut=str(plan.cut))
    written = checked = 0
    for volume, past in zip(volumes, pasts, strict=True):
        written += await rewrite(group, volume, past, room, looked_at)
    then = group.volumes.by_id(group.timelines.lineage(plan.cut.timeline, plan.cut.position))
    for volume, past in zip(volumes, pasts, strict=True):
        sample = sample_blocks(then[volume.id], site.rng)
        await check_rewritten(group, volume, plan.cut, past, sample)
        checked += len(sample)
    await _room(site, group)
    position = end_rewrite(group, volumes, plan.cut)
    await wait_durable(group)
    group.kept.timed.release(f"restore {name}")
    return position, checked, written * BLOCK_BYTES


async def _room(site: Site, group: Group) -> None:
    """Wait for a checkpoint, a truncation and the peer to catch up. WrongState once the group is written
    elsewhere; TimedOut if nothing moves."""

    def ready() -> bool:
        shipper = site.shippers.get(group.name)
        behind = shipper is not None and shipper.connected and shipper.lag_bytes > BEHIND_BYTES_MAX
        return not behind and not group.overloaded

    await asyncio.sleep(0)
    if not ready() and not await wait_until(site, ready, STUCK_S):
        raise TimedOut(
            f"a restore of {group.name} waited {STUCK_S:.0f} s for the journal or the peer to catch up",
            subject=group.name,
            position=str(group.end),
            next_step="`farshore status` says what is full; then restore again",
        )
    require_primary(site, group)
    group.require_serving()


def way_back(group: Group, plan: RestorePlan) -> Cut:
    """The state before: that before the first try, if one was cut short."""
    half_way = (group.volumes.half_way(group.spans(), volume.id) for volume in plan.volumes)
    return min((each.before for each in half_way if each), key=lambda cut: cut.position, default=group.end)


async def changed_bytes(site: Site, group: Group, plan: RestorePlan, chosen: Chosen) -> int:
    """How much would be written."""
    pasts = _pasts(site, group, plan, chosen, plan.before)
    return sum([await count_changed(past) for past in pasts]) * BLOCK_BYTES


def _pasts(
    site: Site, group: Group, plan: RestorePlan, chosen: Chosen, end: Cut, patience_s: float = 0.0
) -> list[Past]:
    """Where each volume's blocks come from; `end` is what it is now. See `PeerPast` for `patience_s`."""
    if chosen.common is None:
        return [OwnPast(group, volume, chosen.cut, end) for volume in plan.volumes]
    peer, common = site.ask_peer(group.name), chosen.common
    return [PeerPast(group, v, chosen.cut, end, peer, common, patience_s) for v in plan.volumes]
