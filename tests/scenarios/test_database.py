"""A database on a volume of a pair: the method's figures 4 (take a backup) and 6 (restore the whole volume).

PostgreSQL ── ext4 ── loop ── nbdfuse ── NBD ── site a ── ZeroMQ ── site b
"""

from __future__ import annotations

import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import succeed
from tests.support.pairs import same_at_the_cut, start_pair
from tests.support.postgres import Postgres
from tests.support.sites import Site

MIB = 1 << 20
SIZE_BYTES = 512 * MIB
ROWS = 20_000
SEEN_ROWS = 50


class Inserts:
    """Rows committed one by one, from 1 up, by one connection of a host that does not stop for a backup."""

    def __init__(self, database: Postgres) -> None:
        self.committed = 0
        self.failure: Exception | None = None
        self._database = database
        self._ended = threading.Event()
        self._moved = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Inserts:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        assert self.failure is None, self.failure

    def wait_for_more(self, count: int) -> None:
        """Until `count` more were committed."""
        wanted = self.committed + count
        with self._moved:
            assert self._moved.wait_for(lambda: self.committed >= wanted or self.failure is not None, 60)

    def _run(self) -> None:
        try:
            for number in self._database.repeat("insert into seen values ({number})"):
                with self._moved:
                    self.committed = number
                    self._moved.notify_all()
                if self._ended.is_set():
                    break
        except (OSError, AssertionError) as error:
            self.failure = error


@contextmanager
def database_on(pair: tuple[Site, Site], scratch: Path, tool: Callable[[str], str]) -> Iterator[Postgres]:
    """PostgreSQL with two tables, on volume g/db of a pair; site a has the hook `db` for it."""
    a, b = pair
    point, sockets = scratch / "host" / "mnt", scratch / "host" / "sockets"
    conninfo = f"host={sockets} dbname=postgres user=postgres"
    hook = [sys.executable, "-m", "console.hooks", "postgres", str(point)]
    a.stop()
    with (a.directory / "site.toml").open("a") as config:
        config.write(f"[hooks.db]\nfreeze = {[*hook, 'freeze', '--conninfo', conninfo]}\n")
        config.write(f"thaw = {[*hook, 'thaw']}\nthaw_waits = true\n")
    a.start()
    start_pair(a, b, "g/db", SIZE_BYTES)
    database = Postgres(scratch / "host", a.uri("g/db"), tool)
    try:
        database.create()
        database.sql(f"create table ledger as select n, md5(n::text) from generate_series(1, {ROWS}) n")
        database.sql("create index on ledger (md5)")
        database.sql("create table seen (n int primary key)")
        yield database
    finally:
        database.close()


def image_of(site: Site, export: str, path: Path) -> Path:
    """The export as a file."""
    succeed("nbdcopy", site.uri(export), path)
    return path


def wants_recovery(image: Path, tool: Callable[[str], str]) -> bool:
    """Whether the file system's log has to be replayed."""
    return "needs_recovery" in succeed(tool("dumpe2fs"), "-h", image)


def restore(site: Site, cut: str, database: Postgres) -> dict[str, Any]:
    """The method's figure 6, as one command."""
    around = ("--stop", database.host.stop_command, "--start", database.host.start_command)
    result: dict[str, Any] = site.json("restore", "volume", "g/db", "--at", cut, "--confirm", "g/db", *around)
    return result


@pytest.mark.slow
def test_a_database_is_backed_up_and_turned_back(
    pair: tuple[Site, Site], scratch: Path, tool: Callable[[str], str]
) -> None:
    a, b = pair
    with database_on(pair, scratch, tool) as database:
        # Figure 4, under writes: frozen, marked, thawed; the same at both sites.
        with Inserts(database) as inserts:
            inserts.wait_for_more(SEEN_ROWS)
            least = inserts.committed
            taken = a.json("backup", "create", "g", "--label", "still", "--freeze", "db")
            most = inserts.committed + 1
            a.farshore("backup", "create", "g", "--label", "running")
            inserts.wait_for_more(SEEN_ROWS)
        print(f"frozen for {taken['freeze']['frozen_ms']} ms after {taken['freeze']['freeze_ms']} ms")
        assert taken["consistency"] == "frozen"
        assert taken["state"] == {"a": "available", "b": "available"}
        for site in pair:
            image = image_of(site, "g/db@still", scratch / f"{site.name}.img")
            assert not wants_recovery(image, tool), "a frozen file system has nothing to replay"
            succeed(tool("e2fsck"), "-fn", image)
        succeed("cmp", scratch / "a.img", scratch / "b.img")
        running = image_of(b, "g/db@running", scratch / "running.img")
        assert wants_recovery(running, tool), "one in use has"

        # What happens to databases.
        database.sql("drop table ledger")
        database.sql("update seen set n = -n")
        database.sql("checkpoint")

        # Figure 6.
        done = restore(a, "still", database)
        print(f"turned back in {done['took_ms']} ms")
        assert database.sql("select count(*), sum(n) from ledger") == f"{ROWS}|{ROWS * (ROWS + 1) // 2}"
        kept = int(database.sql("select max(n) from seen"))
        assert least <= kept <= most
        assert database.sql("select count(*) from seen") == str(kept)
        database.check()
        assert a.json("job", "watch", str(done["job"]))["state"] == "done"
        assert a.json("backup", "show", "g", "still")["state"]["a"] == "verified"

        # The way back is the command that was printed.
        words = shlex.split(done["undo"])
        assert words[0] == "farshore"
        a.farshore(*words[1:])
        assert database.sql("select count(*) from pg_tables where tablename = 'ledger'") == "0"
        assert int(database.sql("select max(n) from seen")) < 0

        # Crash-consistent is enough for PostgreSQL, which replays its own log.
        restore(a, "running", database)
        assert database.sql("select count(*) from ledger") == str(ROWS)
        assert least <= int(database.sql("select count(*) from seen"))
        database.check()
        database.host.stop()
    same_at_the_cut(a, b, "g", ("db",))


@pytest.mark.slow
def test_a_stop_that_fails_leaves_everything_alone(site: Site, scratch: Path) -> None:
    site.create_volume("g/v", "4M")
    site.farshore("backup", "create", "g", "--label", "then")
    stopped, started = scratch / "stopped", scratch / "started"
    around = ("--stop", f"touch {stopped}; false", "--start", f"touch {started}")
    head = site.json("volume", "show", "g/v")["head"]
    restore = ("restore", "volume", "g/v", "--confirm", "g/v")
    site.farshore(*restore, "--at", "unknown", *around, exit_code=10)
    assert not stopped.exists(), "what would be refused stops no host"
    said = site.farshore(*restore, "--at", "then", *around, exit_code=1)
    assert "as it was" in said
    assert (stopped.exists(), started.exists()) == (True, False)
    shown = site.json("volume", "show", "g/v")
    assert (shown["head"], shown["online"]) == (head, True)
    said = site.farshore(*restore, "--at", "then", "--start", "exit 7", exit_code=3)
    assert "ended with 7" in said
    assert site.json("volume", "show", "g/v")["online"]
