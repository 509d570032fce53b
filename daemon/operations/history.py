"""What of a volume's past can be read at this site."""

from __future__ import annotations

from daemon.operations.shapes import cut_info, time_of, time_or_none
from daemon.site import Site
from engine.group.group import Group
from engine.history.bases import base_at
from engine.history.reach import gaps, oldest_cut
from engine.history.volumes import Volume
from protocol.commands.backup import BackupInfo
from protocol.commands.cut import CutInfo
from protocol.commands.volume import Gap, HistoryInfo
from protocol.positions import Cut


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
