"""Drills as they are listed, shown and summed up."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from protocol.commands.backup import BackupShowReply, ProvenInfo
from protocol.commands.drill import (
    DrillInfo,
    DrillList,
    DrillListReply,
    DrillPlanInfo,
    DrillPlanReply,
    DrillPlans,
    DrillPlanSet,
    DrillSign,
    DrillSummary,
    ReportFormat,
    SignedReport,
    StepInfo,
)
from protocol.drill_report import signed_report
from protocol.drill_report_text import Statement
from protocol.errors import ExitCode
from protocol.signatures import fingerprint_of, key_of
from tests.unit.console.conftest import Ran
from tests.unit.console.stub_site import CUT, REPLIES, ROW, STATUS, StubSite

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


SEED = bytes(32)
KEY = key_of(SEED)
STATEMENT = Statement(
    site="lon",
    site_id="0" * 16,
    made="2026-07-02T02:00:00Z",
    version="0.1.0",
    key=KEY,
    fingerprint=fingerprint_of(KEY),
    drills=[DRILL],
)


@pytest.mark.parametrize(
    ("words", "name", "form"),
    [
        (("--format", "json"), "proof", "json"),
        (("--backup", "nightly"), "proof.html", "html"),
        ((), "proof.txt", "text"),
        (("--format", "text"), "proof.html", "text"),
    ],
)
def test_a_signed_report_is_written_as_it_came_and_verified_without_a_site(
    words: tuple[str, ...], name: str, form: ReportFormat, stub: StubSite, farshore: Run, tmp_path: Path
) -> None:
    document = signed_report(STATEMENT, form, SEED).decode()
    stub.replies["drill.sign"] = SignedReport(
        format=form, document=document, key=KEY, fingerprint=fingerprint_of(KEY), drills=[DRILL.drill]
    )
    file, site = tmp_path / name, ("--site", str(stub.directory))
    ran = farshore("drill", "report", "--group", "vm1", *words, "--output", str(file), *site)
    assert (ran.code, file.read_bytes()) == (0, document.encode())
    assert f"farshore drill verify {file} --key {KEY}" in ran.err
    (asked,) = stub.asked
    assert isinstance(asked, DrillSign)
    backup = "nightly" if "--backup" in words else ""
    assert (asked.group, asked.backup, asked.format) == ("vm1", backup, form)
    assert farshore("drill", "report", "vm1", *words, "--output", str(file), *site).code == 13
    printed = farshore("drill", "report", "vm1", "--format", form, *site).out
    assert printed == document
    verified = farshore("drill", "verify", str(file), "--key", KEY, "--json").json[0]["data"]
    assert (verified["site"], verified["format"], verified["drills"][0]["ok"]) == ("lon", form, True)
    file.write_bytes(document.encode().replace(b"14.2", b"14.3"))
    changed = farshore("drill", "verify", str(file), "--key", KEY)
    assert (changed.code, "not what was signed" in changed.err) == (24, True)
    assert farshore("drill", "verify", str(file), "--key", "neither:key").code == 2
    assert farshore("drill", "verify", str(tmp_path / "gone"), "--key", KEY).code == 10


def test_a_signed_report_needs_words_that_make_sense(stub: StubSite, farshore: Run, tmp_path: Path) -> None:
    site = ("--site", str(stub.directory))
    for words in (
        ("--backup", "nightly"),
        ("vm1", "--format", "pdf"),
        ("vm1", "--group", "vm1"),
        ("vm1", "--output", str(stub.directory / "inside")),
    ):
        stub.replies["drill.sign"] = SignedReport(
            format="text", document="x\n", key=KEY, fingerprint=fingerprint_of(KEY), drills=[]
        )
        assert farshore("drill", "report", *words, *site).code == 2, words


PLAN = DrillPlanInfo(
    group="vm1",
    site="lon",
    every_s=604800,
    hook="sqlite",
    args=["a.db"],
    user="nobody",
    due="2026-07-02T01:00:00Z",
    is_due=True,
    backup="nightly",
)


def test_drills_are_a_part_of_a_schedule(stub: StubSite, farshore: Run) -> None:
    site = ("--site", str(stub.directory))
    stub.replies["drill.plan"] = DrillPlanReply(plans=[PLAN])
    words = ("--drill", "weekly", "--check-hook", "sqlite", "--check-arg", "a.db", "--as", "nobody")
    ran = farshore("schedule", "set", "vm1", *words, *site)
    assert ran.code == 0, ran.err
    assert stub.asked == [
        DrillPlanSet(group="vm1", every_s=604800, hook="sqlite", args=("a.db",), user="nobody")
    ]
    assert "every 7 d at lon: sqlite (a.db) as nobody" in ran.out
    assert "farshore-drill@lon.timer" in ran.err
    assert (
        farshore("schedule", "set", "vm1", "--drill", "weekly", "--check-hook", "none-such", *site).code == 10
    )
    # 0 would mean that it is not drilled any more.
    farshore("schedule", "set", "vm1", "--drill", "0.5s", *site)
    assert stub.asked[-1] == DrillPlanSet(group="vm1", every_s=1)
    # Nothing is set of a command line that is wrong elsewhere.
    asked = len(stub.asked)
    for wrong in (("--every", "1h", "--at", "02:00"), ("--at", "25:00"), ("--every", "1h", "--tz", "UTC")):
        ran = farshore("schedule", "set", "vm1", "--drill", "weekly", *wrong, *site)
        assert (ran.code, len(stub.asked)) == (2, asked)
    stub.replies["drill.plan"] = DrillPlanReply(plans=[])
    assert "not drilled" in farshore("schedule", "set", "vm1", "--drill", "none", *site).out
    stub.replies["drill.plans"] = DrillPlanReply(plans=[PLAN])
    due = farshore("drill", "due", "--dry-run", *site)
    assert (due.code, stub.asked[-1]) == (0, DrillPlans())
    assert "nightly" in due.out


def test_a_backup_says_when_it_was_proven(stub: StubSite, farshore: Run) -> None:
    site = ("--site", str(stub.directory))
    shown = REPLIES["backup.show"]
    assert isinstance(shown, BackupShowReply)
    never = farshore("backup", "show", "vm1", "nightly", *site).out
    assert "proven" in never
    assert "never" in never
    good = ProvenInfo(
        how="drilled",
        ok=True,
        site="par",
        by="uid:0",
        at="2026-07-02T01:00:00Z",
        digest="sha256:ab",
        drill=DRILL.drill,
        check="sqlite",
    )
    bad = replace(good, ok=False, at="2026-07-03T01:00:00Z", digest="")
    stub.replies["backup.show"] = replace(shown, proven=[bad, good])
    lines = farshore("backup", "show", "vm1", "nightly", *site).out.splitlines()
    (first,) = [line for line in lines if line.startswith("NOT PROVEN")]
    (second,) = [line for line in lines if line.startswith("proven")]
    assert "drilled at par" in first
    assert "by uid:0, check sqlite" in second
    assert any("sha256:ab" in line for line in lines)


def test_what_the_machine_refuses_of_one_group_keeps_no_other_from_being_drilled(
    stub: StubSite, farshore: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> object:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x")

    monkeypatch.setattr("console.commands.drill_due.carry_out", full)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    stub.replies["drill.plans"] = DrillPlanReply(plans=[PLAN, replace(PLAN, group="vm2")])
    ran = farshore("drill", "due", "--site", str(stub.directory), "--json")
    assert ran.code == ExitCode.FAILED, ran.err
    rows = ran.json[0]["data"]["drills"]
    assert [(row["group"], row["ok"]) for row in rows] == [("vm1", False), ("vm2", False)]
    assert all("/tmp/x" in row["error"] for row in rows)
