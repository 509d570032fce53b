"""Drills as they are listed, shown and summed up."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from protocol.commands.drill import DrillInfo, DrillList, DrillListReply, DrillSummary, StepInfo
from tests.unit.console.conftest import Ran
from tests.unit.console.stub_site import CUT, ROW, STATUS, StubSite

Run = Callable[..., Ran]

DRILL = DrillInfo(
    drill="18ea8c66497fc1e5",
    group="vm1",
    site="lon",
    volumes=["root"],
    cut=CUT,
    started="2026-07-02T01:00:00Z",
    ok=True,
    recovery_s=14.2,
    data_age_s=0.3,
    steps=[StepInfo(volume="root", step="fsck", state="ok", took_s=1.5, said="root: clean")],
)
FAILED = replace(DRILL, drill="18ea8c66497fc1e4", ok=False, recovery_s=600.0, started="2026-07-01T01:00:00Z")
BOTH = DrillListReply(drills=[DRILL, FAILED])


def test_drills_are_listed_and_shown(stub: StubSite, farshore: Run) -> None:
    site = ("--site", str(stub.directory))
    stub.replies["drill.list"] = BOTH
    lines = farshore("drill", "list", "vm1", *site).out.splitlines()
    assert stub.asked == [DrillList(group="vm1", limit=50, after="")]
    assert lines[0].split()[:4] == ["DRILL", "GROUP", "STARTED", "RESULT"]
    assert "failed" in lines[2]
    shown = farshore("drill", "show", "vm1", *site).out
    assert "vm1 recovered at lon in 14 s" in shown
    assert "root: clean" in shown
    scripted = farshore("drill", "show", "vm1", FAILED.drill, "--json", *site).json[0]
    assert scripted["data"] == msgspec.to_builtins(FAILED)
    assert farshore("drill", "show", "vm1", "00", *site).code == 10


def test_a_report_times_only_what_proved_good(stub: StubSite, farshore: Run) -> None:
    stub.replies["drill.list"] = BOTH
    report = farshore("drill", "report", "--since", "9000d", "--json", "--site", str(stub.directory)).json[0]
    (row,) = report["data"]["groups"]
    assert (row["group"], row["drills"], row["ok"]) == ("vm1", 2, 1)
    assert (row["recovery_median_s"], row["recovery_max_s"], row["data_age_max_s"]) == (14.2, 14.2, 0.3)
    assert row["last"]["drill"] == DRILL.drill


def test_status_shows_the_last_drill(stub: StubSite, farshore: Run) -> None:
    site = ("--site", str(stub.directory))
    for drill, text in ((DRILL, "| drill 24 h ago 14 s"), (FAILED, "| drill 2 d ago failed")):
        summary = msgspec.convert(drill, DrillSummary, from_attributes=True)
        stub.replies["site.status"] = replace(STATUS, groups=[replace(ROW, last_drill=summary)])
        assert text in farshore("status", *site).out
