"""Commands about a group's policy: when it is backed up, which backups stay, how far back any moment goes."""

from __future__ import annotations

from msgspec.structs import replace

from daemon.operations.paging import Page, beyond, rows_of, start_of
from daemon.operations.registry import carries_out
from daemon.operations.schedule_times import (
    checked_line,
    checked_zone,
    next_runs,
    reads_keep_zone,
    require_read_by_peer,
    runs_after,
)
from daemon.operations.shapes import minute_text, time_or_none, writable_group
from daemon.operations.waiting import wait_durable
from daemon.site import Site
from engine.copies.copies import Copy
from engine.copies.keep_rules import KeepRules
from engine.group.group import Group
from protocol.commands.keep import KeepInfo
from protocol.commands.schedule import (
    ScheduleInfo,
    ScheduleList,
    ScheduleListReply,
    ScheduleNext,
    ScheduleNextReply,
    ScheduleRemove,
    ScheduleSet,
)
from protocol.errors import Locked, NotFound, Unsafe, UsageError
from protocol.events import NO_POLICY, PolicySet
from protocol.positions import POSITION_MAX

UTC = "UTC"


@carries_out(ScheduleSet)
async def set_schedule(site: Site, command: ScheduleSet) -> ScheduleInfo:
    """Change parts of a group's policy."""
    group = writable_group(site, command.group)
    zone = await checked_zone(command.zone or UTC)
    if command.cron is not None:
        checked_line(command.cron, zone)
        await require_read_by_peer(site, group)
    zoned = zone != UTC and await reads_keep_zone(site, group)
    group = writable_group(site, command.group)
    _, before = group.policies.at(group.spans())
    if command.freeze and command.freeze not in site.config.hooks:
        raise NotFound(
            f"site {site.config.name} has no hook {command.freeze}",
            subject=command.freeze,
            next_step=f"add [hooks.{command.freeze}] to the site.toml of both sites, and reload (SIGHUP)",
        )
    policy = _changed(before, command, zone)
    if policy.keep_zone and policy.keep_zone != before.keep_zone and not zoned:
        policy = replace(policy, keep_zone="")
    _require_unlocked(group, command)
    if command.freeze:
        site.hooks.find(command.freeze)
    if _shortens(group, policy) and command.confirm != group.name:
        raise Unsafe(
            f"the window of {group.name} becomes shorter: moments before it cannot be read any more",
            subject=group.name,
            next_step=f"add --confirm {group.name}; `farshore volume show {group.name}/VOLUME --history` "
            "says what there is",
        )
    return await _put(site, group, before, policy)


def _changed(before: PolicySet, command: ScheduleSet, chosen: str) -> PolicySet:
    """`chosen`: the command's zone, checked."""
    every_s, at_minute = before.every_s, before.at_minute
    if command.every_s is not None:
        every_s, at_minute = command.every_s, -1
    if command.at_minute is not None:
        every_s, at_minute = 0, command.at_minute
    cron, zone, keep_zone = before.cron, before.zone, before.keep_zone
    if command.every_s is not None or command.at_minute is not None:
        cron = zone = keep_zone = ""
    if command.cron is not None:
        every_s, at_minute = 0, -1
        cron, zone = checked_line(command.cron, chosen)
        keep_zone = "" if chosen == UTC else chosen
    elif command.zone is not None:
        if not cron:
            raise UsageError(
                "a time zone belongs to a cron line",
                subject=command.zone,
                next_step="--cron '30 2 * * *' --tz " + command.zone,
            )
        cron, zone = checked_line(cron, chosen)
        keep_zone = "" if chosen == UTC else chosen
    given = zip(before.keep, command.counts, strict=True)
    last, hourly, daily, weekly, monthly, yearly = (old if new is None else new for old, new in given)
    return PolicySet(
        every_s=every_s,
        at_minute=at_minute,
        keep=(last, hourly, daily, weekly, monthly, yearly),
        window_s=before.window_s if command.window_s is None else command.window_s,
        window_bytes=before.window_bytes if command.window_bytes is None else command.window_bytes,
        freeze=before.freeze if command.freeze is None else command.freeze,
        cron=cron,
        zone=zone,
        keep_zone=keep_zone,
    )


