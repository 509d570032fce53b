"""Commands about backups. Those that change which are kept run at the site that writes: the journal tells the
other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from msgspec import UNSET, UnsetType

from daemon.operations.freezing import mark_frozen
from daemon.operations.paging import Page, TimeSlices, beyond, rows_of, start_of
from daemon.operations.registry import carries_out
from daemon.operations.shapes import backup_info, extended, require_primary, resolve
from daemon.operations.waiting import wait_durable, wait_until
from daemon.site import Site
from engine.copies.copies import Copy
from engine.copies.copy_space import held_bytes, unique_bytes
from engine.copies.keep_rules import KeepRules
from engine.copies.pruning import plan_prune
from engine.group.group import Group
from engine.peering.pair_states import PairState
from protocol.commands.backup import (
    BackupCreate,
    BackupCreateReply,
    BackupDelete,
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
    PruneRow,
    SpaceInfo,
)
from protocol.commands.base import check_confirm
from protocol.commands.keep import KeepInfo
from protocol.cut_text import CutBackup, CutLabel, NamedCut, time_text
from protocol.errors import UsageError
from protocol.events import Consistency
from site_primary.backup import check_deletable, delete_backups, lock_backup, pin_backup, take_backup

PEER_WAIT_S = 10.0


@carries_out(BackupCreate)
async def create(site: Site, command: BackupCreate) -> BackupCreateReply:
    """Mark a cut, and answer when it is durable here and, while the pair is in step, at the peer."""
    group = site.group(command.group)
    require_primary(site, group)
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
        await _wait_peer(site, group, copy)
    took_ms = round((site.clock.monotonic() - began) * 1e3, 2)
    figures = {"took_ms": took_ms} | ({"frozen_ms": freeze.frozen_ms} if freeze else {})
    site.events.emit("backup.created", group=group.name, object=copy.name, position=str(copy.cut), **figures)
    backup = backup_info(site, group, copy)
    return extended(BackupCreateReply, backup, took_ms=took_ms, freeze=freeze)


async def _wait_peer(site: Site, group: Group, copy: Copy) -> None:
    shipper = site.shippers.get(group.name)
    if shipper is not None and shipper.state is PairState.PAIRED:
        await wait_until(
            site,
            lambda: shipper.marks.remote_durable > copy.position or shipper.state is not PairState.PAIRED,
            PEER_WAIT_S,
        )


@carries_out(BackupList)
async def list_backups(site: Site, command: BackupList) -> Page[BackupListReply]:
    """Newest first."""
    groups = [site.group(command.group)] if command.group else [g for _, g in sorted(site.groups.items())]
    start, slices = start_of(command, tuple[int, str, int]), TimeSlices(site)
    rows = []
    for group in groups:
        wanted = group.volume(command.volume).id if command.volume else None
        for copy in group.copies.at(group.spans()):
            if wanted is None or wanted in copy.volumes:
                rows.append(((-copy.utc_ns, group.name, copy.position), (group, copy)))
        await slices.pause()
    backups, more = await rows_of(site, command, beyond(rows, start), lambda item: backup_info(site, *item))
    return Page(BackupListReply(backups=backups), more)


@carries_out(BackupShow)
async def show(site: Site, command: BackupShow) -> BackupShowReply:
    """One backup."""
    group = site.group(command.group)
    copy = find_backup(group, command.cut)
    backup = backup_info(site, group, copy)
    space: SpaceInfo | UnsetType = UNSET
    if command.space:
        held = await counted(held_bytes(group, copy))
        unique = await counted(unique_bytes(group, copy))
        space = SpaceInfo(bytes=held, unique_bytes=unique, shared_bytes=max(0, held - unique))
    exports = [mirror.to for mirror in backup.local_mirrors]
    return extended(BackupShowReply, backup, exports=exports, space=space)


@carries_out(BackupPin)
async def pin(site: Site, command: BackupPin) -> BackupInfo:
    """Pin or unpin a backup."""
    group = site.group(command.group)
    require_primary(site, group)
    copy = find_backup(group, command.cut)
    pin_backup(group, copy, pinned=command.pinned)
    await wait_durable(group)
    kind = "backup.pinned" if command.pinned else "backup.unpinned"
    site.events.emit(kind, group=group.name, object=copy.name, position=str(copy.cut))
    return backup_info(site, group, find_backup(group, command.cut))


@carries_out(BackupLock)
async def lock(site: Site, command: BackupLock) -> BackupInfo:
    """Lock a backup, or extend its lock."""
    group = site.group(command.group)
    require_primary(site, group)
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
    group = site.group(command.group)
    require_primary(site, group)
    copy = find_backup(group, command.cut)
    check_deletable(group, copy)
    backup = backup_info(site, group, copy)
    if command.dry_run:
        unique = await counted(unique_bytes(group, copy))
        return extended(BackupDeleteReply, backup, deleted=False, unique_bytes=unique)
    check_confirm(command.confirm, copy.name)
    await _delete(site, group, [copy])
    return extended(BackupDeleteReply, backup, deleted=True, unique_bytes=None)


async def _delete(site: Site, group: Group, copies: list[Copy]) -> None:
    delete_backups(group, copies)
    await wait_durable(group)
    for copy in copies:
        group.copies.deleted(copy.id)
        site.events.emit("backup.deleted", group=group.name, object=copy.name, position=str(copy.cut))


@carries_out(BackupPrune)
async def prune(site: Site, command: BackupPrune) -> BackupPruneReply:
    """Delete what no keep rule keeps."""
    group = site.group(command.group)
    require_primary(site, group)
    rules = _rules(group, command)
    if not any(rules):
        raise UsageError(
            f"group {group.name} has no keep rules, and none are given",
            subject=group.name,
            next_step=f"`farshore schedule set {group.name} --keep-daily 7`, or add --keep-daily 7",
        )
    if not command.dry_run:
        check_confirm(command.confirm, group.name)
    return await prune_by(site, group, rules, labelled=command.labelled, dry_run=command.dry_run)


def _rules(group: Group, command: BackupPrune) -> KeepRules:
    """Those of the command, if it gives any; else those of the policy."""
    if any(count is not None for count in command.counts):
        return KeepRules(*(count or 0 for count in command.counts))
    return KeepRules(*group.policies.at(group.spans())[1].keep)


async def prune_by(
    site: Site, group: Group, rules: KeepRules, *, labelled: bool, dry_run: bool
) -> BackupPruneReply:
    """Prune by these rules."""
    plan = plan_prune(group, rules, labelled=labelled)
    if plan.deleted and not dry_run:
        await _delete(site, group, plan.deleted)
    return BackupPruneReply(
        group=group.name,
        dry_run=dry_run,
        rules=KeepInfo(**rules._asdict()),
        kept=[_row(copy, why) for copy, why in plan.kept],
        deleted=[_row(copy, []) for copy in plan.deleted],
        left=[_row(copy, [why]) for copy, why in plan.left],
    )


def _row(copy: Copy, why: list[str]) -> PruneRow:
    return PruneRow(id=f"{copy.id:016x}", label=copy.label or None, time=time_text(copy.utc_ns), why=why)


async def counted(parts: Iterator[int]) -> int:
    """The sum of what is worked out slice by slice; others run in between."""
    total = 0
    for part in parts:
        total += part
        await asyncio.sleep(0)
    return total


def find_backup(group: Group, cut: NamedCut) -> Copy:
    """The backup of that label or id; NotFound, or UsageError for a cut of another form."""
    match cut:
        case CutLabel(label=name) | CutBackup(backup_id=name):
            return group.copies.find(group.spans(), name, group.name)
        case _:
            raise UsageError("a backup is named by its label or id", next_step="`farshore backup list`")
