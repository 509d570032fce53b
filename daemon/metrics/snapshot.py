"""What a scrape is made of: every figure of `farshore status`, and those that only a machine looks at."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import Callable

from daemon.alerts.conditions import Condition
from daemon.alerts.figures import backup_age_s, certificate_left_days, drill_age_s
from daemon.metrics.snapshot_rows import (
    GroupFigures,
    HistogramRow,
    NotifyFigures,
    Snapshot,
    Standing,
    VolumeRow,
)
from daemon.operations.group_row import damaged_row, group_info
from daemon.operations.peer import peers
from daemon.operations.shapes import extended
from daemon.site import Site
from engine.group.compartment import attempt
from engine.group.group import Group
from protocol.commands.pair import GroupRow
from site_primary.nbd.latency import Histogram

GROUPS_A_SLICE = 10


async def take(site: Site, standing: Callable[[], list[Condition]]) -> Snapshot:
    """One; the loop does other work between the slices."""
    groups: list[GroupFigures] = []
    for number, name in enumerate(sorted({*site.groups, *site.damaged})):
        if number % GROUPS_A_SLICE == GROUPS_A_SLICE - 1:
            await asyncio.sleep(0)
        attempt("metrics.defect", _append, groups, site, name)
    return Snapshot(
        site=site.config.name,
        version=importlib.metadata.version("farshore"),
        peers=peers(site),
        groups=groups,
        standing=[Standing(kind=c.kind, group=c.group, object=c.subject) for c in standing()],
        notifications=[
            NotifyFigures(
                name=each.name,
                sent=each.sent,
                dropped=each.dropped,
                queued=each.queued,
                failing=bool(each.error),
            )
            for each in site.relay.reports.values()
        ],
        events={str(level): count for level, count in site.events.counts.items()},
        events_lost=site.relay.lost,
        certificate_left_days=certificate_left_days(site),
    )


def _append(groups: list[GroupFigures], site: Site, name: str) -> None:
    groups.append(_group(site, name))


def _group(site: Site, name: str) -> GroupFigures:
    error, group = site.damaged.get(name), site.groups.get(name)
    if group is None:
        message, position = (error.message, error.position) if error else ("it is gone", "")
        return GroupFigures(row=damaged_row(name, message, position))
    shipper, receiver = site.shippers.get(name), site.receivers.get(name)
    end = shipper or receiver
    now_ns = site.clock.utc_ns()
    drill = site.drills.last(name, now_ns)
    return GroupFigures(
        row=extended(GroupRow, group_info(site, group)),
        peer_connected=bool(end and end.connected),
        sent_bytes=shipper.sent_bytes if shipper else None,
        received_bytes=receiver.received_bytes if receiver else None,
        backup_age_s=backup_age_s(group, now_ns),
        backups=group.copies.count(group.spans()),
        drill_age_s=drill_age_s(drill, now_ns),
        drill_ok=drill.ok if drill else None,
        free_bytes=group.disk.free_bytes(),
        checkpoint_running=group.checkpoints.running,
        checkpoint_failures=group.checkpoints.failures,
        reclaim_running=group.reclaim.running,
        reclaim_failures=group.reclaim.failures,
        volumes=_volumes(site, group),
    )


def _volumes(site: Site, group: Group) -> list[VolumeRow]:
    found = []
    for name, volume in sorted(group.volumes.at(group.spans()).items()):
        export = site.exports.live.get((group.name, volume.id))
        latency = export.latency if export else None
        kinds = (
            {"served": latency.served, "durable": latency.durable, "peer": latency.peer} if latency else {}
        )
        found.append(
            VolumeRow(
                volume=name,
                size_bytes=volume.size_bytes,
                hosts=len(site.exports.clients(group, volume)),
                latency={kind: _histogram(each) for kind, each in kinds.items()},
            )
        )
    return found


def _histogram(histogram: Histogram) -> HistogramRow:
    return HistogramRow(counts=list(histogram.counts), sum_s=histogram.sum_s)