def _require_unlocked(group: Group, command: ScheduleSet) -> None:
    """Locked if the window that is asked for is shorter than what this site's lock keeps anyway."""
    lock_s = group.settings.lock_window_s
    if command.window_s is not None and 0 <= command.window_s < lock_s:
        raise Locked(
            f"this site keeps every moment of {group.name} for {lock_s:g} s (lock_window_s): a window cannot "
            "be shorter",
            subject=group.name,
            next_step=f"choose a window of at least {lock_s:g}s",
        )


def _shortens(group: Group, policy: PolicySet) -> bool:
    """Whether moments that can be read at this site now are given up by it."""
    settings = group.settings
    seconds, size_bytes = group.policies.window(group.spans(), settings)
    new_s = settings.window_s if policy.window_s < 0 else policy.window_s
    return new_s < seconds or (policy.window_bytes or settings.window_bytes) < size_bytes


@carries_out(ScheduleRemove)
async def remove(site: Site, command: ScheduleRemove) -> ScheduleInfo:
    """Take no more backups by itself; the window stays."""
    group = writable_group(site, command.group)
    _, before = group.policies.at(group.spans())
    policy = replace(NO_POLICY, window_s=before.window_s, window_bytes=before.window_bytes)
    return await _put(site, group, before, policy)


async def _put(site: Site, group: Group, before: PolicySet, policy: PolicySet) -> ScheduleInfo:
    if policy != before:
        group.begin_writing()
        group.append_records([policy])
        await wait_durable(group)
        site.events.emit("schedule.set", group=group.name, position=str(group.end))
        site.notify()
    return schedule_info(site, group)


@carries_out(ScheduleList)
async def list_schedules(site: Site, command: ScheduleList) -> Page[ScheduleListReply]:
    """Every group's policy, or one."""
    groups = [site.group(command.group)] if command.group else [g for _, g in sorted(site.groups.items())]
    rows = beyond((((group.name,), group) for group in groups), start_of(command, tuple[str]))
    schedules, more = await rows_of(site, command, rows, lambda group: schedule_info(site, group))
    return Page(ScheduleListReply(schedules=schedules), more)


def schedule_info(site: Site, group: Group) -> ScheduleInfo:
    """A group's policy, and what comes of it here."""
    set_ns, policy = group.policies.at(group.spans())
    window_s, window_bytes = group.policies.window(group.spans(), group.settings)
    last, (runs, unread) = last_run(group), next_runs(policy, site.clock.utc_ns())
    of_group = policy.window_s >= 0 or policy.window_bytes
    return ScheduleInfo(
        group=group.name,
        every_s=policy.every_s or None,
        at=_at(policy),
        keep=KeepInfo(**KeepRules(*policy.keep)._asdict()),
        freeze=policy.freeze or None,
        window_s=window_s,
        window_bytes=None if window_bytes >= POSITION_MAX else window_bytes,
        window_from="group" if of_group else "site",
        set_at=time_or_none(set_ns),
        last_run=time_or_none(last.utc_ns if last else 0),
        next_run=runs[0].time if runs else None,
        runs_here=group.primary,
        failure=site.schedule_failures.get(group.name) or unread or None,
        cron=policy.cron or None,
        zone=policy.zone or None,
        next_runs=runs,
        keep_zone=policy.keep_zone or UTC,
    )


@carries_out(ScheduleNext)
async def show_next(site: Site, command: ScheduleNext) -> ScheduleNextReply:
    """When the next backups are due."""
    policy = NO_POLICY
    if command.group is not None:
        group = site.group(command.group)
        _, policy = group.policies.at(group.spans())
    if command.cron is not None:
        cron, zone = checked_line(command.cron, await checked_zone(command.zone or UTC))
        policy = replace(NO_POLICY, cron=cron, zone=zone)
    elif command.group is None:
        raise UsageError(
            "the runs of what?",
            next_step="`farshore schedule next G`, or --cron '30 2 * * *' --tz Europe/Berlin",
        )
    return ScheduleNextReply(
        group=command.group,
        every_s=policy.every_s or None,
        at=_at(policy),
        cron=policy.cron or None,
        zone=policy.zone or UTC,
        runs=runs_after(policy, site.clock.utc_ns(), command.count),
    )


def _at(policy: PolicySet) -> str | None:
    return minute_text(policy.at_minute) if policy.at_minute >= 0 else None


def last_run(group: Group) -> Copy | None:
    """The newest backup that counts as a run of the schedule: of the whole group as it was, and not labelled
    by somebody."""
    if not group.head:
        return None
    spans = group.spans()
    return group.copies.last_by_schedule(spans, (each.id for each in group.volumes.at(spans).values()))
