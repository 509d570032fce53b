"""How far back any moment can be read at this site, and what is missing in between.

From the newest horizon or base on the head's lineage on, every frame boundary is a cut that can be read;
before it only kept ones, and between the two ends of a base's gap none.
"""

from __future__ import annotations

from engine.group.group import Group
from engine.history.bases import base_on, downwards, shared_below
from engine.history.volumes import Volume
from protocol.positions import Cut


def oldest_cut(group: Group, volume: Volume) -> Cut:
    """The cut from which on every one on the head's lineage that shows the volume can be read here."""
    spans = group.spans(group.writer.written)
    created = group.reader.prefix_at(volume.timeline, volume.id)
    found = [Cut(volume.timeline, created.end if created else volume.id)]
    horizon, base = group.kept.horizon(), base_on(group.timelines, spans)
    found += [cut for cut in (horizon, base.cut if base else None) if cut is not None]
    return max(found, key=lambda cut: cut.position)


def gaps(group: Group) -> list[tuple[Cut | None, Cut]]:
    """What never came to this site of the head's lineage: (after, before), oldest first. None: all before."""
    pieces = downwards(group.timelines, group.spans(group.writer.written), shared_below)
    return [(below, base.cut) for _, base, below in pieces if base is not None][::-1]
