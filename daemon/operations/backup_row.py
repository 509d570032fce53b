"""A backup as replies have it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator

from daemon.operations.shapes import cut_info, time_of, time_or_none
from daemon.site import Site
from engine.copies.copies import Copy, CopyState
from engine.copies.copy_space import held_bytes, unique_bytes
from engine.copies.copy_states import state_of
from engine.group.group import Group
from engine.history.timelines import holds
from protocol.commands.backup import BackupInfo, Mirror, SpaceInfo
from protocol.cut_text import CutBackup, CutLabel, NamedCut, time_text
from protocol.errors import UsageError
from protocol.events import Consistency
from protocol.positions import POSITION_MAX, Cut

Key = tuple[int, str, int]  # time, group and position of a backup, those that count down as negatives


def backup_info(site: Site, group: Group, copy: Copy) -> BackupInfo:
    """A backup."""
    volumes = _volume_names(group, copy)
    here = site.config.name
    shipper, receiver = site.shippers.get(group.name), site.receivers.get(group.name)
    states = {here: state_of(group, copy).value.lower()}
    mirror: Mirror | None = None
    if shipper is not None:
        arrived = shipper.marks.remote_durable > copy.position
        states[shipper.peer] = (CopyState.AVAILABLE if arrived else CopyState.PENDING).value.lower()
        mirror = Mirror(source=here, to=shipper.peer)
    elif receiver is not None:
        if group.reclaim.promised > copy.position:
            states[receiver.peer] = CopyState.AVAILABLE.value.lower()
        mirror = Mirror(source=receiver.peer, to=here)
    mark = group.copies.mark_of(copy.id)
    return BackupInfo(
        id=f"{copy.id:016x}",
        label=copy.label or None,
        group=group.name,
        volumes=volumes,
        # To look up the frame before each mark would stall hosts where there are hundreds.
        cut=cut_info(copy.cut, time_of(group, copy.cut) if copy.retroactive else copy.utc_ns),
        time=time_text(copy.utc_ns),
        pinned=copy.pinned,
        locked_until=time_or_none(group.lock.until_utc_ns(copy.id)),
        kind="retroactive" if copy.retroactive else "mark",
        consistency="crash" if copy.consistency is Consistency.CRASH else "frozen",
        state=states,
        verified_at=time_or_none(mark.verified_utc_ns),
        damage=mark.damage or None,
        remote_mirror=mirror,
        local_mirrors=[
            Mirror(source=f"{group.name}/{name}", to=f"{group.name}/{name}@{copy.name}") for name in volumes
        ],
        held_by=_held_by(group, copy),
    )


def _volume_names(group: Group, copy: Copy) -> list[str]:
    """What the copy's volumes were called at its cut; they may be gone since."""
    if copy.cut.timeline not in group.timelines:
        return []
    spans = group.timelines.lineage(copy.cut.timeline, copy.cut.position)
    names = {volume.id: volume.name for volume in group.volumes.at(spans).values()}
    return [names[volume] for volume in copy.volumes if volume in names]


def _held_by(group: Group, copy: Copy) -> list[str]:
    """Leases on the copy's cut, clones that left it, and restores that went back to it."""
    spans = group.spans()
    held = group.kept.leases.holders(copy.cut)
    held += [f"clone {clone.name}" for clone in group.clones if clone.row.cut == copy.cut]
    return held + [
        f"restore at {Cut(*place)}" for place in group.volumes.reverts_to(copy.cut) if holds(spans, *place)
    ]


async def space_info(group: Group, copy: Copy) -> SpaceInfo:
    """What a backup takes."""
    held, unique = await _counted(held_bytes(group, copy)), await unique_in(group, [copy])
    return SpaceInfo(bytes=held, unique_bytes=unique, shared_bytes=max(0, held - unique))


async def unique_in(group: Group, copies: Collection[Copy]) -> int:
    """How many bytes no other backups hold."""
    return await _counted(unique_bytes(group, copies))


async def _counted(parts: Iterator[int]) -> int:
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


def newest_first(
    group: Group, volume: int | None, start: Key | None
) -> Iterator[tuple[Key, tuple[Group, Copy] | None]]:
    """A group's backups, newest first, from `start` on, None for those without the volume."""
    if start is None:
        copies = group.copies.newest(group.spans())
    else:
        # Of one time, groups come by name, and within a group the newest comes first.
        utc_ns, name, position = -start[0], start[1], -start[2]
        below = position if group.name == name else POSITION_MAX if group.name > name else 0
        copies = group.copies.taken_before(group.spans(), utc_ns, below)
    for copy in copies:
        wanted = volume is None or volume in copy.volumes
        yield (-copy.utc_ns, group.name, -copy.position), (group, copy) if wanted else None
