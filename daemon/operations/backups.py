"""Commands about backups: each checks, asks the engine, and answers with a plain dict."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from msgspec import UNSET

from daemon.operations.freezing import mark_frozen
from daemon.operations.paging import TimeSlices, beyond, page_of, start_of
from daemon.operations.shapes import backup_data, require_primary, resolve
from daemon.operations.waiting import wait_durable, wait_until
from daemon.site import Site
from engine.copies.copies import Copy
from engine.copies.copy_space import held_bytes, unique_bytes
from engine.group.group import Group
from engine.peering.pair_states import PairState
from protocol.commands import BackupCreate, BackupList, BackupShow
from protocol.cut_text import CutBackup, CutLabel, NamedCut
from protocol.errors import UsageError
from protocol.events import Consistency
from site_primary.backup import take_backup

Data = dict[str, Any]
PEER_WAIT_S = 10.0


async def create(site: Site, command: BackupCreate) -> Data:
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

    freeze: Data | None = None
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
    figures = {"took_ms": took_ms} | ({"frozen_ms": freeze["frozen_ms"]} if freeze else {})
    site.events.emit("backup.created", group=group.name, object=copy.name, position=str(copy.cut), **figures)
    return backup_data(site, group, copy) | {"took_ms": took_ms, "freeze": freeze}


async def _wait_peer(site: Site, group: Group, copy: Copy) -> None:
    shipper = site.shippers.get(group.name)
    if shipper is not None and shipper.state is PairState.PAIRED:
        await wait_until(
            site,
            lambda: shipper.marks.remote_durable > copy.position or shipper.state is not PairState.PAIRED,
            PEER_WAIT_S,
        )


async def list_backups(site: Site, command: BackupList) -> Data:
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
    return await page_of(
        site, command, "backups", beyond(rows, start), lambda item: backup_data(site, item[0], item[1])
    )


async def show(site: Site, command: BackupShow) -> Data:
    """One backup."""
    group = site.group(command.group)
    copy = find_backup(group, command.cut)
    data = backup_data(site, group, copy)
    data["exports"] = [mirror["to"] for mirror in data["local_mirrors"]]
    if command.space:
        held = await counted(held_bytes(group, copy))
        unique = await counted(unique_bytes(group, copy))
        data["space"] = {"bytes": held, "unique_bytes": unique, "shared_bytes": max(0, held - unique)}
    return data


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
