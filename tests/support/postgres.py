"""PostgreSQL on a mounted volume, run by Debian's user `postgres`, as a database host has it."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from tests.conftest import missing
from tests.support.clients import ClientFailed
from tests.support.mounting import MountedHost

USER = "postgres"
CALL_TIMEOUT_S = 120.0
# Small: what a test waits for is the disk, not the size of caches.
SETTINGS = {
    "listen_addresses": "''",
    "shared_buffers": "16MB",
    "max_wal_size": "64MB",
    "min_wal_size": "32MB",
}


def find_programs() -> Path:
    """The directory of the newest PostgreSQL's programs; skips (or fails) where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    try:
        pwd.getpwnam(USER)
    except KeyError:
        found = []
    if not found:
        missing("PostgreSQL is not installed: packaging/apt-packages.txt names its package")
    return found[-1].parent


class Postgres:
    """One cluster in `data`, on the host's file system; reached by a socket beside it, not on the volume."""

    def __init__(self, directory: Path, uri: str, tool: Callable[[str], str]) -> None:
        self._programs = find_programs()
        self._sockets = directory / "sockets"
        self._log = self._sockets / "log"
        directory.mkdir(exist_ok=True)
        self._sockets.mkdir(exist_ok=True)
        account = pwd.getpwnam(USER)
        os.chown(self._sockets, account.pw_uid, account.pw_gid)
        self.data = directory / "mnt" / "data"
        control = f"{tool('setpriv')} --reuid={USER} --regid={account.pw_gid} --clear-groups"
        control += f" {self._programs}/pg_ctl --pgdata={self.data} --wait --timeout=60"
        # It removes its lock file while it still stands in `data`, which keeps that from being unmounted.
        gone = "timeout 60 tail --pid=$server --sleep-interval=0.05 --follow /dev/null"
        lock = f"{self.data}/postmaster.pid"
        self.host = MountedHost(
            directory,
            uri,
            tool,
            # A cut of a running server holds its lock file; on what was just mounted nobody can run.
            after_mount=f"rm -f {lock}\n"
            f"[ ! -e {self.data}/PG_VERSION ] || {control} --log={self._log} start </dev/null",
            before_umount=f"if [ -e {lock} ]; then\n"
            f"read -r server <{lock}\n{control} --mode=fast stop\n{gone}\nfi",
        )

    @property
    def conninfo(self) -> str:
        """How clients reach it."""
        return f"host={self._sockets} dbname=postgres user={USER}"

    def create(self, *options: str) -> None:
        """A file system, a cluster on it (made with more options of initdb), and the server started."""
        self.host.make_file_system()
        self.data.mkdir()
        account = pwd.getpwnam(USER)
        os.chown(self.data, account.pw_uid, account.pw_gid)
        self._run("initdb", f"--pgdata={self.data}", "--auth=trust", "--no-sync", "--encoding=UTF8", *options)
        settings = SETTINGS | {"unix_socket_directories": f"'{self._sockets}'"}
        with (self.data / "postgresql.conf").open("a") as config:
            config.writelines(f"{name} = {value}\n" for name, value in settings.items())
        self._run("initdb", f"--pgdata={self.data}", "--sync-only")
        self.host.stop()
        self.host.start()

    def sql(self, statement: str) -> str:
        """What psql prints for a statement, without headings."""
        return self._run(
            "psql", self.conninfo, "--no-psqlrc", "--tuples-only", "--no-align", "--quiet",
            "--set=ON_ERROR_STOP=1", f"--command={statement}",
        ).strip()  # fmt: skip

    def repeat(self, statement: str) -> Iterator[int]:
        """Carry a statement out again and again over one connection, with 1, 2, … for `{number}`; each
        number once the server has answered."""
        account = pwd.getpwnam(USER)
        words = [str(self._programs / "psql"), self.conninfo, "--no-psqlrc", "--quiet", "--tuples-only"]
        words += ["--no-align", "--set=ON_ERROR_STOP=1"]
        with subprocess.Popen(
            words, user=account.pw_uid, group=account.pw_gid, extra_groups=[], text=True, cwd="/",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ) as client:  # fmt: skip
            if client.stdin is None or client.stdout is None:
                raise AssertionError("no pipes to psql")
            for number in count(1):
                client.stdin.write(f"{statement.format(number=number)};\nselect {number};\n")
                client.stdin.flush()
                answer = client.stdout.readline().strip()
                assert answer == str(number), f"psql said {answer!r}"
                yield number

    def check(self) -> None:
        """Fail unless pg_amcheck finds every table and index sound."""
        self.sql("create extension if not exists amcheck")
        options = [f"--host={self._sockets}", f"--username={USER}", "--heapallindexed", "--parent-check"]
        said = self._run("pg_amcheck", *options, "postgres")
        assert not said.strip(), said

    def log(self) -> str:
        """The server's own log."""
        return self._log.read_text()

    def stop_server(self) -> None:
        """End the server; its files stay mounted."""
        self._run("pg_ctl", f"--pgdata={self.data}", "--mode=fast", "--wait", "stop")

    def close(self) -> None:
        """End the server and take its disk away."""
        if (self.data / "postmaster.pid").exists():
            self._try("pg_ctl", f"--pgdata={self.data}", "--mode=immediate", "--wait", "stop")
        self.host.close()

    def _run(self, program: str, *words: str) -> str:
        ended = self._try(program, *words)
        if ended.returncode != 0:
            raise ClientFailed(f"{program} ended with {ended.returncode}\n{ended.stdout}\n{ended.stderr}")
        return ended.stdout

    def _try(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        account = pwd.getpwnam(USER)
        return subprocess.run(
            [str(self._programs / program), *words], user=account.pw_uid, group=account.pw_gid,
            extra_groups=[], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd="/",
            timeout=CALL_TIMEOUT_S, check=False,
        )  # fmt: skip
