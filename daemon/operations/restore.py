"""Commands that turn volumes back.

By one event where that works, else by writes (engine.peering.restore_ways). Hosts are gone before either
begins and stay out until it is done. A restore by writes is a job, and the command answers as soon as it has
begun; cut short by a crash, it leaves the volume offline, and the same command completes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial

from msgspec import structs

from daemon.jobs import Job
from daemon.operations import comparing
from daemon.operations.registry import carries_out
from daemon.operations.restore_by_writes import KEEP_S, changed_bytes, hold_past, restore_by_writes, way_back
from daemon.operations.shapes import cut_info, require_primary, resolve, time_of, writable_group
from daemon.operations.waiting import wait_durable, wait_until
from daemon.site import Site
from engine.group.group import Group
from engine.peering.restore_ways import Chosen, Way, choose_way, trimmed_cut
from engine.peering.role_exports import open_volumes
from protocol.commands.base import check_confirm
from protocol.commands.restore import RestoreFigures, RestoreGroup, RestoreHost, RestoreReply, RestoreVolume
from protocol.errors import Busy, FarshoreError, Trimmed
from protocol.positions import Cut
from site_primary.restore_volume import RestorePlan, as_they_are, carry_out, plan_restore

JOB_KIND = "restore"
# How long a dry run has the peer hold the cut.
PROBE_S = 60.0
FOLLOW_S = 600.0


@carries_out(RestoreVolume)
async def restore_volume(site: Site, command: RestoreVolume) -> RestoreReply:
    """One volume."""
    group = writable_group(site, command.group)
    cut = await _cut_of(site, group, command)
    plan = plan_restore(group, [command.volume], cut, skip_missing=False)
    return await _restore(site, group, plan, command, f"{command.group}/{command.volume}", "volume")


@carries_out(RestoreGroup)
async def restore_group(site: Site, command: RestoreGroup) -> RestoreReply:
    """Every volume of a group, to one cut in one frame."""
    group = writable_group(site, command.group)
    cut = await _cut_of(site, group, command)
    names = sorted(group.volumes.at(group.spans()))
    plan = plan_restore(group, names, cut, skip_missing=True)
    return await _restore(site, group, plan, command, command.group, "group")


async def _cut_of(site: Site, group: Group, command: RestoreVolume | RestoreGroup) -> Cut:
    """What the command's cut stands for, although perhaps only the peer can read it."""
    try:
        return resolve(site, group, command.cut)
    except Trimmed:
        found = await trimmed_cut(group, command.cut, partial(site.ask_peer, group.name))
        if found is None:
            raise
        return found


async def _restore(
    site: Site, group: Group, plan: RestorePlan, command: RestoreVolume | RestoreGroup, name: str, noun: str
) -> RestoreReply:
    lease, for_s = (f"plan {name}", PROBE_S) if command.dry_run else (f"restore {name}", KEEP_S)
    if not command.dry_run:
        check_confirm(command.confirm, name)
    if group.kept.readable(plan.cut):
        group.damage.require_sound([volume.id for volume in plan.volumes], plan.cut, name)
    ask = partial(site.ask_peer, group.name)
    following = site.shippers.get(group.name)
    peer = ask if site.peer_of(group.name) else None
    # The peer holds one cut for the restores of a volume: another one, refused later, would take it away.
    with nullcontext() if command.dry_run else _only_one(site, group, plan):
        chosen = await choose_way(group, plan.volumes, plan.cut, lease, for_s, following, peer)
        # Asking the peer took a moment, in which hosts went on.
        require_primary(site, group)
        plan = replace(plan, before=group.end)
        hosts = _hosts(site, group, plan)
        reply = _describe(group, plan, command, hosts, chosen)
        if command.dry_run:
            copied_bytes = 0 if chosen.way is Way.REVERT else await changed_bytes(site, group, plan, chosen)
            await chosen.let_go(ask)
            back = _undo(noun, name, way_back(group, plan))
            return structs.replace(reply, copied_bytes=copied_bytes, undo=back)
        if hosts and not command.force:
            await chosen.let_go(ask)
            raise Busy(
                f"{name} has {len(hosts)} hosts connected; what they hold in memory would overwrite the "
                "restore",
                subject=name,
                position=str(group.end),
                next_step="stop those hosts first, or add --force to disconnect them",
            )
    work = partial(_carry_out, site, group, plan, chosen, command, name, noun)
    if chosen.way is Way.REVERT:
        # It goes on although whoever asked no longer waits.
        figures = await asyncio.shield(site.spawn(work(None)))
        return structs.replace(reply, **structs.asdict(figures))
    job = site.jobs.start(
        JOB_KIND,
        work,
        group=group.name,
        subject=name,
        arguments={"cut": str(plan.cut), "way": chosen.way.value},
        resumable=False,
    )
    return structs.replace(reply, restoring=job.info())


