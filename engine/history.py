"""How far back any moment can be read at this site, and what is missing in between.

From the newest floor or base on the head's lineage on, every frame boundary is a cut that can be read; before
it only kept ones, and between the two ends of a base's gap none.
"""

from __future__ import annotations

from engine.bases import base_on, held_below
from engine.group import Group
from engine.volumes import Volume
from protocol.positions import Cut


def oldest_cut(group: Group, volume: Volume) -> Cut:
    """The cut from which on every one on the head's lineage that shows the volume can be read here."""
    spans = group.spans(group.writer.written)
    created = group.reader.prefix_at(volume.timeline, volume.id)
    found = [Cut(volume.timeline, created.end if created else volume.id)]
    floor, base = group.folding.floor(), base_on(group.timelines, spans)
    found += [cut for cut in (floor, base.cut if base else None) if cut is not None]
    return max(found, key=lambda cut: cut.position)


def gaps(group: Group) -> list[tuple[Cut | None, Cut]]:
    """What never came to this site of the head's lineage: (after, before), oldest first. None: all before."""
    found: list[tuple[Cut | None, Cut]] = []
    spans = group.spans(group.writer.written)
    while (base := base_on(group.timelines, spans)) is not None:
        held = held_below(group.timelines, base)
        found.append((held, base.cut))
        if held is None:
            break
        spans = group.timelines.lineage(held.timeline, held.position)
    return found[::-1]
