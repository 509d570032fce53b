"""The ready-made check for PostgreSQL through a whole pair: by the schedule, as the user `postgres`, of a
database that ran on. Sound, it is proof that is signed; damaged, it is red, and its report says so."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.test_drill_proof import without_site
from tests.support.mounting import require_mounting
from tests.support.pairs import start_pair
from tests.support.postgres import Postgres
from tests.support.sites import Site

SIZE_BYTES = 512 << 20
ROWS = 20_000
PAGE_BYTES = 8192
CHECK = ("--check-hook", "postgresql", "--as", "postgres")


def fill(database: Postgres) -> None:
    """Its one table, with an index, made anew."""
    database.sql("drop table if exists ledger")
    database.sql(f"create table ledger as select n, md5(n::text) from generate_series(1, {ROWS}) n")
    database.sql("create unique index on ledger (n)")
    database.sql("vacuum ledger")


@pytest.fixture
def database(pair: tuple[Site, Site], scratch: Path, tool: Callable[[str], str]) -> Iterator[Postgres]:
    """One with data checksums, on volume g/db, written at a."""
    require_mounting()
    a, b = pair
    start_pair(a, b, "g/db", SIZE_BYTES)
    made = Postgres(scratch / "host", a.uri("g/db"), tool)
    try:
        made.create("--data-checksums")
        fill(made)
        yield made
    finally:
        made.close()


def backed_up(a: Site, label: str) -> None:
    a.farshore("backup", "create", "g", "--label", label)
    a.farshore("wait", "g")


def spoil(database: Postgres, page: bytes) -> None:
    """Put these bytes in the place of a page in the middle of the table, and leave the server stopped."""
    file = database.data / database.sql("select pg_relation_filepath('ledger')")
    database.stop_server()
    with file.open("r+b") as table:
        pages = os.fstat(table.fileno()).st_size // PAGE_BYTES
        assert pages > 20
        table.seek(pages // 2 * PAGE_BYTES)
        table.write(page)
        os.fsync(table.fileno())
    database.host.stop()


def report_of(b: Site, label: str, file: Path) -> str:
    """The signed report of a backup's drills, verified on a machine that knows no site."""
    b.farshore("drill", "report", "g", "--backup", label, "--format", "text", "--output", str(file))
    ended = without_site("drill", "verify", str(file), "--key", b.json("drill", "key")["key"])
    assert ended.returncode == 0, ended.stderr
    assert "unchanged, signed by site b" in ended.stdout
    return file.read_text()


def last_due(b: Site) -> tuple[int, dict[str, Any]]:
    """What `drill due` ends with, and the drill that it ran."""
    ended = b.run("drill", "due", "--json")
    shown: dict[str, Any] = b.json("drill", "show", "g")
    return ended.returncode, shown


@pytest.mark.slow
def test_a_database_is_drilled_as_its_schedule_says(
    pair: tuple[Site, Site], database: Postgres, tmp_path: Path
) -> None:
    a, b = pair
    backed_up(a, "nightly")  # while the server runs: the check's has to recover
    b.farshore("schedule", "set", "g", "--drill", "weekly", *CHECK)
    code, drill = last_due(b)
    proof = drill["proof"]
    assert (code, drill["ok"]) == (0, True), proof["output"]
    assert (proof["backup"], proof["hook"], proof["exit_code"]) == ("nightly", "postgresql", 0)
    assert proof["user"].startswith("postgres")
    assert "database postgres: 1 tables" in proof["output"]
    assert "every row of 1 tables was read" in proof["output"]
    assert any(line.startswith("postgres (PostgreSQL)") for line in proof["tools"])
    report = report_of(b, "nightly", tmp_path / "nightly")
    assert "every row of 1 tables was read" in report
    # By root PostgreSQL does not run: a check that did not look is not green.
    assert b.run("drill", "run", "g", "--at", "nightly", "--check-hook", "postgresql").returncode == 1

    for label, page, said in (
        ("torn", os.urandom(PAGE_BYTES), "not every row can be read"),
        ("zeroed", bytes(PAGE_BYTES), "as their pages are zeroes: ledger page"),
    ):
        spoil(database, page)
        backed_up(a, label)
        # A week is not waited for: set anew, the first is due at once.
        b.farshore("schedule", "set", "g", "--drill", "none")
        b.farshore("schedule", "set", "g", "--drill", "weekly", *CHECK)
        code, drill = last_due(b)
        assert (code, drill["ok"], drill["proof"]["backup"]) == (1, False, label), drill["proof"]["output"]
        assert said in drill["proof"]["output"]
        report = report_of(b, label, tmp_path / label)
        assert said in report
        assert "FAILED" in report.upper()
        assert [each["ok"] for each in b.json("backup", "show", "g", label)["proven"]] == [False]
        assert "NOT PROVEN" in b.farshore("backup", "show", "g", label)
        database.host.start()
        fill(database)
    assert True in [each["ok"] for each in b.json("backup", "show", "g", "nightly")["proven"]]
