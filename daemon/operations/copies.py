"""Commands that change which backups are kept, at the site that writes: the journal tells the other."""

from __future__ import annotations

from typing import Any

from daemon.operations.backups import counted, find_backup
from daemon.operations.shapes import backup_data, require_primary
from daemon.operations.waiting import wait_durable
from daemon.site import Site
from engine.copies.copies import Copy
from engine.copies.copy_space import unique_bytes
from engine.copies.keep_rules import KeepRules
from engine.copies.pruning import PrunePlan, plan_prune
from engine.group.group import Group
from protocol.commands import check_confirm
from protocol.copy_commands import BackupDelete, BackupLock, BackupPin, BackupPrune
from protocol.cut_text import time_text
from protocol.errors import UsageError
from site_primary.backup import check_deletable, delete_backups, lock_backup, pin_backup

Data = dict[str, Any]


async def pin(site: Site, command: BackupPin) -> Data:
    """Pin or unpin a backup."""
    group = site.group(command.group)
    require_primary(site, group)
    copy = find_backup(group, command.cut)
    pin_backup(group, copy, pinned=command.pinned)
    await wait_durable(group)
    kind = "backup.pinned" if command.pinned else "backup.unpinned"
    site.events.emit(kind, group=group.name, object=copy.name, position=str(copy.cut))
    return backup_data(site, group, find_backup(group, command.cut))


async def lock(site: Site, command: BackupLock) -> Data:
    """Lock a backup, or extend its lock."""
    group = site.group(command.group)
    require_primary(site, group)
    copy = find_backup(group, command.cut)
    lock_backup(group, copy, command.lock_s)
    await wait_durable(group)
    data = backup_data(site, group, copy)
    until = data["locked_until"]
    site.events.emit("backup.locked", group=group.name, object=copy.name, position=str(copy.cut), until=until)
    return data


async def delete(site: Site, command: BackupDelete) -> Data:
    """Delete a backup."""
    group = site.group(command.group)
    require_primary(site, group)
    copy = find_backup(group, command.cut)
    check_deletable(group, copy)
    data = backup_data(site, group, copy)
    if command.dry_run:
        return data | {"deleted": False, "unique_bytes": await counted(unique_bytes(group, copy))}
    check_confirm(command.confirm, copy.name)
    await _delete(site, group, [copy])
    return data | {"deleted": True, "unique_bytes": None}


async def _delete(site: Site, group: Group, copies: list[Copy]) -> None:
    delete_backups(group, copies)
    await wait_durable(group)
    for copy in copies:
        group.copies.deleted(copy.id)
        site.events.emit("backup.deleted", group=group.name, object=copy.name, position=str(copy.cut))


async def prune(site: Site, command: BackupPrune) -> Data:
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


async def prune_by(site: Site, group: Group, rules: KeepRules, *, labelled: bool, dry_run: bool) -> Data:
    """Prune by these rules; the reply of `backup.prune`."""
    plan = plan_prune(group, rules, labelled=labelled)
    if plan.deleted and not dry_run:
        await _delete(site, group, plan.deleted)
    return _plan_data(plan) | {"group": group.name, "dry_run": dry_run, "rules": rules._asdict()}


def _plan_data(plan: PrunePlan) -> Data:
    return {
        "kept": [_named(copy, why) for copy, why in plan.kept],
        "deleted": [_named(copy, []) for copy in plan.deleted],
        "left": [_named(copy, [why]) for copy, why in plan.left],
    }


def _named(copy: Copy, why: list[str]) -> Data:
    return {
        "id": f"{copy.id:016x}",
        "label": copy.label or None,
        "time": time_text(copy.utc_ns),
        "why": why,
    }
