"""What of a volume's past can be read at this site, as the plain dict that `volume.show` carries."""

from __future__ import annotations

from typing import Any

from daemon.operations.shapes import cut_data, time_of
from daemon.site import Site
from engine.group.group import Group
from engine.history.bases import base_at
from engine.history.reach import gaps, oldest_cut
from engine.history.volumes import Volume
from protocol.cut_text import time_text
from protocol.positions import Cut

Data = dict[str, Any]


def history_data(site: Site, group: Group, volume: Volume) -> Data:
    """The oldest moment from which on any can be read, and the gaps."""
    oldest = oldest_cut(group, volume)
    window_s, _ = group.policies.window(group.spans(), group.settings)
    complete_ns = site.complete_until_ns(group.name)
    return {
        "oldest": _cut(group, oldest),
        "complete_until": time_text(complete_ns) if complete_ns else None,
        "window_s": window_s,
        "gaps": [
            {"from": _cut(group, start) if start else None, "to": _cut(group, end)}
            for start, end in gaps(group)
        ],
    }


def older_rows(group: Group, volume: Volume, backups: list[Data]) -> list[Data]:
    """Those BACKUPs of the volume's that are older than that."""
    oldest = oldest_cut(group, volume)
    return [row for row in backups if row["cut"]["position"] < oldest.position]


def _cut(group: Group, cut: Cut) -> Data:
    base = base_at(group.timelines, cut)
    return cut_data(cut, base.utc_ns if base else time_of(group, cut))
