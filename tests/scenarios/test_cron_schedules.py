"""Cron lines: set, shown at both sites, taken, refused where they are wrong or a peer would not read them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.scenarios.test_mixed_versions import sites as old_and_new
from tests.support.pairs import start_pair, wait_until
from tests.support.sites import Site, running_sites

pytestmark = pytest.mark.scenario
SIZE = 1 << 20
BERLIN = ("--tz", "Europe/Berlin")
EVERY_MINUTE = "* * * * *"


@pytest.fixture
def pair() -> Iterator[tuple[Site, Site]]:
    with running_sites("a", "b") as (a, b):
        start_pair(a, b, "g/v", SIZE)
        yield a, b
        assert (a.stop(), b.stop()) == (0, 0)


def test_a_cron_line_is_set_shown_at_both_sites_and_taken(pair: tuple[Site, Site]) -> None:
    a, b = pair
    set_ = a.json("schedule", "set", "g", "--cron", " 30  2 * * * ", *BERLIN)
    assert (set_["cron"], set_["zone"], set_["every_s"], set_["at"]) == ("30 2 * * *", BERLIN[1], None, None)
    assert len(set_["next_runs"]) == 3
    for run in set_["next_runs"]:
        assert " 02:30:00 +0" in run["local"] or " 03:00:00 +0200" in run["local"]
    a.farshore("wait", "g")
    shown = b.json("schedule", "show", "g")
    assert (shown["cron"], shown["zone"], shown["next_runs"]) == (
        "30 2 * * *", "Europe/Berlin", set_["next_runs"]
    )  # fmt: skip
    assert not shown["runs_here"]
    assert "30 2 * * * Europe/Berlin" in b.farshore("schedule", "list")

    ten = a.json("schedule", "next", "g", "--count", "10")["runs"]
    assert ten[:3] == set_["next_runs"]
    assert len({run["time"] for run in ten}) == 10

    a.farshore("schedule", "set", "g", "--cron", EVERY_MINUTE, *BERLIN)
    wait_until(lambda: len(a.json("backup", "list", "g")["backups"]) == 1, 75)
    (backup,) = a.json("backup", "list", "g")["backups"]
    taken = datetime.fromisoformat(backup["time"])
    assert taken.astimezone(UTC).second < 10, "with its minute"
    a.farshore("switchover", "g", "--confirm", "g")
    wait_until(lambda: len(b.json("backup", "list", "g")["backups"]) == 2, 75)
    assert b.json("schedule", "set", "g", "--every", "1h")["cron"] is None
    assert b.json("schedule", "set", "g", "--at", "02:00", *BERLIN)["cron"] == "0 2 * * *"
    assert b.json("schedule", "remove", "g")["cron"] is None


def test_what_makes_no_sense_is_refused_where_it_is_wrong(pair: tuple[Site, Site]) -> None:
    a, b = pair
    for words, said in (
        (["--cron", "0 0 30 2 *"], "at character 5 of '0 0 30 2 *': the day '30 2 *' never comes"),
        (["--cron", "0 25 * * *"], "at character 3 of '0 25 * * *'"),
        (["--cron", "0 0 * *"], "five fields"),
        (["--cron", "0 2 * * *", "--tz", "Europe/Berln"], "did you mean Europe/Berlin?"),
        (["--cron", "0 2 * * *", "--at", "02:00"], "exclude each other"),
        (["--every", "1h", *BERLIN], "--every goes by no time zone"),
        (BERLIN, "a time zone belongs to a cron line"),
    ):
        assert said in a.farshore("schedule", "set", "g", *words, exit_code=2)
    assert a.json("schedule", "show", "g")["next_runs"] == []
    assert "the runs of what?" in a.farshore("schedule", "next", exit_code=2)
    spring = a.json("schedule", "next", "--cron", "30 2 28 3 *", *BERLIN, "--count", "30")["runs"]
    # In some of those years it is the day on which the clock goes from 02:00 to 03:00.
    hours = {run["local"].split(" ", 1)[1] for run in spring}
    assert hours == {"02:30:00 +0100 CET", "02:30:00 +0200 CEST", "03:00:00 +0200 CEST"}

    assert b.stop() == 0
    assert "does not answer" in a.farshore("schedule", "set", "g", "--cron", EVERY_MINUTE, exit_code=14)
    a.farshore("schedule", "set", "g", "--every", "1h")
    b.start()


sites = old_and_new


@pytest.mark.slow
@pytest.mark.parametrize("sites", ["new writes"], indirect=True)
def test_a_peer_that_reads_no_cron_lines_is_not_sent_one(sites: tuple[Site, Site]) -> None:
    a, b = sites
    start_pair(a, b, "g/v", SIZE)
    said = a.farshore("schedule", "set", "g", "--cron", EVERY_MINUTE, exit_code=14)
    assert "old does not say whether it reads cron lines" in said
    assert "upgrade farshore there first" in said
    a.farshore("schedule", "set", "g", "--at", "02:00")
    a.farshore("wait", "g")
    assert b.json("schedule", "show", "g")["at"] == "02:00"
