"""A volume as replies have it: what it is now, what is visible of it, and how far back it can be read."""

from __future__ import annotations

from daemon.operations.shapes import cut_info, time_of, time_or_none
from daemon.site import Site
from engine.group.group import Group
from engine.history.bases import base_at
from engine.history.reach import gaps, oldest_cut
from engine.history.volumes import Volume
from protocol.commands.backup import BackupInfo
from protocol.commands.cut import CutInfo
from protocol.commands.volume import Gap, HistoryInfo, Interval, VolumeInfo
from protocol.positions import POSITION_MAX, Cut, timeline_text


def volume_info(site: Site, group: Group, volume: Volume) -> VolumeInfo:
    """A volume."""
    created = group.reader.prefix_at(volume.timeline, volume.id)
    writes = group.writes
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


def history_info(site: Site, group: Group, volume: Volume, backups: list[BackupInfo]) -> HistoryInfo:
    """The oldest moment from which on any can be read, the gaps, and those of the volume's `backups` that are
    older."""
    window_s, _ = group.policies.window(group.spans(), group.settings)
    return HistoryInfo(
        oldest=_cut(group, oldest_cut(group, volume)),
        complete_until=time_or_none(site.complete_until_ns(group.name)),
        window_s=window_s,
        gaps=[
            Gap(start=_cut(group, start) if start else None, to=_cut(group, end))
            for start, end in gaps(group)
        ],
        older=older_than(group, volume, backups),
    )


def older_than(group: Group, volume: Volume, backups: list[BackupInfo]) -> list[BackupInfo]:
    """Those of the volume's backups that are older than what can be read at any moment."""
    oldest = oldest_cut(group, volume)
    return [backup for backup in backups if backup.cut.position < oldest.position]


def _cut(group: Group, cut: Cut) -> CutInfo:
    base = base_at(group.timelines, cut)
    return cut_info(cut, base.utc_ns if base else time_of(group, cut))
