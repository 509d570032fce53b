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
from engine.group.head_moves import generation_of
from engine.group.site_state import Role
from engine.peering.pair_states import PairState, PairVerb, next_state
from protocol.commands.base import check_confirm
from protocol.commands.role import (
    Failback,
    FailbackReply,
    Switchover,
    SwitchoverReply,
    Takeover,
    TakeoverReply,
)
from protocol.cut_text import time_text
from protocol.errors import Busy, FarshoreError, NotAllowed, Unsafe, WrongState
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
    if site.state.group(group.name).role is Role.PRIMARY and group.handed_to in ("", group.site):
        raise WrongState(
            f"group {group.name} is written here already",
            subject=group.name,
            position=str(group.end),
            next_step=f"`farshore pair show {group.name}`",
        )
    if not group.head:
        raise WrongState(
            f"nothing of group {group.name} can be read here yet: its first copy has not arrived",
            subject=group.name,
            next_step=f"start {peer or 'the site that has it'}, and let the copy come to its end",
        )
    report = await _ask_report(site, group) if peer else None
    plan = _plan(site, group, peer)
    if not command.plan:
        _require_gone(group, peer, report.role if report else "")
        group.turned_back.require_whole()
        check_confirm(command.confirm, group.name, look="--plan")
        limit_s, age_s = command.max_loss_s, plan.age_s
        if limit_s is not None and not plan.nothing_lost and (age_s is None or age_s > limit_s):
            span = "of an unknown time" if age_s is None else f"of the last {age_s:.1f} s"
            raise Unsafe(
                f"{group.name}: writes {span} may be lost, {limit_s:g} s are allowed",
                subject=group.name,
                position=str(group.end),
                next_step="allow more with --max-loss, or leave it out",
            )
        site.pairs.take_over(group, PairState.TAKEN_OVER)
    took_ms = (site.clock.monotonic() - begun) * 1e3
    return plan if command.plan else replace(plan, done=True, took_ms=took_ms)


def _require_gone(group: Group, peer: str, role: str) -> None:
    """NotAllowed while the peer answers with this role, unless it does not write the group either."""
    if role in ("", Role.SECONDARY.value):
        return
    raise NotAllowed(
        f"{peer} answers, and writes group {group.name}",
        subject=group.name,
        position=str(group.end),
        next_step=f"`farshore switchover {group.name}` at {peer} hands it over without loss",
    )


def _plan(site: Site, group: Group, peer: str) -> TakeoverReply:
    """Where this site would go on, and what is known of what it lacks."""
    receiver = site.receivers.get(group.name)
    known_lost = max(0, receiver.remote_written - group.writer.written) if receiver else 0
    until = _complete_until_ns(site, group)
    handed = group.handed_to == group.site
    # Who heard of a newer authority than its journal has may lack what was written by that one.
    newest = site.state.heard(group.name) <= generation_of(group)
    lost = group.turned_back.lost
    safe = known_lost == 0 and newest and lost is None and (handed or group.strict)
    age_s = max(0.0, (site.clock.utc_ns() - until) / 1e9) if until else None
    if safe:
        statement = "nothing that was acknowledged is lost"
    elif until:
        statement = f"nothing acknowledged up to {time_text(until)} is lost; later writes may be"
    else:
        statement = "it is not known up to when this site held everything: what the other wrote may be lost"
    if lost is not None:
        until, age_s = 0, None
        statement = (
            f"this site is older than it was: it lacks {lost}, and nobody knows what was written by then"
        )
    if known_lost:
        statement += f"; at least {known_lost} bytes of journal are known to be missing"
    return TakeoverReply(
        group=group.name,
        done=False,
        position=cut_info(group.end, time_of(group, group.end)),
        nothing_lost=safe,
        none_lost_until=time_or_none(until),
        known_lost_bytes=known_lost,
        age_s=age_s,
        statement=statement,
        peer=peer,
        took_ms=None,
    )


def _complete_until_ns(site: Site, group: Group) -> int:
    """Up to when this site held all that its peer wrote; 0 if nothing is known of that. What a receiver heard
    ends with a restart or the pair; frames of the peer's own say of themselves that all before them is here,
    short of what has their very time. A site that handed over wrote everything before that itself."""
    if site.state.group(group.name).role is Role.PRIMARY:
        return group.head.utc_ns
    receiver = site.receivers.get(group.name)
    heard = receiver.complete_until_ns if receiver else 0
    own = not group.head or group.timelines.get(group.head.timeline).writer == group.site
    return heard if own else max(heard, group.head.utc_ns - 1)


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
        return await asyncio.wait_for(site.ask_peer(group.name).report(), ASK_TIMEOUT_S)
    except (FarshoreError, TimeoutError):
        return None
