"""Commands about who may open a volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from daemon.operations.registry import carries_out
from daemon.site import Site
from engine.group.group import Group
from engine.history.volumes import Volume
from protocol.commands.volume_access import (
    AccessEntry,
    VolumeAccess,
    VolumeAccessReply,
    VolumeAllow,
    VolumeDisallow,
)
from protocol.errors import Busy, NotFound, Refused
from protocol.hosts import Right, parse_host
from site_primary.nbd.exports import ExportConnection


@carries_out(VolumeAccess)
async def show(site: Site, command: VolumeAccess) -> VolumeAccessReply:
    """A volume's list."""
    group = site.group(command.group)
    return _shown(site, group, group.volume(command.volume), [])


@carries_out(VolumeAllow)
async def allow(site: Site, command: VolumeAllow) -> VolumeAccessReply:
    """One more on the list, or another right."""
    group = site.group(command.group)
    volume, host, right = group.volume(command.volume), parse_host(command.host), Right(command.right)
    access = site.exports.hosts.access
    wanted = {**access.of(group.name, volume.id), host: right}
    losing = _require_idle(site, group, volume, wanted, force=command.force)
    access.put(group.name, volume.id, host, right)
    _shut(losing)
    name = f"{group.name}/{volume.name}"
    site.events.emit("volume.allowed", group=group.name, object=name, host=host, right=right.value)
    return _shown(site, group, volume, losing)


@carries_out(VolumeDisallow)
async def disallow(site: Site, command: VolumeDisallow) -> VolumeAccessReply:
    """One less, or none left. The last one goes only with all: that opens the volume."""
    group = site.group(command.group)
    volume, access = group.volume(command.volume), site.exports.hosts.access
    entries, name = access.of(group.name, volume.id), f"{group.name}/{volume.name}"
    gone = list(entries) if command.host is None else [parse_host(command.host)]
    if command.host is not None:
        if gone[0] not in entries:
            raise NotFound(
                f"{gone[0]} is not on the list of {name}",
                subject=name,
                next_step=f"`farshore volume access {name}` shows who is",
            )
        if len(entries) == 1:
            raise Refused(
                f"{gone[0]} is the last on the list: without one, {name} is open to whoever reaches the door",
                subject=name,
                next_step=f"open it (`farshore volume disallow {name} --all`), or close it to all "
                f"(`farshore volume offline {name}`)",
            )
    wanted = {host: right for host, right in entries.items() if host not in gone}
    losing = _require_idle(site, group, volume, wanted, force=command.force)
    access.remove(group.name, volume.id, gone)
    _shut(losing)
    site.events.emit("volume.disallowed", group=group.name, object=name, hosts=" ".join(gone))
    return _shown(site, group, volume, losing)


def _require_idle(
    site: Site, group: Group, volume: Volume, wanted: Mapping[str, Right], *, force: bool
) -> list[ExportConnection]:
    """The connections that such a list does not allow. Busy if there are any, unless forced."""
    right = site.exports.hosts.access.right
    losing = [
        each
        for each in site.exports.connections_of(group, volume.id)
        if (may := right(wanted, each.who)) is Right.NONE or (each.writes and may is not Right.WRITE)
    ]
    if losing and not force:
        name, some = f"{group.name}/{volume.name}", ", ".join(each.client for each in losing[:4])
        raise Busy(
            f"{len(losing)} connected to {name} may not be any more: {some}",
            subject=name,
            next_step="put them on the list first, stop them, or add --force",
        )
    return losing


def _shut(connections: list[ExportConnection]) -> None:
    for each in connections:
        each.shut()


def _shown(site: Site, group: Group, volume: Volume, closed: list[ExportConnection]) -> VolumeAccessReply:
    connections = site.exports.connections_of(group, volume.id)
    count = Counter(each.who for each in connections if each not in closed)
    entries = site.exports.hosts.access.of(group.name, volume.id)
    return VolumeAccessReply(
        group=group.name,
        volume=volume.name,
        everybody=not entries,
        entries=[
            AccessEntry(host=host, right=right.value, connections=count[host])
            for host, right in entries.items()
        ],
        closed=[each.client for each in closed],
    )
