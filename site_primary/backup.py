"""Taking a backup: one `Mark` in the group's journal; pinning and deleting it, which are events too.

The mark's own position is the cut, so the copy is exact at every site that holds the journal, whatever is in
flight. It costs one frame, whatever the size of the volumes. A retroactive backup names an earlier cut
instead.
"""

from __future__ import annotations

import random

from engine.copies.copies import Copy
from engine.group.group import Group
from protocol.cut_text import time_text
from protocol.errors import NotFound, Refused
from protocol.events import Consistency, CopyDeleted, CopyLocked, CopyPinned, Mark, Record
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
    lock_s: int = 0,
) -> Copy:
    """Append the mark and return the new row, PENDING until durable, locked for `lock_s` seconds from the
    start, or not at all. `volume` None means the whole group; Refused if the label is taken, NotFound if
    there is nothing to back up at the cut, Trimmed if that is no longer kept, WrongState if a volume is half
    way back to another cut there."""
    if cut is not None:
        group.kept.require(cut)
    if label:
        group.copies.require_free(group.spans(), label, group.name)
    spans = group.timelines.lineage(cut.timeline, cut.position) if cut else group.spans()
    found = group.volumes.at(spans)
    if volume is not None:
        found = {volume: group.volume_at(volume, cut) if cut else group.volume(volume)}
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
    records: list[Record] = [mark]
    if lock_s:
        records.append(CopyLocked(copy_id=mark.copy_id, lock_s=lock_s))
    group.begin_writing()
    group.append_records(records)
    return group.copies.find(group.spans(), f"{mark.copy_id:016x}", group.name)


def pin_backup(group: Group, copy: Copy, *, pinned: bool) -> None:
    """Say whether a copy is pinned, if that is not so already. A locked one stays pinned: Locked."""
    if copy.pinned and not pinned:
        group.lock.require_unlocked(copy, "unpinned")
    if copy.pinned != pinned:
        group.begin_writing()
        group.append_records([CopyPinned(copy_id=copy.id, pinned=pinned)])


def lock_backup(group: Group, copy: Copy, lock_s: int) -> None:
    """Lock a copy for so many seconds from now on. Refused if it is locked for longer already, Trimmed if
    its cut cannot be read here any more."""
    group.kept.require(copy.cut)
    if group.lock.left_ns(copy.id) > lock_s * 1_000_000_000:
        until = time_text(group.lock.until_utc_ns(copy.id))
        raise Refused(
            f"backup {copy.name} of {group.name} is locked until {until} already: a lock is never shortened",
            subject=f"{group.name}@{copy.name}",
            position=str(copy.cut),
            next_step="name a longer time to extend it",
        )
    group.begin_writing()
    group.append_records([CopyLocked(copy_id=copy.id, lock_s=lock_s)])


def check_deletable(group: Group, copy: Copy) -> None:
    """Locked while a copy is, Refused while it is pinned: now, whenever it was looked up."""
    group.lock.require_unlocked(copy, "deleted")
    if group.copies.is_pinned(group.spans(), copy):
        raise Refused(
            f"backup {copy.name} of {group.name} is pinned",
            subject=f"{group.name}@{copy.name}",
            position=str(copy.cut),
            next_step=f"`farshore backup unpin {group.name} {copy.name}`",
        )


def delete_backups(group: Group, copies: list[Copy]) -> None:
    """Delete them all, in as few frames as may be. Refused or Locked, with nothing deleted, if one is pinned
    or locked."""
    for copy in copies:
        check_deletable(group, copy)
    group.begin_writing()
    for at in range(0, len(copies), FRAME_EVENTS_MAX):
        group.append_records([CopyDeleted(copy_id=copy.id) for copy in copies[at : at + FRAME_EVENTS_MAX]])
