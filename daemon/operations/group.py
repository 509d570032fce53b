"""Commands about groups as such: list, show, rename and delete."""

from __future__ import annotations

from daemon.operations.group_row import pair_state
from daemon.operations.paging import Page, beyond, rows_of, start_of
from daemon.operations.registry import carries_out
from daemon.site import Site
from engine.group.group import Group
from engine.history.seeds import SeedRemoval, directory_of
from protocol.commands.base import check_confirm
from protocol.commands.group import (
    GroupDelete,
    GroupList,
    GroupListReply,
    GroupRename,
    GroupShow,
    GroupSummary,
)
from protocol.cut_text import time_text
from protocol.errors import Busy, NotAllowed, WrongState
from protocol.seeds import SEEDS


@carries_out(GroupList)
async def list_groups(site: Site, command: GroupList) -> Page[GroupListReply]:
    """Every group that is open."""
    start = start_of(command, tuple[str])
    named = beyond((((name,), group) for name, group in sorted(site.groups.items())), start)
    groups, more = await rows_of(site, command, named, lambda group: _summary(site, group))
    return Page(GroupListReply(groups=groups), more)


@carries_out(GroupShow)
async def show(site: Site, command: GroupShow) -> GroupSummary:
    """One group."""
    return _summary(site, site.group(command.group))


@carries_out(GroupRename)
async def rename(site: Site, command: GroupRename) -> GroupSummary:
    """Another name for a group here."""
    group = site.group(command.group)
    if site.is_taken(command.new):
        raise Busy(f"the name {command.new} is taken", subject=command.new, next_step="`farshore group list`")
    _require_idle(site, group)
    await site.move_group(group, command.new)
    _move_seeds(site, command.group, command.new)
    site.events.emit("group.renamed", group=command.new, before=command.group)
    return _summary(site, site.group(command.new))


@carries_out(GroupDelete)
async def delete(site: Site, command: GroupDelete) -> GroupSummary:
    """A group goes."""
    group = site.group(command.group)
    check_confirm(command.confirm, group.name, dry_run=False)
    _require_idle(site, group)
    found = _summary(site, group)
    if found.locked_until is not None:
        raise NotAllowed(
            f"the retention lock of group {group.name} holds until {found.locked_until}",
            subject=group.name,
            next_step=f"`farshore group delete {group.name} --confirm {group.name}` then",
        )
    await site.move_group(group, None)
    SeedRemoval(site.disk, site.clock, group.name).begin()
    site.events.emit("group.deleted", group=group.name, position=str(group.end))
    return found


def _move_seeds(site: Site, name: str, new: str) -> None:
    """They go by the group's name. Without them a copy is sent whole."""
    source, target = directory_of(name), directory_of(new)
    if site.disk.exists(source) and not site.disk.exists(target):
        site.disk.rename(source, target)
        site.disk.sync([], [SEEDS])


def _require_idle(site: Site, group: Group) -> None:
    """WrongState or Busy while somebody needs the group as it is."""
    name = group.name
    pair = site.state.pair(name)
    if pair is not None:
        raise WrongState(
            f"group {name} is paired with {pair.peer}",
            subject=name,
            next_step=f"`farshore pair delete {name} --confirm {name}`"
            # It would begin the pair again within seconds.
            + ("" if group.writes else f" at {pair.peer}, which writes it, then here"),
        )
    clone = next(iter(group.clones), None)
    if clone is not None:
        raise Busy(
            f"{clone.name} is a clone of group {name}",
            subject=name,
            next_step=f"`farshore clone delete {clone.name} --confirm {clone.name}`",
        )
    hosts = site.exports.hosts_of(group)
    if hosts:
        raise Busy(
            f"{len(hosts)} hosts are connected to group {name}, the first is {hosts[0]}",
            subject=name,
            next_step="disconnect them; `farshore volume show G/V` names them",
        )
    jobs = site.jobs.running(group=name)
    if jobs or site.state.drops(name):
        raise Busy(
            f"work on group {name} is under way", subject=name, next_step=f"`farshore job list {name}`"
        )


def _summary(site: Site, group: Group) -> GroupSummary:
    row = site.state.group(group.name)
    spans = group.spans()
    return GroupSummary(
        group=group.name,
        group_id=row.group_id,
        role=row.role.value,
        state=pair_state(site, group)[0].value,
        peer=site.peer_of(group.name) or None,
        created=time_text(row.created_utc_ns),
        volumes=len(group.volumes.at(spans)),
        clones=sorted(clone.name for clone in group.clones),
        backups=group.copies.count(spans),
        locked_until=_locked_until(group),
        journal_bytes=group.segments.total_bytes(),
        hosts=site.exports.hosts_of(group),
    )


def _locked_until(group: Group) -> str | None:
    """When the last lock ends: of backups, and of the window in which every moment stays."""
    ends = group.lock.ends_utc_ns()
    if group.lock.window_ns and group.head.utc_ns + group.lock.window_ns > group.clock.utc_ns():
        ends.append(group.head.utc_ns + group.lock.window_ns)
    return time_text(max(ends)) if ends else None
