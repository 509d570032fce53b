"""Taking a backup: one `Mark` in the group's journal; pinning and deleting it, which are events too.

The mark's own position is the cut, so the copy is exact at every site that holds the journal, whatever is in
flight. It costs one frame, whatever the size of the volumes. A retroactive backup names an earlier cut
instead.
"""

from __future__ import annotations

import random

from engine.copies import Copy
from engine.group import Group
from protocol.errors import NotFound, Refused
from protocol.events import Consistency, CopyDeleted, CopyPinned, Mark
from protocol.limits import FRAME_EVENTS_MAX
from protocol.positions import Cut


def take_backup(
    group: Group,
    *,
    volume: str | None,
    label: str,
    cut: Cut | None,
    pinned: bool,
    rng: random.Random,
    consistency: Consistency = Consistency.CRASH,
) -> Copy:
    """Append the mark and return the new row, PENDING until durable. `volume` None means the whole group;
    Refused if the label is taken, NotFound if there is nothing to back up at the cut, Trimmed if that is no
    longer kept, WrongState if a volume is half way back to another cut there."""
    if cut is not None:
        group.folding.require(cut)
    if label:
        group.copies.require_free(group.spans(), label, group.name)
    spans = group.timelines.lineage(cut.timeline, cut.position) if cut else group.spans()
    found = group.volumes.at(spans)
    if volume is not None:
        found = {volume: group.volumes.find(spans, volume, f"{group.name}/{volume}")}
    if not found:
        raise NotFound(
            f"group {group.name} has no volumes there",
            subject=group.name,
            position=str(cut or group.end),
            next_step=f"`farshore volume create {group.name}/VOLUME --size SIZE`",
        )
    for each in found.values():
        group.volumes.require_whole(spans, each.id, f"{group.name}/{each.name}")
    mark = Mark(
        copy_id=rng.getrandbits(64),
        label=label,
        cut=cut,
        volumes=tuple(sorted(each.id for each in found.values())),
        consistency=consistency,
        pinned=pinned,
    )
    group.begin_writing()
    group.append_records([mark])
    return group.copies.find(group.spans(), f"{mark.copy_id:016x}", group.name)


def pin_backup(group: Group, copy: Copy, *, pinned: bool) -> None:
    """Say whether a copy is pinned, if that is not so already."""
    if copy.pinned != pinned:
        group.begin_writing()
        group.append_records([CopyPinned(copy_id=copy.id, pinned=pinned)])


def check_deletable(group: Group, copy: Copy) -> None:
    """Refused while a copy is pinned."""
    if copy.pinned:
        raise Refused(
            f"backup {copy.name} of {group.name} is pinned",
            subject=f"{group.name}@{copy.name}",
            position=str(copy.cut),
            next_step=f"`farshore backup unpin {group.name} {copy.name}`",
        )


def delete_backups(group: Group, copies: list[Copy]) -> None:
    """Delete them all, in as few frames as may be. Refused, with nothing deleted, if one is pinned."""
    for copy in copies:
        check_deletable(group, copy)
    group.begin_writing()
    for at in range(0, len(copies), FRAME_EVENTS_MAX):
        group.append_records([CopyDeleted(copy_id=copy.id) for copy in copies[at : at + FRAME_EVENTS_MAX]])
