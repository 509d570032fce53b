"""Backups that go: by name, or because no keep rule keeps them.

However many they are, hosts go on: a frame says a few hundred deletions, and between two frames they have
their turn. An earlier version reads such a frame as any other.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from daemon.operations.paging import TimeSlices, in_slices
from daemon.operations.shapes import require_primary
from daemon.operations.waiting import wait_durable
from daemon.site import Site
from engine.copies.copies import Copy
from engine.copies.keep_rules import KeepRules
from engine.copies.pruning import PrunePlan, prune_steps, zone_of
from engine.group.group import Group
from protocol.commands.backup import PRUNE_ROWS_MAX, BackupPrune, BackupPruneReply, PruneRow
from protocol.commands.keep import KeepInfo
from protocol.cut_text import time_text
from site_primary.backup import check_deletable, delete_backups

DELETIONS_A_FRAME = 250


async def delete_copies(site: Site, group: Group, copies: list[Copy]) -> None:
    """Delete them all, durably. Refused or Locked, with nothing deleted, if one is pinned or locked; one that
    is so only later ends it there, and what went before is said all the same."""
    slices = TimeSlices(site)
    for copy in copies:
        check_deletable(group, copy)
        await slices.pause()
    deleted: list[Copy] = []
    try:
        for at in range(0, len(copies), DELETIONS_A_FRAME):
            some = copies[at : at + DELETIONS_A_FRAME]
            require_primary(site, group)  # again: hosts had their turn, and so had whoever moves roles
            delete_backups(group, some)
            deleted += some
            await slices.pause()
    finally:
        if deleted:
            await _say_deleted(site, group, deleted)


async def _say_deleted(site: Site, group: Group, copies: list[Copy]) -> None:
    slices = TimeSlices(site)
    await wait_durable(group)
    group.copies.deleted(*[copy.id for copy in copies])
    for copy in copies:
        site.events.emit("backup.deleted", group=group.name, object=copy.name, position=str(copy.cut))
        await slices.pause()


def keep_rules(group: Group, command: BackupPrune) -> KeepRules:
    """Those of the command, if it gives any; else those of the policy."""
    if any(count is not None for count in command.counts):
        return KeepRules(*(count or 0 for count in command.counts))
    return KeepRules(*group.policies.at(group.spans())[1].keep)


async def prune_by(
    site: Site, group: Group, rules: KeepRules, *, labelled: bool, dry_run: bool
) -> BackupPruneReply:
    """Prune by these rules."""
    plan = await _plan(site, group, rules, labelled=labelled, say_labelled=True)
    if plan.deleted and not dry_run:
        await delete_copies(site, group, plan.deleted)
    rows = Rows(site)
    return BackupPruneReply(
        group=group.name,
        dry_run=dry_run,
        rules=KeepInfo(**rules._asdict()),
        zone=str(zone_of(group)),
        deleted=await rows.of((copy, []) for copy in plan.deleted),
        kept=await rows.of(plan.kept),
        left=await rows.of((copy, [why]) for copy, why in plan.left),
        left_out=len(plan.deleted) + len(plan.kept) + len(plan.left) - rows.count,
    )


async def prune_quietly(site: Site, group: Group, rules: KeepRules) -> None:
    """The same after a backup that a schedule took: nobody reads what is left."""
    plan = await _plan(site, group, rules, labelled=False, say_labelled=False)
    if plan.deleted:
        await delete_copies(site, group, plan.deleted)


async def _plan(
    site: Site, group: Group, rules: KeepRules, *, labelled: bool, say_labelled: bool
) -> PrunePlan:
    return await in_slices(site, prune_steps(group, rules, labelled=labelled, say_labelled=say_labelled))


class Rows:
    """Rows of a reply, as many as it takes: what goes first, because that is what a person must see."""

    def __init__(self, site: Site) -> None:
        self.count = 0
        self._slices = TimeSlices(site)

    async def of(self, copies: Iterable[tuple[Copy, list[str]]]) -> list[PruneRow]:
        """The next list."""
        rows = []
        for copy, why in islice(copies, PRUNE_ROWS_MAX - self.count):
            time = time_text(copy.utc_ns)
            rows.append(PruneRow(id=f"{copy.id:016x}", label=copy.label or None, time=time, why=why))
            await self._slices.pause()
        self.count += len(rows)
        return rows
