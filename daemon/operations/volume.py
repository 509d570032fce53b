"""Commands about volumes: make, look at, open, close and delete them, and where hosts find them."""

from __future__ import annotations

from msgspec import UNSET
from msgspec.structs import replace

from daemon.operations.backup_row import backup_info
from daemon.operations.paging import NextPage, Page, TimeSlices, beyond, rows_of, start_of
from daemon.operations.registry import carries_out
from daemon.operations.shapes import cut_info, extended, require_primary, resolve, time_of, writable_group
from daemon.operations.volume_changes import (
    rename_volume,
    require_no_restore,
    require_size_read,
    resize_volume,
)
from daemon.operations.volume_row import history_info, interval_info, older_than, volume_info
from daemon.operations.waiting import wait_durable
from daemon.site import Site
from engine.group.site_state import Role
from engine.peering.pair_states import PairState
from engine.peering.role_exports import open_volumes
from protocol.commands.base import check_confirm
from protocol.commands.volume import (
    Connection,
    VolumeCreate,
    VolumeDelete,
    VolumeInfo,
    VolumeList,
    VolumeListReply,
    VolumeOffline,
    VolumeOnline,
    VolumeRename,
    VolumeResize,
    VolumeResizeReply,
    VolumeShow,
    VolumeShowReply,
    VolumeUri,
    VolumeUriReply,
)
from protocol.errors import Busy, Refused
from protocol.events import VolumeCreated, VolumeDeleted


@carries_out(VolumeCreate)
async def create(site: Site, command: VolumeCreate) -> VolumeInfo:
    """A new volume, and its group if there is none."""
    name = f"{command.group}/{command.volume}"
    if command.group in site.groups or command.group in site.damaged:
        group = site.group(command.group)
        require_primary(site, group)
        await require_size_read(site, group, command.size_bytes)
        require_primary(site, group)
    else:
        group = site.create_group(command.group, f"{site.rng.getrandbits(64):016x}", Role.PRIMARY)
    existing = group.volumes.at(group.spans())
    if command.volume in existing:
        raise Refused(
            f"volume {name} exists already", subject=name, next_step=f"`farshore volume show {name}`"
        )
    group.volumes.require_room(len(existing), command.group)
    group.begin_writing()
    group.append_records([VolumeCreated(name=command.volume, size_bytes=command.size_bytes)])
    await wait_durable(group)
    site.events.emit("volume.created", group=group.name, object=name, position=str(group.end))
    return volume_info(site, group, group.volume(command.volume))


@carries_out(VolumeList)
async def list_volumes(site: Site, command: VolumeList) -> Page[VolumeListReply]:
    """Volumes of one group or all."""
    groups = [site.group(command.group)] if command.group else [g for _, g in sorted(site.groups.items())]
    start, slices = start_of(command, tuple[str, str]), TimeSlices(site)
    rows = []
    for group in groups:
        found = group.volumes.at(group.spans())
        rows += [((group.name, name), (group, volume)) for name, volume in found.items()]
        await slices.pause()
    volumes, more = await rows_of(site, command, beyond(rows, start), lambda item: volume_info(site, *item))
    return Page(VolumeListReply(volumes=volumes), more)


@carries_out(VolumeShow)
async def show(site: Site, command: VolumeShow) -> Page[VolumeShowReply] | NextPage:
    """One volume, with what is visible and who is connected."""
    group = site.group(command.group)
    volume = group.volume(command.volume)
    start = start_of(command, tuple[int])
    copies = group.copies.newest(group.spans(), -start[0] if start else None)
    numbered = (((-copy.position,), copy if volume.id in copy.volumes else None) for copy in copies)
    backups, more = await rows_of(site, command, numbered, lambda copy: backup_info(site, group, copy))
    if start:
        older = {"history": {"older": older_than(group, volume, backups)}} if command.history else {}
        return NextPage({"backups": backups, **older}, more)
    reply = extended(
        VolumeShowReply,
        volume_info(site, group, volume),
        role=site.state.group(group.name).role.value,
        head=cut_info(group.end, group.head.utc_ns),
        visibility=[
            interval_info(group, volume, *interval) for interval in group.live_view(volume).intervals
        ],
        connections=[
            Connection(client=client, export=f"{group.name}/{volume.name}")
            for client in site.exports.clients(group, volume)
        ],
        backups=backups,
        history=history_info(site, group, volume, backups) if command.history else UNSET,
    )
    return Page(reply, more)


@carries_out(VolumeOnline)
async def online(site: Site, command: VolumeOnline) -> VolumeInfo:
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
    return volume_info(site, group, volume)


@carries_out(VolumeOffline)
async def offline(site: Site, command: VolumeOffline) -> VolumeInfo:
    """Close an export."""
    group = writable_group(site, command.group)
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
    return volume_info(site, group, volume)


@carries_out(VolumeDelete)
async def delete(site: Site, command: VolumeDelete) -> VolumeInfo:
    """Journal a volume's end; its past stays."""
    group = writable_group(site, command.group)
    volume = group.volume(command.volume)
    name = f"{group.name}/{volume.name}"
    check_confirm(command.confirm, name, dry_run=False)
    if site.exports.clients(group, volume):
        raise Busy(f"{name} has hosts connected", subject=name, next_step=f"`farshore volume offline {name}`")
    require_no_restore(site, group, volume)
    before = volume_info(site, group, volume)
    group.begin_writing()
    group.append_records([VolumeDeleted(volume=volume.id)])
    await wait_durable(group)
    site.events.emit("volume.deleted", group=group.name, object=name, position=str(group.end))
    return replace(before, deleted=True, online=False)


@carries_out(VolumeResize)
async def resize(site: Site, command: VolumeResize) -> VolumeResizeReply:
    """Another size."""
    return await resize_volume(site, command)


@carries_out(VolumeRename)
async def rename(site: Site, command: VolumeRename) -> VolumeInfo:
    """Another name."""
    return await rename_volume(site, command)


@carries_out(VolumeUri)
async def uri(site: Site, command: VolumeUri) -> VolumeUriReply:
    """Where hosts find an export."""
    name = f"{command.group}/{command.volume}"
    clone = site.exports.clone(command.group)
    if clone is not None and command.cut is None:
        return where_of(site, name, clone.volume(command.volume).size_bytes)
    group = site.group(command.group)
    if command.cut is not None:
        cut = resolve(site, group, command.cut)
        view = group.kept.view_at(command.volume, cut)
        if command.sound:
            group.damage.require_sound([view.volume], cut, name)
        where = where_of(site, f"{name}@{cut}", view.size_bytes)
        return replace(where, read_only=True, cut=cut_info(cut, time_of(group, cut)))
    require_primary(site, group)
    return where_of(site, name, group.volume(command.volume).size_bytes)


def where_of(site: Site, export: str, size_bytes: int) -> VolumeUriReply:
    """Where the export of what is live is."""
    places = dict(address.split(":", 1) for address in reversed(site.nbd_addresses))
    tcp_tls = "tcp" in places and site.nbd.tcp.context is not None
    return VolumeUriReply(
        export=export,
        unix=places.get("unix"),
        tcp=places.get("tcp"),
        tls=tcp_tls and "unix" not in places,
        read_only=False,
        size_bytes=size_bytes,
        cut=None,
        tcp_tls=tcp_tls,
    )
