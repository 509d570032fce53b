"""The checks that come with Farshore, on data that the real programs wrote: sound, damaged, and none at
all."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from console.mounts.check_hooks import find_hook, hooks
from console.mounts.check_users import check_user
from console.mounts.checks import Verdict, run_check
from protocol.errors import NotAllowed, NotFound, UsageError
from tests.conftest import missing
from tests.support.boot_disk import boot_disk
from tests.support.clients import succeed
from tests.support.receivers import until

pytestmark = [pytest.mark.slow, pytest.mark.interop]


@pytest.fixture
def place() -> Iterator[Path]:
    """What stands for a mounted volume; every user may pass."""
    if os.geteuid() != 0:
        missing("checks as another user need root")
    directory = Path(tempfile.mkdtemp(prefix="fs-", dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def check(name: str, place: Path, *args: str, user: str | None = None, timeout_s: float = 240.0) -> Verdict:
    """The check's verdict on what is there."""
    hook = find_hook(name)
    names = {"FARSHORE_MOUNT": str(place), "FARSHORE_MOUNT_V": str(place)}
    device = {"FARSHORE_DEVICE": str(place), "FARSHORE_DEVICE_V": str(place)}
    who = None if user is None else check_user(user)
    return run_check(hook.command, device if hook.raw else names, timeout_s, args=args, user=who)


@pytest.mark.parametrize(
    ("name", "user"), [("postgresql", "postgres"), ("mysql", None), ("sqlite", None), ("sqlite", "nobody")]
)
def test_where_there_is_nothing_to_test_it_is_not_good(name: str, user: str | None, place: Path) -> None:
    verdict = check(name, place, user=user)
    assert not verdict.ok
    assert "nothing was tested" in verdict.said


def test_sqlite(place: Path, tool: Callable[[str], str]) -> None:
    tool("sqlite3")
    file = place / "app" / "orders.db"
    file.parent.mkdir()
    database = sqlite3.connect(file)
    database.execute("create table orders (n integer primary key, text)")
    database.execute("create index by_text on orders (text)")
    with database:
        database.executemany("insert into orders values (?, ?)", [(n, f"order {n}" * 9) for n in range(4000)])
    database.close()
    verdict = check("sqlite", place)
    assert verdict.ok, verdict.said
    assert "app/orders.db: 1 tables" in verdict.said
    assert verdict.tools[0].startswith("sqlite3 3.")
    assert check("sqlite", place, "app/orders.db", user="nobody").ok
    assert not check("sqlite", place, "app/gone.db").ok
    content = bytearray(file.read_bytes())
    at = len(content) // 2 // 4096 * 4096
    content[at : at + 512] = bytes(512)
    file.write_bytes(content)
    broken = check("sqlite", place)
    assert not broken.ok
    assert "app/orders.db is damaged" in broken.said


