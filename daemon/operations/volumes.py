"""Commands about volumes: each checks, asks the engine, and answers with a plain dict."""

from __future__ import annotations

from typing import Any

from daemon.operations.history import history_data, older_rows
from daemon.operations.paging import TimeSlices, beyond, page_of, start_of
from daemon.operations.shapes import backup_data, cut_data, require_primary, resolve, time_of, volume_data
from daemon.operations.waiting import wait_durable
from daemon.role_exports import open_volumes
from daemon.site import Site
from engine.group.group import Group
from engine.group.site_state import Role
from engine.history.volumes import Volume
from engine.peering.pair_states import PairState
from protocol.commands import (
    VolumeCreate,
    VolumeDelete,
    VolumeList,
    VolumeOffline,
    VolumeOnline,
    VolumeShow,
    VolumeUri,
    check_confirm,
)
from protocol.errors import Busy, Refused
from protocol.events import VolumeCreated, VolumeDeleted
from protocol.limits import VOLUMES_EVER_MAX, VOLUMES_PER_GROUP_MAX
from protocol.positions import POSITION_MAX, Cut, timeline_text

Data = dict[str, Any]


async def create(site: Site, command: VolumeCreate) -> Data:
    """A new volume, and its group if there is none."""
    name = f"{command.group}/{command.volume}"
    if command.group in site.groups or command.group in site.damaged:
        group = site.group(command.group)
        require_primary(site, group)
    else:
        if site.exports.clone(command.group) is not None:
            raise Refused(
                f"{command.group} is a clone: it has the volumes that its cut had",
                subject=name,
                next_step="choose another group; `farshore clone list` shows clones",
            )
        group = site.create_group(command.group, f"{site.rng.getrandbits(64):016x}", Role.PRIMARY)
    existing = group.volumes.at(group.spans())
    if command.volume in existing:
        raise Refused(
            f"volume {name} exists already", subject=name, next_step=f"`farshore volume show {name}`"
        )
    if len(existing) >= VOLUMES_PER_GROUP_MAX:
        raise Refused(f"a group has at most {VOLUMES_PER_GROUP_MAX} volumes", subject=command.group)
    if group.volumes.ever >= VOLUMES_EVER_MAX:
        raise Refused(
            f"{command.group} has had {VOLUMES_EVER_MAX} volumes, as many as a group may",
            subject=name,
            next_step="choose another group",
        )
    group.begin_writing()
    group.append_records([VolumeCreated(name=command.volume, size_bytes=command.size_bytes)])
    await wait_durable(group)
    site.events.emit("volume.created", group=group.name, object=name, position=str(group.end))
    return volume_data(site, group, group.volume(command.volume))


async def list_volumes(site: Site, command: VolumeList) -> Data:
    """Volumes of one group or all."""
    groups = [site.group(command.group)] if command.group else [g for _, g in sorted(site.groups.items())]
    start, slices = start_of(command, tuple[str, str]), TimeSlices(site)
    rows = []
    for group in groups:
        found = group.volumes.at(group.spans())
        rows += [((group.name, name), (group, volume)) for name, volume in found.items()]
        await slices.pause()
    return await page_of(
        site, command, "volumes", beyond(rows, start), lambda item: volume_data(site, item[0], item[1])
    )


async def show(site: Site, command: VolumeShow) -> Data:
    """One volume, with what is visible and who is connected."""
    group = site.group(command.group)
    volume = group.volume(command.volume)
    start = start_of(command, tuple[int])
    shown = {} if start else _shown(site, group, volume)
    history = history_data(site, group, volume) if command.history and not start else {}
    copies = (copy for copy in group.copies.at(group.spans()) if volume.id in copy.volumes)
    page = await page_of(
        site,
        command,
        "backups",
        beyond((((-copy.position,), copy) for copy in copies), start),
        lambda copy: backup_data(site, group, copy),
    )
    if command.history:
        page["history"] = history | {"older": older_rows(group, volume, page["backups"])}
    return shown | page


def _shown(site: Site, group: Group, volume: Volume) -> Data:
    """What `volume.show` says of a volume itself."""
    view = group.live_view(volume)
    return volume_data(site, group, volume) | {
        "role": site.state.group(group.name).role.value,
        "head": cut_data(group.end, group.utc_ns),
        "visibility": [_interval(group, volume, *interval) for interval in view.intervals],
        "connections": [
            {"client": client, "export": f"{group.name}/{volume.name}"}
            for client in site.exports.clients(group, volume)
        ],
    }


