"""A snapshot in Prometheus' terms; and that the dashboard and the rules name metrics that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from daemon.metrics.exposition import metrics_of
from daemon.metrics.server import _Collected
from daemon.metrics.snapshot_rows import (
    GroupFigures,
    HistogramRow,
    NotifyFigures,
    Snapshot,
    Standing,
    VolumeRow,
    decode_snapshot,
    encode_snapshot,
)
from site_primary.nbd.latency import BUCKETS_S, Histogram
from tests.support.sites import ROOT
from tests.unit.console.stub_site import DAMAGED, PEER, ROW

MONITORING = ROOT / "packaging" / "monitoring"


def snapshot() -> Snapshot:
    served = Histogram()
    served.add(0.00005, 3)
    served.add(99.0, 1)
    row = HistogramRow(counts=served.counts, sum_s=served.sum_s)
    volume = VolumeRow(volume="root", size_bytes=4096, hosts=2, latency={"served": row})
    group = GroupFigures(
        row=ROW, volumes=[volume], checkpoint_failures=2, backup_age_s=900.0, drill_ok=False, sent_bytes=5,
        drill_age_s=7.0, received_bytes=3, free_bytes=1,
    )  # fmt: skip
    return Snapshot(
        site="lon",
        version="1",
        peers=[PEER],
        groups=[group, GroupFigures(row=replace(DAMAGED, group="bad"))],
        standing=[Standing(kind="peer.silent", group="", object="par")],
        notifications=[NotifyFigures(name="mail", sent=4, dropped=1, queued=0, failing=True)],
        events={"info": 3, "warning": 0, "error": 1},
        events_lost=0,
        certificate_left_days=6.5,
    )


def text_of(shot: Snapshot) -> str:
    registry = CollectorRegistry()
    registry.register(_Collected(shot))
    return generate_latest(registry).decode()


@pytest.fixture
def samples() -> Mapping[tuple[str, tuple[tuple[str, str], ...]], float]:
    """By name and labels, as Prometheus reads them, after a way through the pipe."""
    shot = decode_snapshot(encode_snapshot(snapshot()))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text_of(shot))
        for sample in family.samples
    }


def test_every_figure_has_its_metric(samples: Mapping[Any, float]) -> None:
    group = (("group", "vm1"),)
    assert samples["farshore_group_lag_seconds", group] == 0.4
    assert samples["farshore_group_checkpoint_failures_total", group] == 2
    assert samples["farshore_group_backup_age_seconds", group] == 900.0
    assert samples["farshore_alert", (("group", ""), ("kind", "peer.silent"), ("object", "par"))] == 1
    assert samples["farshore_peer_connected", (("peer", "par"),)] == 1
    assert samples["farshore_tls_certificate_left_days", ()] == 6.5
    assert samples["farshore_notify_failing", (("name", "mail"),)] == 1
    state = (("group", "vm1"), ("mode", "async"), ("peer", "par"), ("state", "paired"))
    assert samples["farshore_pair_state", state] == 1


def test_latencies_are_a_histogram(samples: Mapping[Any, float]) -> None:
    about = [("group", "vm1"), ("kind", "served"), ("volume", "root")]
    buckets = {
        dict(labels)["le"]: value
        for (name, labels), value in samples.items()
        if name == "farshore_host_request_seconds_bucket" and set(about) <= set(labels)
    }
    assert len(buckets) == len(BUCKETS_S) + 1
    assert (buckets["0.0001"], buckets["10.0"], buckets["+Inf"]) == (3, 3, 4)
    assert samples["farshore_host_request_seconds_count", tuple(sorted(about))] == 4


def test_what_is_not_known_is_left_out() -> None:
    shot = snapshot()
    row = replace(ROW, lag_s=None, applied_age_s=None)
    text = text_of(replace(shot, groups=[GroupFigures(row=row)], certificate_left_days=None))
    assert "\nfarshore_tls_certificate_left_days" not in text
    assert "farshore_group_lag_seconds{" not in text
    assert "farshore_group_backup_age_seconds{" not in text


def test_dashboard_and_rules_name_what_there_is() -> None:
    names = {sample.name for metric in metrics_of(snapshot()) for sample in metric.samples}
    names |= {"farshore_group_resync_left_bytes"}
    board = json.loads((MONITORING / "farshore-dashboard.json").read_text())
    asked = json.dumps(board) + (MONITORING / "farshore.rules.yml").read_text()
    used = set(re.findall(r"farshore_[a-z_]+(?=[{\[ )=<>,]|\b)", asked)) - {"farshore_"}
    assert used
    assert used <= names, used - names
    assert all(panel["targets"] for panel in board["panels"])
