"""An auditor asks for proof that last night's backup restores: drills, what they prove, and signed reports
of them."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing
from tests.support.boot_disk import boot_disk
from tests.support.clients import MIB, succeed
from tests.support.pairs import start_pair
from tests.support.receivers import until
from tests.support.sites import Site, farshore_command, running_sites

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


@pytest.fixture(scope="module")
def sites(tool: Callable[[str], str]) -> Iterator[tuple[Site, Site]]:
    """A pair; volume `g/v` is an ext4 file system with a SQLite database, group `g` has the backup
    `nightly`."""
    for name in ("nbdfuse", "losetup", "mkfs.ext4", "e2fsck", "sqlite3"):
        tool(name)
    if os.geteuid() != 0 or not Path("/dev/fuse").exists() or not Path("/dev/loop-control").exists():
        missing("mounting needs root, /dev/fuse and loop devices")
    with running_sites("a", "b") as (a, b):
        tree, image = a.directory.parent / "tree", a.directory.parent / "image"
        tree.mkdir()
        tree.chmod(0o755)
        with sqlite3.connect(tree / "orders.db") as database:
            database.execute("create table orders (n integer primary key)")
            database.executemany("insert into orders values (?)", [(number,) for number in range(1000)])
        database.close()
        (tree / "secret").write_text("root's\n")
        (tree / "secret").chmod(0o600)
        with image.open("wb") as file:
            file.truncate(32 * MIB)
        succeed(tool("mkfs.ext4"), "-q", "-d", tree, image)
        start_pair(a, b, "g/v", 32 * MIB)
        succeed(tool("nbdcopy"), image, a.uri("g/v"))
        a.farshore("backup", "create", "g", "--label", "nightly")
        a.farshore("wait", "g")
        yield a, b
        for site in (a, b):
            assert site.stop() == 0
            site.check_log()


def without_site(*words: str) -> subprocess.CompletedProcess[str]:
    """A command on a machine that knows no site."""
    return subprocess.run(
        [*farshore_command(), *words],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "XDG_CONFIG_HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_what_an_auditor_asks_for(sites: tuple[Site, Site], tmp_path: Path) -> None:
    """The page "For an auditor" of docs/operations.md, as it is written."""
    _, b = sites
    page = PAGE.read_text().partition("## For an auditor")[2].partition("\n## ")[0]
    typed = re.findall(r"^(?:rom#|auditor\$) farshore (.*?)(?:; echo .*)?$", page, re.MULTILINE)
    assert len(typed) == 4
    assert "never" in b.farshore("backup", "show", "g", "nightly")
    key = ""
    for line in typed:
        # Of this site's volume; what the page says of PostgreSQL, test_first_jobs.py does.
        line = line.replace("shop", "g").replace("postgresql --as postgres", "sqlite")
        words = line.split()
        words = [
            str(tmp_path / word) if word == "proof.html" else key if word == "KEY" else word for word in words
        ]
        if words[:2] == ["drill", "verify"]:
            ended = without_site(*words)
            assert ended.returncode == 0, ended.stderr
            assert "unchanged, signed by site b" in ended.stdout
            assert "nightly" in ended.stdout
        elif words[:2] == ["drill", "key"]:
            key = b.json("drill", "key")["key"]
            assert key in b.farshore(*words)
        else:
            b.farshore(*words)
    assert (tmp_path / "proof.html").exists()
    shown = b.json("backup", "show", "g", "nightly")["proven"]
    assert [(each["how"], each["ok"], each["site"], each["check"]) for each in shown] == [
        ("drilled", True, "b", "sqlite")
    ]
    assert shown[0]["by"] == "uid:0"
    assert shown[0]["digest"].startswith("sha256:")
    assert "proven" in b.farshore("backup", "show", "g", "nightly")


def drilled(site: Site, *words: str) -> dict[str, Any]:
    result: dict[str, Any] = site.json("drill", "run", "g", "--at", "nightly", *words)
    return result


@pytest.mark.slow
def test_a_report_says_what_was_checked_and_is_bound_to_its_site(
    sites: tuple[Site, Site], tmp_path: Path
) -> None:
    a, b = sites
    ran = drilled(b, "--check-hook", "sqlite")
    proof = ran["proof"]
    assert (proof["hook"], proof["exit_code"], proof["backup"]) == ("sqlite", 0, "nightly")
    assert "orders.db: 1 tables" in proof["output"]
    assert any(line.startswith("sqlite3 3.") for line in proof["tools"])
    assert [each["volume"] for each in proof["digests"]] == ["v"]
    key, other = b.json("drill", "key"), a.json("drill", "key")
    assert key["key"] != other["key"]
    (tmp_path / "fingerprint").write_text(f"by telephone: {key['fingerprint']}\n")
    secret = b.directory / "keys" / "signing"
    assert secret.stat().st_mode & 0o777 == 0o600
    for form in ("text", "json", "html"):
        file = tmp_path / f"report.{form}"
        b.farshore("drill", "report", "g", "--backup", "nightly", "--format", form, "--output", str(file))
        for trusted in (key["key"], str(tmp_path / "fingerprint")):
            assert without_site("drill", "verify", str(file), "--key", trusted).returncode == 0
        assert without_site("drill", "verify", str(file), "--key", other["key"]).returncode == 12
        content = file.read_bytes()
        assert proof["digests"][0]["digest"].encode() in content
        file.write_bytes(content.replace(b"nightly", b"nightlx", 1))
        ended = without_site("drill", "verify", str(file), "--key", key["key"])
        assert ended.returncode == 24, ended.stdout
        assert "next:" in ended.stderr
    # Printed, it is the same as in a file.
    printed = tmp_path / "printed"
    printed.write_text(b.farshore("drill", "report", "g", "--format", "text"))
    assert without_site("drill", "verify", str(printed), "--key", key["key"]).returncode == 0
    refused = b.run("drill", "report", "g", "--backup", "nothing")
    assert refused.returncode == 10
    assert "drill run g --at nothing" in refused.stderr
    # What only the peer ran is not signed here.
    elsewhere = a.run("drill", "report", "g", "--backup", "nightly")
    assert elsewhere.returncode == 10


@pytest.mark.slow
def test_both_sites_know_of_a_drill(sites: tuple[Site, Site]) -> None:
    a, b = sites
    good = drilled(b, "--check-hook", "sqlite")
    until(lambda: good["drill"] in [each["drill"] for each in a.json("drill", "list", "g")["drills"]], 60.0)
    told = a.json("drill", "show", "g", good["drill"])
    assert (told["site"], told["ok"], told["cut"]["text"]) == ("b", True, good["cut"]["text"])
    assert told["proof"]["digest"] == good["proof"]["digest"]
    shown = a.json("backup", "show", "g", "nightly")["proven"]
    assert ("drilled", "b", True) in [(each["how"], each["site"], each["ok"]) for each in shown]
    bad = b.run("drill", "run", "g", "--at", "nightly", "--check", "exit 3", "--json")
    assert bad.returncode == 1
    until(lambda: a.json("drill", "list", "g")["drills"][0]["ok"] is False, 60.0)
    newest = a.json("backup", "show", "g", "nightly")["proven"]
    assert [each["ok"] for each in newest][:2] == [False, True]
    assert "NOT PROVEN" in a.farshore("backup", "show", "g", "nightly")
    assert a.json("status")["groups"][0]["last_drill"]["ok"] is False


@pytest.mark.slow
def test_a_check_as_another_user_has_nothing_of_root(sites: tuple[Site, Site]) -> None:
    _, b = sites
    check = (
        'id -u; id -g; id -G; grep -E "^Cap|^NoNewPrivs" /proc/self/status; '
        'cat "$FARSHORE_MOUNT_V/secret" 2>&1; test -r "$FARSHORE_MOUNT_V/orders.db" && echo sees; '
        "ls /run/farshore/mounts 2>&1; echo secret=${TOP_SECRET-none}; touch mine && echo writes"
    )
    os.environ["TOP_SECRET"] = "x"
    try:
        said = drilled(b, "--as", "nobody", "--check", check)["proof"]["output"].splitlines()
    finally:
        del os.environ["TOP_SECRET"]
    assert said[:3] == ["65534"] * 3
    masks = [line.split()[1] for line in said if line.startswith("Cap")]
    assert masks == ["0" * 16] * 5
    assert "NoNewPrivs: 1" in [" ".join(line.split()) for line in said]
    assert sum("Permission denied" in line for line in said) == 2
    assert {"sees", "writes", "secret=none"} <= set(said)
    for words, code in (
        (("--as", "nobody-here", "--check", "true"), 10),
        (("--as", "root", "--check", "true"), 2),
        (("--as", "nobody", "--check", "true", "--raw"), 2),
        (("--as", "nobody"), 2),
        (("--check-hook", "nothing-such"), 10),
        (("--check-hook", "sqlite", "--check-arg", "gone.db"), 1),
    ):
        ended = b.run("drill", "run", "g", "--at", "nightly", *words)
        assert ended.returncode == code, (words, ended.stderr)
        assert code == 1 or "next:" in ended.stderr


@pytest.mark.slow
def test_what_a_check_starts_ends_with_it(sites: tuple[Site, Site]) -> None:
    """A server has a session of its own, and would hold the clone."""
    _, b = sites
    word = f"31{os.getpid()}"
    drilled(b, "--as", "nobody", "--check", f"setsid sleep {word} >/dev/null 2>&1 & sleep 0.2")
    found = subprocess.run(["pgrep", "-f", f"sleep {word}"], capture_output=True, check=False)
    assert found.returncode == 1, found.stdout
    assert b.json("clone", "list")["clones"] == []


@pytest.mark.slow
def test_a_schedule_has_its_drills_run(sites: tuple[Site, Site]) -> None:
    _, b = sites
    refused = b.run("schedule", "set", "g", "--drill", "weekly")
    assert refused.returncode == 2
    assert "--check-hook NAME" in refused.stderr
    # At the site that follows: what is drilled is each site's own matter.
    b.farshore("schedule", "set", "g", "--drill", "weekly", "--check-hook", "sqlite", "--as", "nobody")
    shown = b.json("schedule", "show", "g")["drill"]
    assert (shown["every_s"], shown["hook"], shown["user"], shown["is_due"]) == (
        604800,
        "sqlite",
        "nobody",
        True,
    )
    assert b.json("drill", "due", "--dry-run")["drills"][0]["drill"] == ""
    # The database is root's, and SQLite has to write beside it: a drill that cannot look is not green.
    result = b.run("drill", "due", "--json")
    assert result.returncode in (0, 1), result.stderr
    after = b.json("drill", "due", "--dry-run")["drills"][0]
    assert after["is_due"] is False
    last = b.json("drill", "show", "g")
    assert (last["proof"]["backup"], last["proof"]["hook"]) == ("nightly", "sqlite")
    assert "every 7 d at b: sqlite as nobody" in b.farshore("schedule", "show", "g")
    b.farshore("schedule", "set", "g", "--drill", "none")
    assert b.json("drill", "due")["drills"] == []


@pytest.mark.slow
def test_a_machine_is_booted_from_its_backup(
    sites: tuple[Site, Site], tmp_path: Path, tool: Callable[[str], str]
) -> None:
    tool("qemu-system-x86_64")
    a, _ = sites
    boot_disk(tmp_path / "disk", b"\r\nvm1 login: ")
    a.create_volume("m/disk", str(MIB))
    succeed(tool("nbdcopy"), tmp_path / "disk", a.uri("m/disk"))
    a.farshore("backup", "create", "m", "--label", "nightly")
    words = [each for word in ("login:", "120", "64", "tcg") for each in ("--check-arg", word)]
    ran = a.json("drill", "run", "m", "--at", "nightly", "--check-hook", "vm-boot", *words)
    assert ran["ok"]
    assert "it said login:" in ran["proof"]["output"]
    assert ran["proof"]["tools"][0].startswith("QEMU emulator")
    assert [step["step"] for step in ran["steps"]] == ["clone", "attach", "check", "digest"]
    refused = a.run("drill", "run", "m", "--at", "nightly", "--check-hook", "vm-boot", "--as", "nobody")
    assert refused.returncode == 2