def _interval(group: Group, volume: Volume, lane: int, low: int, high: int) -> Data:
    """An interval under the name of the newest timeline that has a part of it."""
    inside = [span for span in group.spans() if span.lane == lane and span.start < high and span.end > low]
    timeline = inside[-1].timeline if inside else group.head
    return {
        "timeline": timeline_text(timeline),
        "volume": str(Cut(volume.timeline, volume.id)),
        "from": low,
        "to": None if high >= POSITION_MAX else high,
    }


async def online(site: Site, command: VolumeOnline) -> Data:
    """Open a closed export; what is not understood in its history is accepted with that. At a split pair's
    secondary: let hosts write there until the resync."""
    group = site.group(command.group)
    volume = group.volume(command.volume)
    group.volumes.require_whole(group.spans(), volume.id, f"{group.name}/{volume.name}")
    receiver = site.receivers.get(group.name)
    if receiver is not None and receiver.state is PairState.SPLIT:
        if site.state.group(group.name).role is Role.SECONDARY:
            site.pairs.detach(group)
    else:
        require_primary(site, group)
    if group.unread.seen(volume.id, group.live_view(volume).intervals):
        group.unread.accepted.accept(volume.id, group.end)
    open_volumes(site.state, group, [volume.id])
    site.events.emit("volume.online", group=group.name, object=f"{group.name}/{volume.name}")
    return volume_data(site, group, volume)


async def offline(site: Site, command: VolumeOffline) -> Data:
    """Close an export."""
    group = site.group(command.group)
    require_primary(site, group)
    volume = group.volume(command.volume)
    name = f"{group.name}/{volume.name}"
    hosts = site.exports.clients(group, volume)
    if hosts and not command.force:
        raise Busy(
            f"{name} has {len(hosts)} connected: {', '.join(hosts[:4])}",
            subject=name,
            next_step="stop those hosts first, or add --force",
        )
    site.state.set_closed(group.name, [volume.id], "closed by an operator")
    site.exports.shut(group, volume)
    site.events.emit("volume.offline", group=group.name, object=name)
    return volume_data(site, group, volume)


async def delete(site: Site, command: VolumeDelete) -> Data:
    """Journal a volume's end; its past stays."""
    group = site.group(command.group)
    require_primary(site, group)
    volume = group.volume(command.volume)
    name = f"{group.name}/{volume.name}"
    check_confirm(command.confirm, name, dry_run=False)
    if site.exports.clients(group, volume):
        raise Busy(f"{name} has hosts connected", subject=name, next_step=f"`farshore volume offline {name}`")
    before = volume_data(site, group, volume)
    group.begin_writing()
    group.append_records([VolumeDeleted(volume=volume.id)])
    await wait_durable(group)
    site.events.emit("volume.deleted", group=group.name, object=name, position=str(group.end))
    return before | {"deleted": True, "online": False}


async def uri(site: Site, command: VolumeUri) -> Data:
    """Where hosts find an export."""
    name = f"{command.group}/{command.volume}"
    clone = site.exports.clone(command.group)
    if clone is not None and command.cut is None:
        return _where(site, name, clone.volume(command.volume).size_bytes)
    group = site.group(command.group)
    if command.cut is not None:
        cut = resolve(site, group, command.cut)
        view = group.view_at(command.volume, cut)
        if command.sound:
            group.damage.require_sound([view.volume], cut, name)
        return _where(site, f"{name}@{cut}", view.size_bytes) | {
            "read_only": True,
            "cut": cut_data(cut, time_of(group, cut)),
        }
    require_primary(site, group)
    return _where(site, name, group.volume(command.volume).size_bytes)


def _where(site: Site, export: str, size_bytes: int) -> Data:
    """What `volume.uri` says of a writable export."""
    places = dict(address.split(":", 1) for address in reversed(site.nbd_addresses))
    return {
        "export": export,
        "unix": places.get("unix"),
        "tcp": places.get("tcp"),
        "tls": False,
        "read_only": False,
        "size_bytes": size_bytes,
        "cut": None,
    }