async def _carry_out(
    site: Site,
    group: Group,
    plan: RestorePlan,
    chosen: Chosen,
    command: RestoreVolume | RestoreGroup,
    name: str,
    noun: str,
    job: Job | None,
) -> RestoreFigures:
    """What the restore came to."""
    began = site.clock.monotonic()
    volumes = [volume.id for volume in plan.volumes]
    with _only_one(site, group, plan):
        require_primary(site, group)  # again: this is a task of its own
        plan = as_they_are(group, plan)
        if job is not None:
            # What can be refused comes before hosts have to go; held anew once they are gone.
            hold_past(group, plan, chosen, name)
        with _open_again_if_unchanged(site, group, plan, name):
            # Closed before anything is written: a host that reconnects in between must not mix two pasts.
            site.state.set_closed(group.name, volumes, _closed_by(plan))
            for volume in plan.volumes:
                site.exports.filling.pop((group.name, volume.id), None)  # an import ends with it
                site.exports.shut(group, volume)
            before = way_back(group, plan)
            plan = replace(plan, before=before)
            if job is None:
                # Written down later: hosts wait for the disk as it is, and a crash leaves it in the window.
                with suppress(Trimmed):
                    group.kept.leases.hold(f"undo {name}", before)
                position, checked, copied_bytes = await _revert(site, group, plan)
            else:
                hold_past(group, plan, chosen, name)
                position, checked, copied_bytes = await restore_by_writes(
                    site, group, plan, chosen, name, job
                )
        after = group.end
    if command.start:
        open_volumes(site.state, group, volumes)
    compare = None
    took_ms = round((site.clock.monotonic() - began) * 1e3, 2)
    if chosen.way is not Way.FETCH:
        names = [volume.name for volume in plan.volumes]
        compare = comparing.start(site, group, names, plan.cut, after, name).number
    site.events.emit(
        "volume.restored", group=group.name, object=name, checked_blocks=checked, copied_bytes=copied_bytes,
        took_ms=took_ms, position=str(position), job=compare, cut=str(plan.cut), way=chosen.way.value,
    )  # fmt: skip
    site.spawn(_when_followed(site, group, plan, chosen, f"undo {name}", position))
    return RestoreFigures(
        head=cut_info(before, time_of(group, before)),
        position=str(position),
        online=command.start,
        undo=_undo(noun, name, before),
        checked_blocks=checked,
        copied_bytes=copied_bytes,
        took_ms=took_ms,
        job=compare,
    )


@contextmanager
def _open_again_if_unchanged(site: Site, group: Group, plan: RestorePlan, name: str) -> Iterator[None]:
    """Whatever fails is said. If nothing was written of these volumes until then, exports are what they were
    before; else they stay closed, because a volume half way back is neither past."""
    closed = {volume.id: site.state.closed(group.name, volume.id) for volume in plan.volumes}
    before = _turns(group, plan)
    try:
        yield
    except (FarshoreError, OSError) as error:
        if _turns(group, plan) == before:
            with suppress(FarshoreError, OSError):  # said all the same, and `volume online` opens it
                still = [v for v in closed if site.state.closed(group.name, v) == _closed_by(plan)]
                site.state.set_closed(group.name, [v for v in still if closed[v] is None], None)
        site.events.emit("volume.restore_failed", group=group.name, object=name, error=str(error))
        raise


