"""Commands about clones: create, list, delete."""

from __future__ import annotations

from daemon.operations.paging import Page, beyond, rows_of, start_of
from daemon.operations.registry import carries_out
from daemon.operations.shapes import cut_info, extended, resolve, time_of
from daemon.site import Site
from engine.group.clone_rows import CloneRow
from engine.group.open_clone import Clone
from protocol.commands.base import check_confirm
from protocol.commands.clone import (
    CloneCreate,
    CloneCreateReply,
    CloneDelete,
    CloneInfo,
    CloneList,
    CloneListReply,
)
from protocol.cut_text import time_text
from protocol.errors import Busy, NotFound, Refused


@carries_out(CloneCreate)
async def create(site: Site, command: CloneCreate) -> CloneCreateReply:
    """A clone at a cut, at whichever site."""
    began = site.clock.monotonic()
    group = site.group(command.group)
    if site.is_taken(command.clone):
        raise Refused(
            f"there is a group or clone {command.clone} here already",
            subject=command.clone,
            next_step="choose another name; `farshore clone list` shows those taken",
        )
    cut = resolve(site, group, command.cut)
    spans = group.timelines.lineage(cut.timeline, cut.position)
    found = group.volumes.at(spans)
    if command.volume is not None:
        found = {command.volume: group.volume_at(command.volume, cut)}
    if not found:
        raise NotFound(
            f"group {group.name} has no volumes at that cut",
            subject=group.name,
            position=str(cut),
            next_step=f"`farshore backup list {group.name}` shows cuts that have",
        )
    group.damage.require_sound([volume.id for volume in found.values()], cut, f"clone {command.clone}")
    clone = group.clones.create(
        CloneRow(
            name=command.clone,
            group=group.name,
            cut=cut,
            timelines=(),
            volumes=tuple(sorted(volume.id for volume in found.values())),
            created_utc_ns=site.clock.utc_ns(),
            temporary=command.temporary,
            purpose=command.purpose,
        )
    )
    took_ms = round((site.clock.monotonic() - began) * 1e3, 2)
    return extended(CloneCreateReply, clone_info(site, clone), took_ms=took_ms)


@carries_out(CloneList)
async def list_clones(site: Site, command: CloneList) -> Page[CloneListReply]:
    """Clones of one group, or all."""
    groups = [site.group(command.group)] if command.group else [g for _, g in sorted(site.groups.items())]
    rows = (((group.name, clone.name), clone) for group in groups for clone in group.clones)
    start = start_of(command, tuple[str, str])
    clones, more = await rows_of(site, command, beyond(rows, start), lambda clone: clone_info(site, clone))
    return Page(CloneListReply(clones=clones), more)


@carries_out(CloneDelete)
async def delete(site: Site, command: CloneDelete) -> CloneInfo:
    """Forget a clone."""
    clone = site.exports.clone(command.clone)
    if clone is None:
        raise NotFound(
            f"there is no clone {command.clone} here",
            subject=command.clone,
            next_step="`farshore clone list` shows those that exist",
        )
    check_confirm(command.confirm, command.clone, dry_run=False)
    info = clone_info(site, clone)
    if info.hosts and not command.force:
        raise Busy(
            f"clone {clone.name} has {info.hosts} hosts connected",
            subject=clone.name,
            next_step="disconnect or unmount them first, or add --force",
        )
    site.drop_clone(clone)
    return info


def clone_info(site: Site, clone: Clone) -> CloneInfo:
    """A clone."""
    row = clone.row
    names = sorted(clone.volumes())
    return CloneInfo(
        clone=clone.name,
        group=row.group,
        volumes=names,
        cut=cut_info(row.cut, time_of(site.groups[row.group], row.cut)),
        created=time_text(row.created_utc_ns),
        temporary=row.temporary,
        purpose=row.purpose,
        bytes=clone.journal_bytes,
        hosts=len(site.exports.clone_clients(clone)),
        reason=clone.failed,
        exports=[f"{clone.name}/{name}" for name in names],
    )
