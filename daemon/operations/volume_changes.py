"""What commands do that change what a volume is from here on: its size, its name. Cuts before keep theirs."""

from __future__ import annotations

from contextlib import suppress

from msgspec.structs import replace

from daemon.operations.restore_by_writes import KEEP_S
from daemon.operations.shapes import extended, writable_group
from daemon.operations.volume_row import volume_info
from daemon.operations.waiting import wait_durable
from daemon.site import Site
from engine.group.group import Group
from engine.history.volumes import Volume
from protocol.commands.base import check_confirm
from protocol.commands.volume import VolumeInfo, VolumeRename, VolumeResize, VolumeResizeReply
from protocol.errors import Busy, Refused, Trimmed, Unreachable
from protocol.events import VolumeRenamed
from protocol.limits import BLOCK_BYTES
from protocol.peer_requests import VOLUME_CHANGES
from site_primary.resize_volume import resize


async def require_read_by_peer(site: Site, group: Group) -> None:
    """Refused if the peer follows and could not go on behind such a record. One that is away is not waited
    for: a disk that is full must grow, and a peer that comes back too old says so then."""
    peer, shipper = site.peer_of(group.name), site.shippers.get(group.name)
    if not peer or shipper is None or not shipper.connected:
        return
    try:
        reads = await site.ask_peer(group.name).reads(VOLUME_CHANGES)
    except Unreachable:
        # An early version does not even say that it does not know the question.
        reads = not shipper.connected
    if not reads:
        raise Refused(
            f"{peer} runs a version that knows no such change of a volume: it would not follow any more",
            subject=group.name,
            next_step=f"upgrade farshore at {peer} first",
        )


async def require_size_read(site: Site, group: Group, size_bytes: int) -> None:
    """The same of a new volume with a size that earlier versions do not know."""
    if size_bytes % BLOCK_BYTES:
        await require_read_by_peer(site, group)


def require_no_restore(site: Site, group: Group, volume: Volume) -> None:
    """Busy while the volume is being turned back."""
    if (group.name, volume.id) in site.rewriting:
        name = f"{group.name}/{volume.name}"
        raise Busy(
            f"a restore of {name} is under way", subject=name, next_step="`farshore job list` shows it"
        )


async def resize_volume(site: Site, command: VolumeResize) -> VolumeResizeReply:
    """Another size. To make it smaller can be undone as a restore can."""
    group = writable_group(site, command.group)
    volume = group.volume(command.volume)
    name = f"{group.name}/{volume.name}"
    if not command.dry_run and command.size_bytes != volume.size_bytes:
        await require_read_by_peer(site, group)
        group = writable_group(site, command.group)
        volume = group.volume(command.volume)
    before, size_bytes = volume.size_bytes, command.size_bytes
    group.volumes.require_whole(group.spans(), volume.id, name)
    require_no_restore(site, group, volume)
    undo = f"farshore volume resize {name} {before} --confirm {name}"
    smaller = size_bytes < before
    if smaller:
        undo = f"farshore restore volume {name} --at {group.end} --confirm {name}"
    position = None
    if size_bytes != before and not command.dry_run:
        if smaller:
            check_confirm(command.confirm, name)
            _require_idle(site, group, volume, command.force, "what they hold past the new end is lost")
        group.volumes.require_change(group.name)
        if smaller:
            with suppress(Trimmed):  # what a group without history has anyway is its window
                group.kept.timed.hold(f"undo resize {name}", group.end, KEEP_S)
        position = str(resize(group, volume, size_bytes))
        await wait_durable(group)
        site.events.emit(
            "volume.resized", group=group.name, object=name, position=position,
            before_bytes=before, size_bytes=size_bytes,
        )  # fmt: skip
        volume = group.volumes.as_it_is(volume, group.spans())
        if command.reconnect:
            site.exports.shut(group, volume)
    info = replace(volume_info(site, group, volume), size_bytes=size_bytes)
    return extended(
        VolumeResizeReply, info, before_bytes=before, dry_run=command.dry_run, position=position, undo=undo
    )


async def rename_volume(site: Site, command: VolumeRename) -> VolumeInfo:
    """Another name."""
    group = writable_group(site, command.group)
    volume = group.volume(command.volume)
    name, new = f"{group.name}/{volume.name}", f"{group.name}/{command.to}"
    if command.to == volume.name:
        return volume_info(site, group, volume)
    await require_read_by_peer(site, group)
    group = writable_group(site, command.group)
    volume = group.volume(command.volume)
    require_no_restore(site, group, volume)
    if command.to in group.volumes.at(group.spans()):
        raise Refused(f"volume {new} exists already", subject=new, next_step=f"`farshore volume show {new}`")
    _require_idle(site, group, volume, command.force, f"they come back by the name {new} only")
    group.volumes.require_change(group.name)
    group.begin_writing()
    group.append_records([VolumeRenamed(volume=volume.id, name=command.to)])
    await wait_durable(group)
    site.events.emit("volume.renamed", group=group.name, object=new, position=str(group.end), before=name)
    return volume_info(site, group, group.volumes.as_it_is(volume, group.spans()))


def _require_idle(site: Site, group: Group, volume: Volume, force: bool, why: str) -> None:
    hosts = site.exports.clients(group, volume)
    if hosts and not force:
        name = f"{group.name}/{volume.name}"
        raise Busy(
            f"{name} has {len(hosts)} connected, {', '.join(hosts[:4])}: {why}",
            subject=name,
            next_step="stop those hosts first, or add --force",
        )
