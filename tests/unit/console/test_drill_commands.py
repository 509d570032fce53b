"""Drills as they are listed, shown and summed up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from protocol.drill_commands import DrillList
from tests.unit.console.conftest import Ran
from tests.unit.console.stub_site import CUT, GROUP, REPLIES, StubSite

Run = Callable[..., Ran]

DRILL: dict[str, Any] = {
    "drill": "18ea8c66497fc1e5",
    "group": "vm1",
    "site": "lon",
    "volumes": ["root"],
    "cut": CUT,
    "started": "2026-07-02T01:00:00Z",
    "ok": True,
    "recovery_s": 14.2,
    "data_age_s": 0.3,
    "steps": [{"volume": "root", "step": "fsck", "state": "ok", "took_s": 1.5, "said": "root: clean"}],
}
FAILED = {
    **DRILL,
    "drill": "18ea8c66497fc1e4",
    "ok": False,
    "recovery_s": 600.0,
    "started": "2026-07-01T01:00:00Z",
}


def test_drills_are_listed_and_shown(stub: StubSite, farshore: Run) -> None:
    site = ("--site", str(stub.directory))
    stub.replies["drill.list"] = {"drills": [DRILL, FAILED]}
    lines = farshore("drill", "list", "vm1", *site).out.splitlines()
    assert stub.asked == [DrillList(group="vm1", limit=50, after="")]
    assert lines[0].split()[:4] == ["DRILL", "GROUP", "STARTED", "RESULT"]
    assert "failed" in lines[2]
    shown = farshore("drill", "show", "vm1", *site).out
    assert "vm1 recovered at lon in 14 s" in shown
    assert "root: clean" in shown
    assert farshore("drill", "show", "vm1", FAILED["drill"], "--json", *site).json[0]["data"] == FAILED
    assert farshore("drill", "show", "vm1", "00", *site).code == 10


def test_a_report_times_only_what_proved_good(stub: StubSite, farshore: Run) -> None:
    stub.replies["drill.list"] = {"drills": [DRILL, FAILED]}
    report = farshore("drill", "report", "--since", "9000d", "--json", "--site", str(stub.directory)).json[0]
    (row,) = report["data"]["groups"]
    assert (row["group"], row["drills"], row["ok"]) == ("vm1", 2, 1)
    assert (row["recovery_median_s"], row["recovery_max_s"], row["data_age_max_s"]) == (14.2, 14.2, 0.3)
    assert row["last"]["drill"] == DRILL["drill"]


def test_status_shows_the_last_drill(stub: StubSite, farshore: Run) -> None:
    site = ("--site", str(stub.directory))
    for drill, text in ((DRILL, "| drill 24 h ago 14 s"), (FAILED, "| drill 2 d ago failed")):
        group = {**GROUP, "last_drill": drill}
        status = REPLIES["site.status"]
        assert isinstance(status, dict)
        stub.replies["site.status"] = {**status, "groups": [group]}
        assert text in farshore("status", *site).out
