"""What an operator does with backups once they are taken: pin, delete, prune; and a schedule."""

from __future__ import annotations

from typing import Any

from console.demo.host import Host
from tests.support.oracle import content
from tests.support.pairs import start_pair, wait_until
from tests.support.sites import Site, running_sites

SIZE = 1 << 20
BLOCK = 4096


def write(site: Site, byte: bytes) -> None:
    with Host(site.nbd_socket, "g/v") as host:
        host.write(0, byte * BLOCK)
        host.flush()


def names(site: Site) -> list[str]:
    """Backups oldest first, as this site lists them."""
    found = site.json("backup", "list", "g")["backups"]
    return [str(row["label"] or row["id"]) for row in reversed(found)]


def show(site: Site, name: str, *words: str) -> dict[str, Any]:
    data: dict[str, Any] = site.json("backup", "show", "g", name, *words)
    return data


def test_pin_delete_and_prune_hold_at_both_sites(pair: tuple[Site, Site]) -> None:
    a, b = pair
    start_pair(a, b, "g/v", SIZE)
    for number, label in enumerate(("one", "two", "three")):
        write(a, bytes([65 + number]))
        a.farshore("backup", "create", "g", "--label", label)
    for site, other in ((a, b), (b, a)):
        row = show(site, "one", "--space")
        assert row["state"] == {"a": "available", "b": "available"}, site.name
        assert row["remote_mirror"] == {"from": "a", "to": "b"}
        assert row["local_mirrors"] == [{"from": "g/v", "to": "g/v@one"}]
        assert (row["kind"], row["pinned"], row["held_by"]) == ("mark", False, [])
        assert row["space"] == {"bytes": BLOCK, "unique_bytes": 0, "shared_bytes": BLOCK}, other.name

    a.farshore("backup", "pin", "g", "one")
    a.farshore("wait", "g")
    assert show(b, "one")["pinned"]
    a.farshore("backup", "delete", "g", "one", "--confirm", "one", exit_code=13)
    a.farshore("backup", "delete", "g", "two", exit_code=20)
    b.farshore("backup", "delete", "g", "two", "--confirm", "two", exit_code=13)
    a.farshore("backup", "delete", "g", "two", "--confirm", "two")
    a.farshore("wait", "g")
    assert names(a) == names(b) == ["one", "three"]
    a.farshore("backup", "create", "g", "--label", "two", exit_code=13)

    a.farshore("backup", "create", "g")
    a.farshore("backup", "create", "g")
    before = names(a)
    planned = a.json("backup", "prune", "g", "--keep-last", "1", "--dry-run")
    assert [row["id"] for row in planned["deleted"]] == [before[2]]
    assert [row["why"] for row in planned["left"]] == [["pinned"], ["labelled"]]
    assert names(a) == before
    a.farshore("backup", "prune", "g", "--keep-last", "1", exit_code=20)
    a.farshore("backup", "prune", "g", "--keep-last", "1", "--labelled", "--confirm", "g")
    a.farshore("wait", "g")
    assert names(a) == names(b) == ["one", before[3]]
    a.farshore("backup", "prune", "g", "--dry-run", exit_code=2)
    assert content(b, "g/v@one")[:BLOCK] == b"A" * BLOCK


def test_a_schedule_goes_on_at_the_site_that_takes_the_writing(pair: tuple[Site, Site]) -> None:
    a, b = pair
    start_pair(a, b, "g/v", SIZE)
    write(a, b"A")
    a.farshore("backup", "create", "g", "--label", "by-hand")
    a.farshore("schedule", "set", "g", "--every", "1s", "--keep-last", "3")
    wait_until(lambda: len(names(a)) == 4, 20)
    first = names(a)[1]
    wait_until(lambda: first not in names(a), 20)
    assert names(a)[0] == "by-hand", "a labelled backup is nobody's to prune"
    assert a.json("schedule", "show", "g")["runs_here"]
    assert not b.json("schedule", "show", "g")["runs_here"]

    a.farshore("switchover", "g", "--confirm", "g")
    newest = names(b)[-1]
    wait_until(lambda: names(b)[-1] != newest, 20)
    assert b.json("schedule", "show", "g")["keep"]["last"] == 3
    b.farshore("schedule", "remove", "g")
    assert b.json("schedule", "show", "g")["every_s"] is None


def test_a_window_of_its_own(site: Site) -> None:
    site.create_volume("g/v", str(SIZE))
    assert site.json("schedule", "show", "g")["window_from"] == "site"
    set_ = site.json("schedule", "set", "g", "--window", "2d", "--window-bytes", "10G", "--confirm", "g")
    assert (set_["window_s"], set_["window_bytes"], set_["window_from"]) == (172_800.0, 10 << 30, "group")
    site.farshore("schedule", "set", "g", "--window", "1h", exit_code=20)
    site.farshore("schedule", "set", "g", "--window", "1h", "--confirm", "g")
    history = site.json("volume", "show", "g/v", "--history")["history"]
    assert history["window_s"] == 3600.0
    assert history["gaps"] == history["older"] == []
    assert history["oldest"]["time"]


def test_a_run_that_fails_is_an_event_and_shown() -> None:
    hook = '[hooks.stuck]\nfreeze = ["false"]\nthaw = ["true"]\non_failure = "refuse"\n'
    with running_sites("a", settings=hook) as (site,):
        site.create_volume("g/v", str(SIZE))
        site.farshore("schedule", "set", "g", "--every", "1s", "--freeze", "stuck")
        wait_until(lambda: bool(site.json("schedule", "show", "g")["failure"]), 20)
        assert "schedule.failed" in [event["kind"] for event in site.json("events")["events"]]
        assert names(site) == []
        assert site.stop() == 0


def test_figures_that_make_no_sense_are_refused(site: Site) -> None:
    site.create_volume("g/v", str(SIZE))
    for words in (
        ["--every", "0s"],
        ["--at", "24:00"],
        ["--every", "1h", "--at", "02:00"],
        ["--window", "x"],
    ):
        site.farshore("schedule", "set", "g", *words, exit_code=2)
