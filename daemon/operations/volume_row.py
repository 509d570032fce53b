"""A volume as replies have it, and the intervals of what is visible of it."""

from __future__ import annotations

from daemon.operations.shapes import (
    time_or_none,
)
from daemon.site import Site
from engine.group.group import Group
from engine.history.volumes import Volume
from protocol.commands.volume import (
    Interval,
    VolumeInfo,
)
from protocol.positions import POSITION_MAX, Cut, timeline_text


def volume_info(site: Site, group: Group, volume: Volume) -> VolumeInfo:
    """A volume."""
    created = group.reader.prefix_at(volume.timeline, volume.id)
    writes = site.state.group(group.name).role.writes
    closed = site.exports.closed(group, volume)
    return VolumeInfo(
        group=group.name,
        volume=volume.name,
        size_bytes=volume.size_bytes,
        online=writes and not group.failed and closed is None,
        offline_reason=closed or "",
        hosts=len(site.exports.clients(group, volume)),
        id=str(Cut(volume.timeline, volume.id)),
        created=time_or_none(created.utc_ns if created else None),
        deleted=False,
    )


def interval_info(group: Group, volume: Volume, lane: int, low: int, high: int) -> Interval:
    """An interval under the name of the newest timeline that has a part of it."""
    inside = [span for span in group.spans() if span.lane == lane and span.start < high and span.end > low]
    timeline = inside[-1].timeline if inside else group.head.timeline
    return Interval(
        timeline=timeline_text(timeline),
        volume=str(Cut(volume.timeline, volume.id)),
        start=low,
        to=None if high >= POSITION_MAX else high,
    )
