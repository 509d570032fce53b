"""Commands about backups. Those that change which are kept run at the site that writes: the journal tells the
other."""

from __future__ import annotations

from heapq import merge
from operator import itemgetter

from msgspec import UNSET, UnsetType

from daemon.operations.backup_proven import proven
from daemon.operations.backup_row import backup_info, find_backup, newest_first, space_info, unique_in
from daemon.operations.freezing import mark_frozen
from daemon.operations.paging import Page, TimeSlices, rows_of, start_of
from daemon.operations.pruning import Rows, delete_copies, keep_rules, prune_by
from daemon.operations.registry import carries_out
from daemon.operations.shapes import extended, require_primary, resolve, writable_group
from daemon.operations.waiting import wait_durable, wait_peer
from daemon.site import Site
from engine.copies.copies import Copy
from protocol.commands.backup import (
    BackupCreate,
    BackupCreateReply,
    BackupDelete,
    BackupDeleteMany,
    BackupDeleteManyReply,
    BackupDeleteReply,
    BackupInfo,
    BackupList,
    BackupListReply,
    BackupLock,
    BackupPin,
    BackupPrune,
    BackupPruneReply,
    BackupShow,
    BackupShowReply,
    FreezeInfo,
    SpaceInfo,
)
from protocol.commands.base import check_confirm
from protocol.errors import UsageError
from protocol.events import Consistency
from site_primary.backup import check_deletable, lock_backup, pin_backup, take_backup


@carries_out(BackupCreate)
async def create(site: Site, command: BackupCreate) -> BackupCreateReply:
    """Mark a cut, and answer when it is durable here and, while the pair is in step, at the peer."""
    group = writable_group(site, command.group)
    began = site.clock.monotonic()

    def mark(consistency: Consistency) -> Copy:
        require_primary(site, group)  # again: the role may have moved while hosts were being frozen
        return take_backup(
            group,
            volume=command.volume,
            label=command.label or "",
            cut=resolve(site, group, command.cut) if command.cut else None,
            consistency=consistency,
            pinned=command.pin,
            lock_s=0 if command.lock_s is UNSET else command.lock_s,
            rng=site.rng,
        )

    freeze: FreezeInfo | None = None
    if command.freeze is not None:
        if command.cut is not None:
            raise UsageError("hosts cannot be held still in the past: either --at or --freeze")
        if command.label:
            group.copies.require_free(group.spans(), command.label, group.name)
        copy, freeze = await mark_frozen(site, group, command.freeze, mark)
    else:
        copy = mark(Consistency.APPLICATION if command.frozen else Consistency.CRASH)
    if not command.frozen:
        await wait_durable(group)
        await wait_peer(site, group, copy.position)
    took_ms = round((site.clock.monotonic() - began) * 1e3, 2)
    figures = {"took_ms": took_ms} | ({"frozen_ms": freeze.frozen_ms} if freeze else {})
    site.events.emit("backup.created", group=group.name, object=copy.name, position=str(copy.cut), **figures)
    backup = backup_info(site, group, copy)
    return extended(BackupCreateReply, backup, took_ms=took_ms, freeze=freeze)


@carries_out(BackupList)
async def list_backups(site: Site, command: BackupList) -> Page[BackupListReply]:
    """Newest first."""
    groups = [site.group(command.group)] if command.group else [g for _, g in sorted(site.groups.items())]
    start, slices = start_of(command, tuple[int, str, int]), TimeSlices(site)
    of_groups = []
    for group in groups:
        wanted = group.volume(command.volume).id if command.volume else None
        of_groups.append(newest_first(group, wanted, start))
        await slices.pause()
    rows = merge(*of_groups, key=itemgetter(0))
    backups, more = await rows_of(site, command, rows, lambda item: backup_info(site, *item))
    return Page(BackupListReply(backups=backups), more)


@carries_out(BackupShow)
async def show(site: Site, command: BackupShow) -> BackupShowReply:
    """One backup."""
    group = site.group(command.group)
    copy = find_backup(group, command.cut)
    backup = backup_info(site, group, copy)
    space: SpaceInfo | UnsetType = UNSET
    if command.space:
        space = await space_info(group, copy)
    exports = [mirror.to for mirror in backup.local_mirrors]
    looked_at = await proven(site, group, copy)
    return extended(BackupShowReply, backup, exports=exports, space=space, proven=looked_at)


@carries_out(BackupPin)
async def pin(site: Site, command: BackupPin) -> BackupInfo:
    """Pin or unpin a backup."""
    group = writable_group(site, command.group)
    copy = find_backup(group, command.cut)
    pin_backup(group, copy, pinned=command.pinned)
    await wait_durable(group)
    kind = "backup.pinned" if command.pinned else "backup.unpinned"
    site.events.emit(kind, group=group.name, object=copy.name, position=str(copy.cut))
    return backup_info(site, group, find_backup(group, command.cut))


@carries_out(BackupLock)
async def lock(site: Site, command: BackupLock) -> BackupInfo:
    """Lock a backup, or extend its lock."""
    group = writable_group(site, command.group)
    copy = find_backup(group, command.cut)
    lock_backup(group, copy, command.lock_s)
    await wait_durable(group)
    backup = backup_info(site, group, copy)
    until = backup.locked_until
    site.events.emit("backup.locked", group=group.name, object=copy.name, position=str(copy.cut), until=until)
    return backup


@carries_out(BackupDelete)
async def delete(site: Site, command: BackupDelete) -> BackupDeleteReply:
    """Delete a backup."""
    group = writable_group(site, command.group)
    copy = find_backup(group, command.cut)
    check_deletable(group, copy)
    backup = backup_info(site, group, copy)
    if command.dry_run:
        unique = await unique_in(group, [copy])
        return extended(BackupDeleteReply, backup, deleted=False, unique_bytes=unique)
    check_confirm(command.confirm, copy.name)
    await delete_copies(site, group, [copy])
    return extended(BackupDeleteReply, backup, deleted=True, unique_bytes=None)


@carries_out(BackupDeleteMany)
async def delete_many(site: Site, command: BackupDeleteMany) -> BackupDeleteManyReply:
    """Delete several backups."""
    group, slices = writable_group(site, command.group), TimeSlices(site)
    copies = dict[int, Copy]()
    for cut in command.cuts:
        copy = find_backup(group, cut)
        check_deletable(group, copy)
        copies[copy.id] = copy
        await slices.pause()
    rows = await Rows(site).of((copy, []) for copy in copies.values())
    unique = None
    if command.dry_run:
        unique = await unique_in(group, copies.values())
    else:
        check_confirm(command.confirm, group.name)
        await delete_copies(site, group, list(copies.values()))
    return BackupDeleteManyReply(group=group.name, dry_run=command.dry_run, deleted=rows, unique_bytes=unique)


@carries_out(BackupPrune)
async def prune(site: Site, command: BackupPrune) -> BackupPruneReply:
    """Delete what no keep rule keeps."""
    group = writable_group(site, command.group)
    rules = keep_rules(group, command)
    if not any(rules):
        raise UsageError(
            f"group {group.name} has no keep rules, and none are given",
            subject=group.name,
            next_step=f"`farshore schedule set {group.name} --keep-daily 7`, or add --keep-daily 7",
        )
    if not command.dry_run:
        check_confirm(command.confirm, group.name)
    return await prune_by(site, group, rules, labelled=command.labelled, dry_run=command.dry_run)
