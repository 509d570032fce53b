"""A snapshot in Prometheus' terms. A figure that is not known is left out, not 0."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from daemon.metrics.snapshot_rows import GroupFigures, Snapshot
from engine.group.site_state import Role
from engine.peering.pair_states import PairState
from engine.retention.pressure import Stage
from site_primary.nbd.latency import BUCKETS_S

_ROLES = tuple(role.value for role in Role)
_STATES = (*(state.value for state in PairState), "damaged")
# Figures of `status` by their names there.
_ROW_GAUGES = {
    "lag_bytes": "Journal that the peer does not have",
    "lag_s": "How far the site that follows is behind",
    "applied_age_s": "Age of the newest frame held here, at a secondary",
    "resync_left_bytes": "Left of a copy that is under way",
    "resync_eta_s": "Time left of a copy that is under way",
    "journal_bytes": "Size of the journal",
    "time_to_full_s": "Time until the journal is full, at the rate of now",
    "written": "Position that the journal is written to",
    "durable": "Position that the journal is durable to",
    "checkpointed": "Position that the index has",
    "shipped": "Position that was sent to the peer",
    "remote_written": "Position that the peer has written",
    "remote_durable": "Position that is durable at the peer",
    "volumes": "Volumes of the group",
    "damaged": "Places known to be damaged",
}
_STAGES = tuple(stage.value for stage in Stage)
_OWN_GAUGES = {
    "backup_age_s": "Age of the newest backup",
    "backups": "Backups of the group",
    "drill_age_s": "Time since the last drill at this site",
    "drill_ok": "Whether the last drill at this site succeeded",
    "free_bytes": "Free on the group's file system",
    "peer_connected": "Whether both sites go on together",
    "checkpoint_running": "Whether a checkpoint is under way",
    "reclaim_running": "Whether old journal is being removed",
}
_OWN_COUNTERS = {
    "sent_bytes": "Bytes of frames sent to the peer",
    "received_bytes": "Bytes of frames received from the peer",
    "checkpoint_failures": "Checkpoints that failed",
    "reclaim_failures": "Removals of old journal that failed",
}


def metrics_of(snapshot: Snapshot) -> Iterator[Metric]:
    """Every metric of a site."""
    info = InfoMetricFamily("farshore_site", "The site")
    info.add_metric([], {"site": snapshot.site, "version": snapshot.version})
    yield info
    yield from _peers(snapshot)
    yield from _groups(snapshot)
    yield from _volumes(snapshot)
    alerts = GaugeMetricFamily("farshore_alert", "What is wrong now", labels=["kind", "group", "object"])
    for each in snapshot.standing:
        alerts.add_metric([each.kind, each.group, each.object], 1.0)
    yield alerts
    events = CounterMetricFamily("farshore_events", "Events since the start", labels=["level"])
    for level, count in snapshot.events.items():
        events.add_metric([level], count)
    yield events
    yield from _notifications(snapshot)
    left = GaugeMetricFamily(
        "farshore_tls_certificate_left_days", "Until the certificate that hosts on TCP see ends"
    )
    if snapshot.certificate_left_days is not None:
        left.add_metric([], snapshot.certificate_left_days)
    yield left


def _peers(snapshot: Snapshot) -> Iterator[Metric]:
    connected = GaugeMetricFamily("farshore_peer_connected", "Whether a peer is heard", labels=["peer"])
    heard = GaugeMetricFamily("farshore_peer_heard_age_seconds", "Age of its last message", labels=["peer"])
    groups = GaugeMetricFamily("farshore_peer_groups", "Groups paired with it", labels=["peer"])
    rate = GaugeMetricFamily("farshore_peer_rate_bytes", "Limit a second, 0: none", labels=["peer"])
    for peer in snapshot.peers:
        connected.add_metric([peer.peer], float(peer.connected))
        groups.add_metric([peer.peer], len(peer.groups))
        rate.add_metric([peer.peer], peer.rate_bytes_s)
        if peer.heard_s is not None:
            heard.add_metric([peer.peer], peer.heard_s)
    yield from (connected, heard, groups, rate)


def _groups(snapshot: Snapshot) -> Iterator[Metric]:
    yield from _group_states(snapshot)
    for name, text in _ROW_GAUGES.items():
        gauge = GaugeMetricFamily(f"farshore_group_{_unit(name)}", text, labels=["group"])
        for group in snapshot.groups:
            _add(gauge, group, getattr(group.row, name))
        yield gauge
    for name, text in _OWN_GAUGES.items():
        gauge = GaugeMetricFamily(f"farshore_group_{_unit(name)}", text, labels=["group"])
        for group in snapshot.groups:
            _add(gauge, group, getattr(group, name))
        yield gauge
    for name, text in _OWN_COUNTERS.items():
        counter = CounterMetricFamily(f"farshore_group_{_unit(name)}", text, labels=["group"])
        for group in snapshot.groups:
            _add(counter, group, getattr(group, name))
        yield counter


def _group_states(snapshot: Snapshot) -> Iterator[Metric]:
    """One 1 of each set."""
    labels = ["group", "peer", "mode"]
    state = GaugeMetricFamily("farshore_pair_state", "The pair's state: 1", labels=[*labels, "state"])
    role = GaugeMetricFamily("farshore_group_role", "The group's role here: 1", labels=["group", "role"])
    stage = GaugeMetricFamily(
        "farshore_journal_pressure", "The journal's stage: 1", labels=["group", "stage"]
    )
    fallen = GaugeMetricFamily(
        "farshore_pair_fallen_back", "A synchronous mode not in force", labels=["group"]
    )
    for group in snapshot.groups:
        row = group.row
        for each in _STATES:
            state.add_metric([row.group, row.peer or "", row.mode or "", each], float(row.state == each))
        for each in _ROLES:
            role.add_metric([row.group, each], float(row.role == each))
        for each in _STAGES:
            stage.add_metric([row.group, each], float(row.journal_pressure == each))
        fallen.add_metric([row.group], float(row.fallen_back))
    yield from (state, role, stage, fallen)


def _volumes(snapshot: Snapshot) -> Iterator[Metric]:
    labels = ["group", "volume"]
    size = GaugeMetricFamily("farshore_volume_size_bytes", "Size of a volume", labels=labels)
    hosts = GaugeMetricFamily("farshore_volume_hosts", "Connections of hosts", labels=labels)
    latency = HistogramMetricFamily(
        "farshore_host_request_seconds", "How long hosts wait, by what for", labels=[*labels, "kind"]
    )
    for group in snapshot.groups:
        for volume in group.volumes:
            named = [group.row.group, volume.volume]
            size.add_metric(named, volume.size_bytes)
            hosts.add_metric(named, volume.hosts)
            for kind, row in volume.latency.items():
                latency.add_metric([*named, kind], _buckets(row.counts), row.sum_s)
    yield from (size, hosts, latency)


def _notifications(snapshot: Snapshot) -> Iterator[Metric]:
    lost = CounterMetricFamily("farshore_notify_lost", "Events that no notification could be handed")
    lost.add_metric([], snapshot.events_lost)
    yield lost
    sent = CounterMetricFamily("farshore_notify_sent", "Notifications sent", labels=["name"])
    dropped = CounterMetricFamily("farshore_notify_dropped", "Given up, or too many", labels=["name"])
    queued = GaugeMetricFamily("farshore_notify_queued", "Waiting", labels=["name"])
    failing = GaugeMetricFamily("farshore_notify_failing", "Whether the last try failed", labels=["name"])
    for each in snapshot.notifications:
        sent.add_metric([each.name], each.sent)
        dropped.add_metric([each.name], each.dropped)
        queued.add_metric([each.name], each.queued)
        failing.add_metric([each.name], float(each.failing))
    yield from (sent, dropped, queued, failing)


def _buckets(counts: list[int]) -> list[tuple[str, float]]:
    """Summed up, as Prometheus has them."""
    found, total = [], 0
    for end, count in zip((*map(str, BUCKETS_S), "+Inf"), counts, strict=True):
        total += count
        found.append((end, float(total)))
    return found


def _unit(name: str) -> str:
    return f"{name[:-2]}_seconds" if name.endswith("_s") else name


def _add(family: GaugeMetricFamily | CounterMetricFamily, group: GroupFigures, value: float | None) -> None:
    if value is not None:
        family.add_metric([group.row.group], float(value))
