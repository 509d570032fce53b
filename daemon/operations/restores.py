"""Commands that turn volumes back."""

from __future__ import annotations

from typing import Any

from daemon.operations.shapes import cut_data, require_primary, resolve, time_of
from daemon.operations.waiting import wait_durable
from daemon.site import Site
from engine.group import Group
from protocol.commands import RestoreGroup, RestoreVolume, check_confirm
from protocol.errors import Busy
from protocol.positions import Cut
from site_secondary.restore_volume import RestorePlan, carry_out, check_restored, plan_restore

Data = dict[str, Any]


async def restore_volume(site: Site, command: RestoreVolume) -> Data:
    """One volume."""
    group = site.group(command.group)
    require_primary(site, group)
    cut = resolve(site, group, command.cut)
    plan = plan_restore(group, [command.volume], cut, skip_missing=False)
    return await _restore(site, group, plan, command, f"{command.group}/{command.volume}", "volume")


async def restore_group(site: Site, command: RestoreGroup) -> Data:
    """Every volume of a group, to one cut in one frame."""
    group = site.group(command.group)
    require_primary(site, group)
    cut = resolve(site, group, command.cut)
    names = sorted(group.volumes.at(group.spans()))
    plan = plan_restore(group, names, cut, skip_missing=True)
    return await _restore(site, group, plan, command, command.group, "group")


async def _restore(
    site: Site, group: Group, plan: RestorePlan, command: RestoreVolume | RestoreGroup, name: str, noun: str
) -> Data:
    group.damage.require_sound([volume.id for volume in plan.volumes], plan.cut, name)
    hosts = [
        {"volume": f"{group.name}/{volume.name}", "client": client}
        for volume in plan.volumes
        for client in site.exports.clients(group, volume)
    ]
    data = _describe(group, plan, command, hosts) | {
        "undo": f"farshore restore {noun} {name} --at {plan.before} --confirm {name}"
    }
    if command.dry_run:
        return data
    check_confirm(command.confirm, name)
    if hosts and not command.force:
        raise Busy(
            f"{name} has {len(hosts)} hosts connected; what they hold in memory would overwrite the restore",
            subject=name,
            position=str(group.end),
            next_step="stop those hosts first, or add --force to disconnect them",
        )
    began = site.clock.monotonic()
    volumes = [volume.id for volume in plan.volumes]
    # Closed before the revert is written: a host that reconnects in between must not mix two pasts.
    site.state.set_closed(group.name, volumes, f"turned back to {plan.cut}")
    for volume in plan.volumes:
        site.exports.shut(group, volume)
    position = carry_out(group, plan)
    # Before anything is awaited: another restore, or a host let in again, would change what is compared.
    checked = check_restored(group, plan, site.rng)
    await wait_durable(group)
    if command.start:
        site.state.set_closed(group.name, volumes, None)
    took_ms = round((site.clock.monotonic() - began) * 1e3, 2)
    site.events.emit(
        "volume.restored", group=group.name, object=name, position=str(position), cut=str(plan.cut),
        checked_blocks=checked, took_ms=took_ms,
    )  # fmt: skip
    return data | {
        "position": str(position),
        "online": command.start,
        "checked_blocks": checked,
        "took_ms": took_ms,
    }


def _describe(
    group: Group, plan: RestorePlan, command: RestoreVolume | RestoreGroup, hosts: list[dict[str, str]]
) -> Data:
    cut_time = time_of(group, plan.cut)
    return {
        "group": group.name,
        "volumes": [volume.name for volume in plan.volumes],
        "untouched": list(plan.untouched),
        "dry_run": command.dry_run,
        "cut": cut_data(plan.cut, cut_time),
        "head": cut_data(plan.before, group.utc_ns),
        "position": None,
        "discarded_bytes": _discarded_bytes(group, plan.cut),
        "discarded_s": round((group.utc_ns - cut_time) / 1e9, 3) if cut_time else None,
        "hosts": hosts,
        "online": False,
        "checked_blocks": 0,
        "took_ms": None,
    }


def _discarded_bytes(group: Group, cut: Cut) -> int:
    """Journal bytes since the cut: an upper bound of what is turned back."""
    return max(0, group.writer.written - cut.position)