def test_postgresql(place: Path) -> None:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        missing("PostgreSQL is not installed")
    data, user = place / "data", check_user("postgres")
    data.mkdir()
    os.chown(data, user.uid, user.gid)

    def run(program: str, *words: str) -> None:
        subprocess.run(
            [programs[-1] / program, *words], user=user.uid, group=user.gid, extra_groups=[], cwd="/",
            stdout=subprocess.DEVNULL, timeout=120, check=True,
        )  # fmt: skip

    run("initdb", f"--pgdata={data}", "--auth=trust", "--no-sync")
    empty = check("postgresql", place, user="postgres")
    assert not empty.ok
    assert "nothing was tested" in empty.said
    sockets = place / "sockets"
    sockets.mkdir()
    os.chown(sockets, user.uid, user.gid)
    options = f"--options=-c unix_socket_directories={sockets} -c listen_addresses="
    run("pg_ctl", "start", "--wait", "--silent", f"--pgdata={data}", f"--log={sockets}/log", options)
    statement = "create table ledger as select n, md5(n::text) from generate_series(1, 20000) n; checkpoint;"
    run("psql", f"--host={sockets}", "--dbname=postgres", "--quiet", f"--command={statement}")
    # As after a crash: the check's server has to recover it.
    run("psql", f"--host={sockets}", "--dbname=postgres", "--quiet", "--command=create index on ledger (md5)")
    run("pg_ctl", "stop", "--wait", "--silent", "--mode=immediate", f"--pgdata={data}")
    verdict = check("postgresql", place, user="postgres")
    assert verdict.ok, verdict.said
    assert "database postgres: 1 tables" in verdict.said
    assert "every row of 1 tables was read" in verdict.said
    assert verdict.tools[0].startswith("postgres (PostgreSQL)")
    # By number, as for files of another machine.
    assert check("postgresql", place, "data", user=f"{user.uid}:{user.gid}").ok
    refused = check("postgresql", place)
    assert not refused.ok
    assert "add --as postgres" in refused.said
    largest = max((data / "base").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    page = 8192
    with largest.open("ab") as grown:
        grown.write(bytes(page))  # as a crash leaves it, which cut a table off while it grew
    verdict = check("postgresql", place, user="postgres")
    assert verdict.ok, verdict.said
    kept = largest.read_bytes()[page : 2 * page]
    for wrong, said in ((bytes(page), "as their pages are zeroes: ledger page 1"), (os.urandom(page), "")):
        with largest.open("r+b") as file:
            file.seek(page)
            file.write(wrong)
        broken = check("postgresql", place, user="postgres")
        assert not broken.ok
        assert said in broken.said
        with largest.open("r+b") as file:
            file.seek(page)
            file.write(kept)


def test_mysql(place: Path, tool: Callable[[str], str]) -> None:
    for name in ("mariadbd", "mariadb-install-db", "mariadb"):
        tool(name)
    data = place / "mysql"
    install = ("mariadb-install-db", "--no-defaults", "--user=root", "--skip-test-db", f"--datadir={data}")
    succeed("timeout", "200", *install)
    empty = check("mysql", place)
    assert not empty.ok
    assert "nothing was tested" in empty.said
    socket = place / "s"
    server = subprocess.Popen(
        ["mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={socket}",
         "--skip-networking", "--skip-grant-tables"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        statement = (
            "create database shop; use shop;"
            "create table shop.orders (n int primary key, t text) engine=aria transactional=1;"
            "insert into shop.orders select seq, md5(seq) from seq_1_to_5000;"
            "create table shop.rows (n int primary key) engine=innodb; insert into shop.rows values (1), (2);"
        )
        until(socket.exists, 120.0)
        words = ("mariadb", "--no-defaults", f"--socket={socket}")
        succeed("timeout", "120", *words, f"--execute={statement}")
    finally:
        server.kill()  # as after a crash
        server.wait(20)
    verdict = check("mysql", place)
    assert verdict.ok, verdict.said
    assert "2 tables are sound" in verdict.said
    assert "MariaDB" in verdict.tools[0]
    table = data / "shop" / "orders.MAD"
    content = bytearray(table.read_bytes())
    content[8192 + 100 : 8192 + 4000] = os.urandom(3900)
    table.write_bytes(content)
    broken = check("mysql", place)
    assert not broken.ok, broken.said


def test_a_machine_that_boots(place: Path, tool: Callable[[str], str]) -> None:
    tool("qemu-system-x86_64")
    disk = place / "disk"
    boot_disk(disk, b"\r\nvm1 login: ")
    verdict = check("vm-boot", disk, "login:", "120", "64", "tcg")
    assert verdict.ok, verdict.said
    assert "it said login:" in verdict.said
    assert verdict.tools[0].startswith("QEMU emulator version")
    silent = check("vm-boot", disk, "never said", "3", "64", "tcg")
    assert not silent.ok
    assert "after 3 s it has not said never said" in silent.said
    assert "vm1 login:" in silent.said
    disk.write_bytes(bytes(1 << 20))
    assert not check("vm-boot", disk, "login:", "3", "64", "tcg").ok


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mysql", ("../../etc",)),
        ("mysql", ("mysql", "--log-error=/etc/cron.d/x")),
        ("mysql", ("mysql", "--init-file=x")),
        ("mysql", ("mysql", "--innodb-data-home-dir=/etc")),
        ("sqlite", ("../../root/x.db",)),
        ("vm-boot", ("login:", "3", "64", "kvm,firmware=x")),
        ("vm-boot", ("login:", "3", "64 -drive x")),
    ],
)
def test_words_do_not_lead_out_of_the_volume(name: str, words: tuple[str, ...], place: Path) -> None:
    """Those of a schedule were given by whoever may command the site, and root runs the check."""
    (place / "mysql").mkdir()
    (place / "mysql" / "ibdata1").touch()
    verdict = check(name, place, *words)
    assert not verdict.ok
    assert any(each in verdict.said for each in ("please", "not an option", "numbers", "kvm or tcg"))


def test_a_check_that_others_could_change_is_not_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = place / "etc" / "checks"
    own.mkdir(parents=True)
    monkeypatch.setattr("console.mounts.check_hooks.OWN", own)
    mine = own / "mine"
    mine.write_text("#!/bin/sh\n# looks\necho $1 $#\n")
    mine.chmod(0o755)
    hook = find_hook("mine")
    assert run_check(hook.command, {}, args=("a b", "c")).said == "a b 2"
    assert ("mine", "looks") in [(each.name, each.says) for each in hooks()]
    assert {"postgresql", "mysql", "sqlite", "vm-boot"} <= {each.name for each in hooks()}
    for path, mode in ((mine, 0o757), (own, 0o777), (own.parent, 0o775)):
        before = path.stat().st_mode & 0o777
        path.chmod(mode)
        with pytest.raises(NotAllowed, match="others than root"):
            find_hook("mine")
        path.chmod(before)
    os.chown(mine, 65534, 65534)
    with pytest.raises(NotAllowed):
        find_hook("mine")
    os.chown(mine, 0, 0)
    mine.chmod(0o644)
    with pytest.raises(UsageError, match="cannot be run"):
        find_hook("mine")
    for name in ("../mine", "/etc/passwd", "mine/"):
        with pytest.raises(UsageError):
            find_hook(name)
    with pytest.raises(NotFound, match="no check nothing"):
        find_hook("nothing")
