"""Files of a backup back into the volume that a database runs on: the method's figure 5, on two real sites.

PostgreSQL, documents ── ext4 ── /dev/loopN ── nbdfuse ── site a ── site b
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.clients import KIB, MIB
from tests.support.pairs import same_at_the_cut, start_pair
from tests.support.postgres import Postgres
from tests.support.sites import Site

pytestmark = pytest.mark.slow

SIZE_BYTES = 256 * MIB
FLOW_TIMEOUT_S = 240.0


def write_documents(point: Path) -> None:
    """A directory with a file that will change and one that will go."""
    documents = point / "documents"
    documents.mkdir(exist_ok=True)
    (documents / "report").write_text("first" * 1000)
    (documents / "only-then").write_bytes(os.urandom(300 * KIB))


def check_a_failure_is_undone(a: Site, database: Postgres, words: list[str]) -> None:
    """Something that cannot be written, when all is under way: nothing changes, and the hosts run again."""
    documents = database.host.point / "documents"
    (documents / "only-then").mkdir()
    said = a.farshore(*words, exit_code=1, timeout_s=FLOW_TIMEOUT_S)
    assert "/documents/only-then: Is a directory" in said
    assert a.json("pair", "show", "g")["state"] == "paired"
    assert (documents / "report").read_text() == "second"
    assert database.sql("select count(*) from t") == "1500"
    (documents / "only-then").rmdir()


def test_figure_5(pair: tuple[Site, Site], scratch: Path, tool: Callable[[str], str]) -> None:
    a, b = pair
    start_pair(a, b, "g/v", SIZE_BYTES)
    database = Postgres(scratch / "host", a.uri("g/v"), tool)
    host = database.host
    try:
        database.create()
        documents = host.point / "documents"
        write_documents(host.point)
        kept = (documents / "only-then").read_bytes()
        (documents / "report").chmod(0o640)
        os.chown(documents / "report", 1234, 1234)
        os.sync()
        database.sql("create table t as select generate_series(1, 1000) as n")
        # Taken while all of it runs: the file system's log is played back before its files are read.
        a.farshore("backup", "create", "g", "--label", "before")
        (documents / "report").write_text("second")
        (documents / "only-then").unlink()
        (documents / "later").write_text("stays")
        database.sql("insert into t select generate_series(1001, 1500)")
        a.farshore("wait", "g", "--timeout", "60")

        words = ["restore", "files", "g/v", "--at", "before", "/documents", "--into-volume"]
        around = ["--stop", host.stop_command, "--start", host.start_command]
        plan = a.json(*words, *around, "--dry-run")
        assert [step["where"] for step in plan["steps"]] == [
            "this machine", "a", "a", "b", "this machine", "b", "a", "a", "this machine",
        ]  # fmt: skip
        a.farshore(*words, *around, exit_code=20)
        # A host that stays: nothing happens.
        said = a.farshore(*words, "--confirm", "g/v", exit_code=11)
        assert "connected" in said
        assert a.json("pair", "show", "g")["state"] == "paired"
        assert a.json("volume", "show", "g/v")["online"]
        assert (documents / "report").read_text() == "second"

        check_a_failure_is_undone(a, database, [*words, *around, "--confirm", "g/v"])

        done = a.json(*words, *around, "--confirm", "g/v", timeout_s=FLOW_TIMEOUT_S)
        assert (done["files"], done["checked_files"], done["missed"]) == (2, 2, [])
        assert (documents / "report").read_text() == "first" * 1000
        status = (documents / "report").stat()
        assert (status.st_mode & 0o7777, status.st_uid) == (0o640, 1234)
        assert (documents / "only-then").read_bytes() == kept
        assert (documents / "later").read_text() == "stays"
        assert database.sql("select count(*), max(n) from t") == "1500|1500"
        database.check()

        # Only what the files changed came back from b.
        fetched = int(b.json("pair", "show", "g")["head"]["position"]) - int(done["head"]["position"])
        print(f"came back from b: {fetched} bytes of journal; took {done['took_ms']:.0f} ms")
        shown = a.json("pair", "show", "g")
        assert (shown["role"], shown["state"]) == ("primary", "paired")
        host.stop()
        same_at_the_cut(a, b, "g", ("v",))

        # And undone: what was discarded is there again.
        a.farshore(*done["undo"].split()[1:], "--online")
        host.start()
        assert (documents / "report").read_text() == "second"
        assert not (documents / "only-then").exists()
        assert database.sql("select count(*) from t") == "1500"
    finally:
        database.close()
        shutil.rmtree(scratch / "host", ignore_errors=True)
