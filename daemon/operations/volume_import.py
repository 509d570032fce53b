"""An image that is written into a volume: who may write it, and what the volume is until all of it is there.

The journal says it, as of a volume that is turned back by writes (`RewriteBegan` to no other cut than the
one before, `RewriteEnded`). So a volume with half an image is closed to hosts at either site, also after a
restart or a takeover, and has no backups, whatever became of the command that wrote it.
"""

from __future__ import annotations

from contextlib import suppress

from daemon.exports import FILL
from daemon.operations.registry import carries_out
from daemon.operations.restore_by_writes import KEEP_S
from daemon.operations.shapes import cut_info, extended, time_of, writable_group
from daemon.operations.volume import where_of
from daemon.operations.volume_changes import require_no_restore
from daemon.operations.volume_row import volume_info
from daemon.operations.waiting import wait_durable
from daemon.site import Site
from engine.history.volumes import is_import
from protocol.commands.volume import VolumeInfo
from protocol.commands.volume_import import VolumeFill, VolumeFilled, VolumeFillReply
from protocol.errors import Busy, Trimmed, WrongState
from protocol.events import RewriteBegan, RewriteEnded


@carries_out(VolumeFill)
async def fill(site: Site, command: VolumeFill) -> VolumeFillReply:
    """Close the volume to all but one."""
    group = writable_group(site, command.group)
    volume = group.volume(command.volume)
    name = f"{group.name}/{volume.name}"
    hosts = site.exports.clients(group, volume)
    if hosts:
        raise Busy(
            f"{name} has hosts connected: {', '.join(hosts[:4])}", subject=name, next_step="stop them first"
        )
    require_no_restore(site, group, volume)
    unfinished = group.volumes.half_way(group.spans(), volume.id)
    if unfinished is None or not is_import(unfinished):
        site.exports.require_open(group, volume)
    # The first one that was not finished knows what the volume was.
    before = group.end if unfinished is None else unfinished.before
    token = f"{site.rng.getrandbits(64):016x}"
    group.begin_writing()
    group.append_records([RewriteBegan(volume=volume.id, cut=before, before=before)])
    site.exports.filling[group.name, volume.id] = token
    with suppress(Trimmed):  # of an import that ended long ago: it can still be done again
        group.kept.timed.hold(f"undo {name}", before, KEEP_S)
    await wait_durable(group)
    where = where_of(site, f"{name}@{FILL}{token}", volume.size_bytes)
    return extended(VolumeFillReply, where, token=token, before=cut_info(before, time_of(group, before)))


@carries_out(VolumeFilled)
async def filled(site: Site, command: VolumeFilled) -> VolumeInfo:
    """Open it again."""
    group = writable_group(site, command.group)
    volume = group.volume(command.volume)
    name = f"{group.name}/{volume.name}"
    if not site.exports.is_filled_by(group, volume, command.token):
        raise WrongState(
            f"that import into {name} is over",
            subject=name,
            position=str(group.end),
            next_step=f"`farshore volume show {name}`",
        )
    site.exports.shut(group, volume)
    del site.exports.filling[group.name, volume.id]
    group.append_records([RewriteEnded(volume=volume.id)])
    await wait_durable(group)
    return volume_info(site, group, volume)
