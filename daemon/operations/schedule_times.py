"""When the runs of a schedule are due, for people; and what a cron line must be before it is set."""

from __future__ import annotations

import asyncio
from datetime import datetime
from itertools import islice

from daemon.site import Site
from engine.copies.cron_lines import cron_line
from engine.copies.schedules import slots_after
from engine.group.core import GroupCore
from engine.ports.time_zones import check_zone, time_zone
from protocol.commands.schedule import ScheduleRun
from protocol.cut_text import NS_PER_S, time_text
from protocol.errors import Refused, Unreachable, UsageError
from protocol.events import PolicySet
from protocol.peer_requests import CRON_LINES, KEEP_ZONES

RUNS_SHOWN = 3


async def checked_zone(name: str) -> str:
    """The zone, if a person may choose it. UsageError. To look at all that there are takes milliseconds, for
    which hosts need not wait."""
    return await asyncio.to_thread(check_zone, name)


def checked_line(cron: str, zone: str) -> tuple[str, str]:
    """A cron line and its zone, which is checked, as a policy has them. UsageError that says what is wrong
    where."""
    cron_line(cron, zone)
    return " ".join(cron.split()), zone


async def reads_keep_zone(site: Site, group: GroupCore) -> bool:
    """Whether the peer, if there is one, could go on behind a policy whose keep rules go by a zone.
    Unreachable, Refused."""
    peer = site.peer_of(group.name)
    return not peer or await site.ask_peer(group.name).reads(KEEP_ZONES)


async def require_read_by_peer(site: Site, group: GroupCore) -> None:
    """Refused if the peer could not go on with the group's journal behind a cron line, or cannot be asked."""
    peer = site.peer_of(group.name)
    if not peer:
        return
    try:
        reads = await site.ask_peer(group.name).reads(CRON_LINES)
    except Unreachable as error:
        # An early version does not even say that it does not know the question.
        raise Unreachable(
            f"{peer} does not say whether it reads cron lines: {error.message}",
            subject=group.name,
            next_step=f"if {peer} runs, upgrade farshore there first; --every 1d and --at 02:00 (UTC) work",
        ) from error
    if not reads:
        raise Refused(
            f"{peer} runs a version that reads no cron lines: it would not take what is written after one",
            subject=group.name,
            next_step=f"upgrade farshore at {peer} first; --every 1d and --at 02:00 (UTC) work with it",
        )


def next_runs(policy: PolicySet, now_ns: int) -> tuple[list[ScheduleRun], str]:
    """The first few; or why this site cannot say so."""
    try:
        return runs_after(policy, now_ns, RUNS_SHOWN), ""
    except UsageError as error:
        return [], error.message


def runs_after(policy: PolicySet, now_ns: int, count: int) -> list[ScheduleRun]:
    """So many, soonest first. UsageError if this site cannot read the line, or knows no such zone."""
    zone = time_zone(policy.zone or "UTC")
    return [
        ScheduleRun(
            time=time_text(slot_ns),
            local=datetime.fromtimestamp(slot_ns // NS_PER_S, zone).strftime("%Y-%m-%d %H:%M:%S %z %Z"),
        )
        for slot_ns in islice(slots_after(policy, now_ns), count)
    ]
