"""Backups that go: by name, or because no keep rule keeps them."""

from __future__ import annotations

from daemon.operations.waiting import wait_durable
from daemon.site import Site
from engine.copies.copies import Copy
from engine.copies.keep_rules import KeepRules
from engine.copies.pruning import plan_prune, zone_of
from engine.group.group import Group
from protocol.commands.backup import BackupPrune, BackupPruneReply, PruneRow
from protocol.commands.keep import KeepInfo
from protocol.cut_text import time_text
from site_primary.backup import delete_backups


async def delete_copies(site: Site, group: Group, copies: list[Copy]) -> None:
    """Delete them all in one frame, durably."""
    delete_backups(group, copies)
    await wait_durable(group)
    for copy in copies:
        group.copies.deleted(copy.id)
        site.events.emit("backup.deleted", group=group.name, object=copy.name, position=str(copy.cut))


def keep_rules(group: Group, command: BackupPrune) -> KeepRules:
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
        await delete_copies(site, group, plan.deleted)
    return BackupPruneReply(
        group=group.name,
        dry_run=dry_run,
        rules=KeepInfo(**rules._asdict()),
        zone=str(zone_of(group)),
        kept=[_row(copy, why) for copy, why in plan.kept],
        deleted=[_row(copy, []) for copy in plan.deleted],
        left=[_row(copy, [why]) for copy, why in plan.left],
    )


def _row(copy: Copy, why: list[str]) -> PruneRow:
    return PruneRow(id=f"{copy.id:016x}", label=copy.label or None, time=time_text(copy.utc_ns), why=why)
