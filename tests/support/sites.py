"""Real sites as processes, driven only by what an operator has: the command `farshore`, signals, the logs.

Used by the interop, scenario and crash tests and the benches. Knows nothing of the daemon's inside.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from farshore.children import child_words
from protocol.errors import ExitCode
from tests.support.command_server import DAEMON, ServedProcess, run_command, server_of
from tests.support.reply_lines import check_lines

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
COMMAND_TIMEOUT_S = 120.0
ERROR_LEVELS = frozenset({"error", "critical", "exception"})
# What tests do to a peer or a pair all the time: kill it, part the two, break one.
PROVOKED = frozenset({"peer.silent", "pair.suspended", "pair.diverged"})


class CommandFailed(AssertionError):
    """A `farshore` command ended with another exit code than the test expects."""

    def __init__(self, words: Sequence[str], result: subprocess.CompletedProcess[str]) -> None:
        super().__init__(
            f"{shlex.join(words)} ended with {result.returncode}\n{result.stdout}\n{result.stderr}"
        )
        self.exit_code = result.returncode
        self.stdout = result.stdout
        self.stderr = result.stderr


def farshore_command() -> list[str]:
    """How to call the installed command; FARSHORE_COMMAND says another one to test."""
    if chosen := os.environ.get("FARSHORE_COMMAND"):
        return shlex.split(chosen)
    installed = Path(sys.executable).parent / "farshore"
    if installed.exists():
        return [str(installed)]
    return child_words("console.cli")


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def short_directory() -> Path:
    """A new directory whose path leaves room for a unix socket's 107 bytes."""
    return Path(tempfile.mkdtemp(prefix="fs-", dir="/tmp"))


