"""Commands that move a group's writing from one site to the other."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from daemon.operations.group_row import pair_info
from daemon.operations.registry import carries_out
from daemon.operations.shapes import cut_info, extended, time_of, time_or_none, writable_group
from daemon.operations.waiting import wait_until
from daemon.site import Site
from engine.group.group import Group
from engine.group.site_state import Role
from engine.peering.pair_states import PairState, PairVerb, next_state
from engine.peering.takeover_plan import plan_takeover, require_gone, require_loss_within, require_takeable
from protocol.commands.base import check_confirm
from protocol.commands.role import (
    Failback,
    FailbackReply,
    Switchover,
    SwitchoverReply,
    Takeover,
    TakeoverReply,
)
from protocol.errors import Busy, FarshoreError, WrongState
from protocol.messages import Report
from site_primary.shipping.comparison import Choice

FAILBACK_WAIT_S = 10.0
ASK_TIMEOUT_S = 3.0


@carries_out(Switchover)
async def switchover(site: Site, command: Switchover) -> SwitchoverReply:
    """Drain to a marker and swap roles."""
    group = writable_group(site, command.group)
    check_confirm(command.confirm, group.name, dry_run=False)
    if any(name == group.name for name, _ in site.rewriting):
        raise Busy(
            f"a volume of {group.name} is being turned back by writes",
            subject=group.name,
            position=str(group.end),
            next_step="`farshore job list` shows how far it is",
        )
    begun = site.clock.monotonic()
    if not group.handed_to:
        site.pairs.hand_over(group)
    marker = group.end
    swapped = await wait_until(
        site, lambda: site.state.group(group.name).role is Role.SECONDARY, command.timeout_s
    )
    took_ms = (site.clock.monotonic() - begun) * 1e3
    pair = pair_info(site, group.name)
    return extended(SwitchoverReply, pair, done=swapped, position=cut_info(marker), took_ms=took_ms)


@carries_out(Takeover)
async def takeover(site: Site, command: Takeover) -> TakeoverReply:
    """Write here from now on; or say what that would mean."""
    group = site.group(command.group)
    pair = site.state.pair(group.name)
    peer = pair.peer if pair else ""
    begun = site.clock.monotonic()
    require_takeable(group, peer, site.receivers.get(group.name))
    report = await _ask_report(site, group) if peer else None
    # Again: the role may have moved, or the group have gone, while the peer was asked.
    if site.group(command.group) is not group or site.peer_of(group.name) != peer:
        raise Busy(
            f"group {group.name} or its pair was changed by somebody else meanwhile",
            subject=group.name,
            next_step=f"`farshore pair show {group.name}`, then try again",
        )
    require_takeable(group, peer, site.receivers.get(group.name))
    plan = plan_takeover(group, site.receivers.get(group.name))
    reply = TakeoverReply(
        group=group.name,
        done=False,
        position=cut_info(group.end, time_of(group, group.end)),
        nothing_lost=plan.nothing_lost,
        none_lost_until=time_or_none(plan.until_ns),
        known_lost_bytes=plan.known_lost_bytes,
        age_s=plan.age_s,
        statement=plan.statement,
        peer=peer,
        took_ms=None,
    )
    if command.plan:
        return reply
    require_gone(group, peer, report.role if report else "")
    group.turned_back.require_whole()
    check_confirm(command.confirm, group.name, look="--plan")
    require_loss_within(plan, group, command.max_loss_s)
    site.pairs.take_over(group, PairState.TAKEN_OVER)
    return replace(reply, done=True, took_ms=(site.clock.monotonic() - begun) * 1e3)


@carries_out(Failback)
async def failback(site: Site, command: Failback) -> FailbackReply:
    """Let the site that came back follow this one; what it alone had becomes a branch there."""
    group = writable_group(site, command.group)
    shipper = site.pairs.shipper(group.name)
    if shipper.state not in (PairState.PAIRED, PairState.COPYING):
        next_state(shipper.state, PairVerb.RESYNC, group.name)
        report = await _ask_report(site, group)
        if report is None:
            raise WrongState(
                f"{shipper.peer} does not answer yet",
                subject=group.name,
                position=str(group.end),
                next_step=f"start it, then `farshore failback {group.name}`",
            )
        site.pairs.resync(group, Choice.LOCAL)
    await wait_until(site, lambda: shipper.state is PairState.PAIRED, FAILBACK_WAIT_S)
    fork = shipper.compared.fork
    return extended(
        FailbackReply,
        pair_info(site, group.name),
        fork=cut_info(fork) if fork else None,
        tail_bytes=shipper.compared.tail_bytes,
    )


async def _ask_report(site: Site, group: Group) -> Report | None:
    """The peer's answer; None if there is none in time, or no way to ask."""
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            return await site.ask_peer(group.name).report()
    except (FarshoreError, TimeoutError):
        return None
