"""What monitors are told: C51, and that a check which tested nothing is never green."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import convert
from msgspec.structs import asdict, replace

from console.checks import CheckReply, Limits, check_lines, plugin_text, reply_of
from protocol.commands.drill import DrillSummary
from protocol.commands.pair import GroupRow
from tests.unit.console.conftest import Ran
from tests.unit.console.stub_site import BACKUP, DAMAGED, PEER, ROW, STATUS, StubSite
from tests.unit.console.test_drill_commands import DRILL

Run = Callable[..., Ran]
ALL = Limits(lag_s=30.0, backup_age_s=86400.0)


def checked(limits: Limits = ALL, group: str | None = None, **changes: Any) -> CheckReply:
    row = replace(ROW, **changes) if changes else ROW
    return reply_of(check_lines(replace(STATUS, groups=[row]), [], group, limits))


def bad(reply: CheckReply) -> list[str]:
    return [each.check for each in reply.checks if each.state != "OK"]


def test_all_is_well() -> None:
    reply = checked()
    assert (reply.state, reply.exit_code, bad(reply)) == ("OK", 0, [])
    assert [each.check for each in reply.checks] == ["peer", "state", "lag", "backup-age"]


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"state": "suspended by error", "code": "PSUE", "reason": "full"}, "state"),
        ({"state": "diverged", "code": "PSUE"}, "state"),
        ({"reason": "no room for another segment"}, "state"),
        ({"damaged": 2}, "damage"),
        ({"journal_pressure": "full"}, "journal"),
        ({"lag_s": 30.1}, "lag"),
        ({"last_backup": None}, "backup-age"),
        ({"last_backup": replace(BACKUP, time="2026-06-01T00:00:00Z")}, "backup-age"),
        ({"last_backup": replace(BACKUP, state={"lon": "damaged"})}, "backup"),
    ],
)
def test_c51_these_are_critical(changes: dict[str, Any], check: str) -> None:
    reply = checked(**changes)
    assert (reply.exit_code, bad(reply)) == (2, [check])


def test_c51_a_silent_peer_is_critical_unless_all_with_it_is_split() -> None:
    silent = replace(STATUS, peers=[replace(PEER, connected=False, heard_s=None)])
    assert reply_of(check_lines(silent, [], None, Limits())).exit_code == 2
    split = replace(silent, groups=[replace(ROW, state="split", code="PSUS")])
    reply = reply_of(check_lines(split, [], None, Limits()))
    assert (reply.exit_code, bad(reply)) == (1, ["state"])


def test_c51_a_group_that_does_not_open_is_critical() -> None:
    reply = reply_of(check_lines(replace(STATUS, groups=[DAMAGED]), [], None, ALL))
    assert reply.exit_code == 2
    assert "its journal begins nowhere" in plugin_text(reply, "lon")


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "split", "code": "SSUS"},
        {"state": "copying", "code": "COPY"},
        {"state": "journal filling", "code": "PFUL"},
        {"mode": "sync", "fallen_back": True},
        {"journal_pressure": "warning"},
    ],
)
def test_these_are_warnings(changes: dict[str, Any]) -> None:
    assert checked(**changes).exit_code == 1


def test_what_tested_nothing_is_not_green() -> None:
    nothing = reply_of(check_lines(replace(STATUS, groups=[]), [], None, ALL))
    assert (nothing.state, nothing.exit_code) == ("UNKNOWN", 3)
    assert checked(group="other").exit_code == 3
    assert checked(peer=None, mode=None, state="simplex", code="SMPL", lag_s=None).exit_code == 3
    assert checked(lag_s=None).exit_code == 3
    assert reply_of([]).exit_code == 3
    assert checked(Limits(drill_age_s=60.0)).exit_code == 2  # there was none


def test_what_is_dated_ahead_of_the_clock_is_not_young() -> None:
    """After a clock that was ahead went back, it was 0 s old, and green, until the clock came to it."""
    limits = Limits(backup_age_s=60.0, drill_age_s=60.0)
    for ahead, code in (
        ("2026-07-03T01:00:05Z", 0),
        ("2026-07-03T01:00:06Z", 3),
        ("2027-07-03T01:00:00Z", 3),
    ):
        drill = convert(asdict(DRILL) | {"started": ahead}, DrillSummary)
        reply = checked(limits, last_drill=drill, last_backup=replace(BACKUP, time=ahead))
        assert (reply.exit_code, bad(reply)) == (code, ["backup-age", "drill-age"] if code else [])
    assert "is dated 365 d ahead of the clock" in plugin_text(reply, "lon")


@pytest.mark.parametrize(
    ("expires", "state", "said"),
    [
        ("2026-12-31T18:06:00Z", "OK", "in 40 days"),
        ("2026-12-01T18:06:00Z", "WARNING", "in 10 days: `farshore site cert init`"),
        ("2026-11-27T18:06:00Z", "CRITICAL", "in 6 days"),
        ("2026-11-20T18:06:00Z", "CRITICAL", "has ended"),
    ],
)
def test_a_certificate_that_ends_is_said_in_time(expires: str, state: str, said: str) -> None:
    status = replace(STATUS, time="2026-11-21T18:06:00Z", certificate_expires=expires)
    (line,) = [
        each for each in reply_of(check_lines(status, [], None, ALL)).checks if each.check == "certificate"
    ]
    assert (line.state, said in line.text) == (state, True)
    assert not [each for each in check_lines(status, [], "vm1", ALL) if each.check == "certificate"]
    assert not [each for each in check_lines(STATUS, [], None, ALL) if each.check == "certificate"]


def test_a_critical_group_outweighs_an_unknown_one() -> None:
    row: dict[str, Any] = asdict(ROW)
    groups = [GroupRow(**row | {"group": "x", "lag_s": None}), replace(ROW, damaged=1)]
    assert reply_of(check_lines(replace(STATUS, groups=groups), [], None, ALL)).exit_code == 2


def test_plugins_lines_have_figures_and_no_foreign_bars() -> None:
    text = plugin_text(checked(reason="a | b\nc", lag_s=31.0), "lon")
    first, *rest = text.split("\n")
    assert first.startswith("FARSHORE CRITICAL - lon: vm1: paired (PAIR): a / b c; ")
    assert "| 'par peer'=0.2s 'vm1 lag'=31s;;30 " in first
    assert [line.split(" ", 2)[:2] for line in rest] == [["CRITICAL", "state"], ["CRITICAL", "lag"]]


def test_the_command_ends_as_plugins_do(stub: StubSite, home: Path, farshore: Run) -> None:
    site = ("--site", str(home / "lon"))
    ran = farshore("check", "--max-lag", "30s", "--nagios", *site)
    assert (ran.code, ran.out.startswith("FARSHORE OK - lon")) == (0, True), ran
    (line,) = farshore("check", "nope", "--json", *site).json
    assert line["data"]["exit_code"] == 3


@pytest.mark.parametrize("limit", ["--max-lag", "--max-backup-age", "--max-drill-age"])
def test_an_empty_limit_is_refused(stub: StubSite, home: Path, farshore: Run, limit: str) -> None:
    """As of a variable that is not set; the check was green, and had left that out."""
    ran = farshore("check", limit, "", "--nagios", "--site", str(home / "lon"))
    assert (ran.code, ran.out, stub.asked) == (2, "", [])
    assert "is a variable not set?" in ran.err


def test_a_drill_that_failed_is_not_said_to_be_the_only_one() -> None:
    failed = convert(asdict(DRILL) | {"ok": False}, DrillSummary)
    text = plugin_text(checked(Limits(drill_age_s=60.0), last_drill=failed), "lon")
    assert "no drill since the one that failed" in text
    assert "no drill that succeeded" not in text


def test_a_daemon_that_does_not_answer_is_critical(home: Path, farshore: Run) -> None:
    ran = farshore("check", "--site", f"ipc://{home}/nobody.sock")
    assert (ran.code, "CRITICAL" in ran.out) == (2, True), ran