class Site:
    """One data directory and, while it runs, its daemon.

    `expected_errors` holds events that this test provokes at level error; any other one fails `check_log`.
    """

    # Another version's replies may have fewer fields.
    is_of_this_version = True
    # Whether `command` is this checkout's, so that one that is loaded already may stand for it.
    is_of_this_checkout = True
    # Whether such a one stands for the daemon too: in tests (tests/conftest.py), not in the benches.
    forks_daemons = False

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name
        self.replication_port = free_port()
        self.log_path = directory.parent / f"{name}.log"
        self.stderr_path = directory.parent / f"{name}.stderr"
        self.process: subprocess.Popen[bytes] | ServedProcess | None = None
        self.expected_errors: set[str] = set()
        self._outputs: list[IO[bytes]] = []

    @property
    def nbd_socket(self) -> Path:
        """Where hosts connect."""
        return self.directory / "nbd.sock"

    @property
    def control_socket(self) -> Path:
        """Where the console connects."""
        return self.directory / "control.sock"

    @property
    def state_directory(self) -> Path:
        """Where the daemon keeps what is not the data directory's: its witness. Its own, as its peer may
        be writing while a test puts this one back."""
        return self.directory.parent / f"state-{self.directory.name}"

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        if self.process is None:
            raise RuntimeError(f"site {self.name} is not running")
        return self.process.pid

    def environment(self) -> dict[str, str]:
        """The caller's, less what would lead a command to another site."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("FARSHORE_")}
        home = str(self.directory.parent)
        places = {"HOME": home, "XDG_CONFIG_HOME": home, "STATE_DIRECTORY": str(self.state_directory)}
        return kept | places | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}

    def command(self) -> list[str]:
        """How to call `farshore` for this site."""
        return farshore_command()

    def run(
        self, *words: str, timeout_s: float = COMMAND_TIMEOUT_S, site: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """`farshore WORDS --site DIR`, whatever its exit code. What it prints as JSON must be of its type."""
        words = (*words, *(["--site", str(self.directory)] if site else []))
        if self._is_as_loaded():
            forks = self.forks_daemons
            done = run_command(words, self.environment(), timeout_s, forks_daemons=forks)
        else:
            done = self._run_program(words, timeout_s)
        if "--json" in words and self.is_of_this_version:
            check_lines(done.stdout)
        return done

    def _run_program(self, words: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command(), *words],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def farshore(
        self, *words: str, exit_code: int = 0, timeout_s: float = COMMAND_TIMEOUT_S, site: bool = True
    ) -> str:
        """`run`, expecting `exit_code`; gives standard output, and with another exit code than 0 both."""
        result = self.run(*words, timeout_s=timeout_s, site=site)
        if result.returncode != exit_code:
            raise CommandFailed(words, result)
        return result.stdout if exit_code == 0 else result.stdout + result.stderr

    def json(self, *words: str, timeout_s: float = COMMAND_TIMEOUT_S) -> Any:
        """`data` of the last `--json` line that the command prints."""
        lines = self.farshore(*words, "--json", timeout_s=timeout_s).strip().splitlines()
        return json.loads(lines[-1])["data"]

    def init(self, *options: str) -> None:
        """`farshore site init`, listening for peers on a free port of the loopback."""
        endpoint = f"tcp://127.0.0.1:{self.replication_port}"
        words = ("site", "init", str(self.directory), "--name", self.name, "--replication", endpoint)
        self.farshore(*words, *options, site=False)

    def start(self, *prefix: str, wait: bool = True) -> None:
        """Start the daemon, under `prefix` (strace and its like) if given, and wait until it serves."""
        self._outputs = [self.log_path.open("ab"), self.stderr_path.open("ab")]
        if self.forks_daemons and not prefix and self._is_as_loaded():
            words = ["run", str(self.directory)]
            outputs = [output.fileno() for output in self._outputs]
            self.process = ServedProcess(server_of(DAEMON), words, self.environment(), outputs)
        else:
            self.process = subprocess.Popen(
                [*prefix, *self.command(), "site", "run", str(self.directory)],
                stdin=subprocess.DEVNULL,
                stdout=self._outputs[0],
                stderr=self._outputs[1],
                env=self.environment(),
                start_new_session=True,
            )
        if wait:
            self.wait_until_serving()

    def _is_as_loaded(self) -> bool:
        return self.is_of_this_checkout and "FARSHORE_COMMAND" not in os.environ

    def wait_until_serving(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until both sockets of the daemon take connections."""
        deadline = time.monotonic() + timeout_s
        while not (_takes_connections(self.nbd_socket) and _takes_connections(self.control_socket)):
            if self.process is None or self.process.poll() is not None:
                raise AssertionError(f"site {self.name} ended while starting\n{self.tail()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"site {self.name} does not serve after {timeout_s} s\n{self.tail()}")
            time.sleep(0.005)

    def restart_limited(self, descriptors: int) -> None:
        """Stop the daemon, and start it where it may have so many descriptors."""
        self.stop()
        self.start("prlimit", f"--nofile={descriptors}:{descriptors}")

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """SIGTERM, as a service manager would; the exit code (0 when it did not run)."""
        return self._end(signal.SIGTERM, timeout_s)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def refuses_to_run(self, code: ExitCode, directory: Path | None = None) -> str:
        """`site run`, of this directory or another one, ends at once with `code`, one error and no traceback;
        what it said."""
        place = str(directory or self.directory)
        result = self.run("site", "run", place, site=False, timeout_s=30)
        assert result.returncode == code, result.stdout + result.stderr
        assert result.stderr.count("error:") == 1, result.stderr
        assert "Traceback" not in result.stdout + result.stderr
        return result.stderr

    def _end(self, number: signal.Signals, timeout_s: float = STOP_TIMEOUT_S) -> int:
        if self.process is None:
            return 0
        process, self.process = self.process, None
        if process.poll() is None:
            process.send_signal(number)
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"site {self.name} still runs {timeout_s} s after {number.name}\n{self.tail()}"
            ) from None
        finally:
            _kill_session(process.pid)
            process.wait()
            for output in self._outputs:
                output.close()

    def log(self) -> list[dict[str, Any]]:
        """Every line that the daemon logged of itself, over all its runs: not what its peer told it (their
        `site` is the peer's), nor a line cut by kill -9."""
        found = []
        for line in self.log_path.read_text(errors="replace").splitlines() if self.log_path.exists() else []:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("site", self.name) == self.name:
                found.append(entry)
        return found

    def check_log(self) -> None:
        """Fail if the daemon logged an error that this test does not expect, or a traceback."""
        bad = [
            entry
            for entry in self.log()
            if entry.get("level") in ERROR_LEVELS
            and entry.get("event") not in self.expected_errors | PROVOKED
        ]
        if bad:
            raise AssertionError(f"site {self.name} logged {len(bad)} errors: {bad[:5]}")
        if self.stderr_path.exists() and "Traceback" in (
            text := self.stderr_path.read_text(errors="replace")
        ):
            raise AssertionError(f"site {self.name} wrote a traceback:\n{text[-4000:]}")

    def tail(self, count: int = 20) -> str:
        """The last lines of both outputs, for a failure's message."""
        lines = []
        for path in (self.log_path, self.stderr_path):
            if path.exists():
                lines += path.read_text(errors="replace").splitlines()[-count:]
        return "\n".join(lines)

    def create_volume(self, volume: str, size: str) -> str:
        """`farshore volume create`; gives the URI of its export."""
        self.farshore("volume", "create", volume, "--size", size)
        return self.uri(volume)

    def uri(self, export: str) -> str:
        """The NBD URI of `G/V` or `G/V@CUT`, as `farshore volume uri` says it."""
        return self.farshore("volume", "uri", export).strip()

    def token(self) -> str:
        """What the other site's `farshore peer add` takes."""
        token: str = self.json("site", "token")["token"]
        return token


def _takes_connections(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _kill_session(leader: int) -> None:
    """End what the daemon may have left behind; it is the leader of its own session and process group."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass


def introduce(one: Site, other: Site) -> None:
    """`farshore peer add` at both sides; both must run."""
    one.farshore("peer", "add", other.token())
    other.farshore("peer", "add", one.token())


@contextmanager
def running_sites(*names: str, settings: str = "") -> Iterator[list[Site]]:
    """New sites, initialised and running, in one temporary directory; killed and removed afterwards.

    With two names they know each other. `settings`: lines that each site.toml gets. FARSHORE_KEEP_SITES=1
    leaves the directory for a look.
    """
    parent = short_directory()
    sites = [Site(parent / name, name) for name in names]
    try:
        for site in sites:
            site.init()
            with (site.directory / "site.toml").open("a") as config:
                config.write(settings)
            site.start()
        if len(sites) == 2:
            introduce(*sites)
        yield sites
    finally:
        for site in sites:
            site.kill()
        if not os.environ.get("FARSHORE_KEEP_SITES"):
            shutil.rmtree(parent, ignore_errors=True)
