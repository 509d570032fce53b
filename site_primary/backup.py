"""Taking a backup: one `Mark` in the group's journal.

The mark's own position is the cut, so the copy is exact at every site that holds the journal, whatever is in
flight. It costs one frame, whatever the size of the volumes. A retroactive backup names an earlier cut
instead.
"""

from __future__ import annotations

import random

from engine.copies import Copy
from engine.group import Group
from protocol.errors import NotFound
from protocol.events import Consistency, Mark
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
    longer kept."""
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
