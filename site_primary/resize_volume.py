"""Another size for a volume: one record, and zeroes past the end of what is smaller.

What lies past a volume's end is nobody's. It is zeroed once the volume is smaller, so that its space comes
back as history goes, and again before the volume grows over it: a kill in between leaves nothing that a host
could read later, and a restore may have brought old bytes back there. Both are frames like a host's, for the
peer too; the record decides what there is, so no other frame has to come with it.

The cut before is what undoes it: each cut has the size that the volume had there (docs/decisions/0027).
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.group.group import Group
from engine.history.volumes import Volume
from protocol.events import VolumeResized
from protocol.limits import BLOCK_BYTES
from protocol.positions import Cut
from site_primary.write_path import WriteBatch


def resize(group: Group, volume: Volume, size_bytes: int) -> Cut:
    """Give the live `volume` another size; returns the record's position. Written, not yet durable. NoSpace
    or OSError: it has the size that it had, unless the record was written."""
    group.begin_writing()
    if size_bytes > volume.size_bytes:
        _zero(group, volume, volume.size_bytes, size_bytes)
    frame = group.append_records([VolumeResized(volume=volume.id, size_bytes=size_bytes)])
    if size_bytes < volume.size_bytes:
        _zero(group, volume, size_bytes, volume.size_bytes)
    return Cut(frame.prefix.timeline, frame.prefix.position)


def sizes_of(group: Group, volumes: Iterable[Volume], cut: Cut) -> list[VolumeResized]:
    """What gives these volumes the sizes that they had at a cut."""
    then = group.volumes.by_id(group.timelines.lineage(cut.timeline, cut.position))
    now = group.volumes.by_id(group.spans())
    return [
        VolumeResized(volume=each.id, size_bytes=then[each.id].size_bytes)
        for each in volumes
        if each.id in then and then[each.id].size_bytes != now[each.id].size_bytes
    ]


def _zero(group: Group, volume: Volume, start: int, end: int) -> None:
    """Zero what the volume has of bytes from `start` to `end`; it never had any past its largest size."""
    held = group.volumes.blocks_of(group.spans())[volume.id] * BLOCK_BYTES
    batch = WriteBatch(group, volume.id, held, lambda: group.live_view(volume))
    batch.zero(start, min(end, held) - start, trim=False)
    batch.commit()