def _closed_by(plan: RestorePlan) -> str:
    return f"turned back to {plan.cut}"


def _turns(group: Group, plan: RestorePlan) -> list[object]:
    """Every turn back of these volumes, by a revert or by writes."""
    spans = group.spans()
    return [
        (group.volumes.reverts_of(volume.id), group.volumes.half_way(spans, volume.id))
        for volume in plan.volumes
    ]


def _undo(noun: str, name: str, before: Cut) -> str:
    return f"farshore restore {noun} {name} --at {before} --confirm {name}"


async def _revert(site: Site, group: Group, plan: RestorePlan) -> tuple[Cut, int, int]:
    """Where the revert is, how many blocks were compared, and how many bytes written: none."""
    position = carry_out(group, plan)
    checked = await comparing.sample(site, group, plan)
    await wait_durable(group)
    return position, checked, 0


async def _when_followed(
    site: Site, group: Group, plan: RestorePlan, chosen: Chosen, undo: str, position: Cut
) -> None:
    """Have the way back kept; by the peer, too, once it has the restore and need not hold the cut any more.
    Where that fails, the window keeps it for a while anyway."""

    def followed() -> bool:
        shipper = site.shippers.get(group.name)
        return shipper is None or shipper.marks.remote_durable > position.position

    ask = partial(site.ask_peer, group.name)
    with suppress(FarshoreError, OSError):
        group.kept.timed.hold(undo, plan.before, KEEP_S)
        if await wait_until(site, followed, FOLLOW_S) and site.peer_of(group.name):
            await chosen.let_go(ask)
            await ask().hold(undo, plan.before, KEEP_S)


def _hosts(site: Site, group: Group, plan: RestorePlan) -> list[RestoreHost]:
    return [
        RestoreHost(volume=f"{group.name}/{volume.name}", client=client)
        for volume in plan.volumes
        for client in site.exports.clients(group, volume)
    ]


@contextmanager
def _only_one(site: Site, group: Group, plan: RestorePlan) -> Iterator[None]:
    """Busy if one of these volumes is being turned back already."""
    keys = {(group.name, volume.id) for volume in plan.volumes}
    if keys & site.rewriting:
        raise Busy(
            f"a restore of {group.name} is under way",
            subject=group.name,
            position=str(plan.cut),
            next_step="`farshore events --follow` says when it is done",
        )
    site.rewriting |= keys
    try:
        yield
    finally:
        site.rewriting -= keys


def _describe(
    group: Group,
    plan: RestorePlan,
    command: RestoreVolume | RestoreGroup,
    hosts: list[RestoreHost],
    chosen: Chosen,
) -> RestoreReply:
    """The restore before anything of it is done."""
    cut_time = time_of(group, plan.cut)
    return RestoreReply(
        group=group.name,
        volumes=[volume.name for volume in plan.volumes],
        untouched=list(plan.untouched),
        dry_run=command.dry_run,
        cut=cut_info(plan.cut, cut_time),
        head=cut_info(plan.before, group.head.utc_ns),
        position=None,
        discarded_bytes=_discarded_bytes(group, plan.cut),
        discarded_s=round((group.head.utc_ns - cut_time) / 1e9, 3) if cut_time else None,
        hosts=hosts,
        way=chosen.way.value,
        online=False,
        undo="",
        checked_blocks=0,
        copied_bytes=0,
        took_ms=None,
        job=None,
    )


def _discarded_bytes(group: Group, cut: Cut) -> int:
    """Journal bytes since the cut: an upper bound of what is turned back."""
    return max(0, group.writer.written - cut.position)
