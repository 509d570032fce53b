"""The demo's two sites: `farshore site init` and `site run` as child processes, commands by the client.

The children have a session of their own, so that Ctrl-C at the terminal reaches the demo alone, which then
ends them in order.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from console.client import CALL_TIMEOUT_S, Client
from console.host_configs import export_of, uri
from console.local_time import monotonic, pause
from farshore.children import child_words
from protocol.commands.base import BaseCommand, ReplyType
from protocol.commands.pair import WaitFor, WaitReply
from protocol.commands.peer import PeerAdd
from protocol.commands.site import SiteStatus, SiteToken
from protocol.commands.volume import VolumeShow, VolumeUri
from protocol.cut_text import NamedCut
from protocol.endpoints import control_endpoint
from protocol.errors import FarshoreError, TimedOut, Unreachable

GROUP = "vm1"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 90.0
WAIT_TIMEOUT_S = 120.0
WAIT_SLICE_S = 5.0
POLL_S = 0.02
# "/x/nbd.sock" must fit behind the directory in a unix socket's 107 bytes.
DIRECTORY_CHARS_MAX = 90


def farshore_words() -> list[str]:
    """How this very program is called."""
    return child_words("console.cli")


class DemoSite:
    """One site below the demo's directory."""

    def __init__(self, parent: Path, name: str) -> None:
        self.name = name
        self.directory = parent / name
        self.log_path = parent / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._client = Client(control_endpoint(str(self.directory)), directory=str(self.directory))

    @property
    def nbd_socket(self) -> Path:
        """Where hosts connect."""
        return self.directory / "nbd.sock"

    @property
    def pid(self) -> int:
        """The daemon's process id, 0 if it does not run."""
        return self.process.pid if self.process is not None else 0

    def environment(self) -> dict[str, str]:
        """The user's, but nothing of the demo's sites stays outside its directory."""
        parent = self.directory.parent
        places = {"XDG_CONFIG_HOME": str(parent / "config"), "STATE_DIRECTORY": str(parent / "state")}
        return os.environ | places

    def init(self) -> None:
        """`farshore site init`, peers connecting to a free port of the loopback."""
        endpoint = f"tcp://127.0.0.1:{_free_port()}"
        words = ["site", "init", str(self.directory), "--name", self.name, "--replication", endpoint]
        done = subprocess.run(
            [*farshore_words(), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=self.environment(),
            timeout=START_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise FarshoreError(f"site init ended with {done.returncode}: {done.stderr}", subject=self.name)

    def start(self) -> None:
        """`farshore site run`; returns when it answers."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start the daemon; `wait_ready` must follow."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*farshore_words(), "site", "run", str(self.directory)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                start_new_session=True,
            )
        self._client.close()

    def wait_ready(self) -> None:
        """Until the daemon answers. Raises FarshoreError if it ends instead."""
        deadline = monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.call(SiteStatus())
                return
            except Unreachable as error:
                if self.process is None or self.process.poll() is not None:
                    tail = self.log_path.read_text(errors="replace")[-2000:]
                    raise FarshoreError(f"site {self.name} ended while starting: {tail}") from error
                if monotonic() > deadline:
                    raise
            pause(POLL_S)

    def shoot(self) -> None:
        """kill -9, from any thread; `kill` must follow."""
        if self.process is not None:
            self.process.kill()

    def kill(self) -> None:
        """kill -9; twice is fine."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        self._client.close()

    def terminate(self) -> None:
        """SIGTERM; `wait_end` must follow."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)

    def wait_end(self) -> int:
        """The daemon's exit code once it has ended. Raises TimedOut."""
        process = self.process
        if process is None:
            return 0
        try:
            code = process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise TimedOut(
                f"site {self.name} still runs {STOP_TIMEOUT_S:g} s after SIGTERM", subject=self.name
            ) from error
        self.process = None
        self._client.close()
        return code

    def call(self, command: BaseCommand[ReplyType], timeout_s: float = CALL_TIMEOUT_S) -> ReplyType:
        """A command's reply. Raises FarshoreError."""
        return self._client.call(command, timeout_s)

    def close(self) -> None:
        """Drop the connection and leave the daemon as it is."""
        self._client.close()

    def uri(self, volume: str, cut: NamedCut | None = None) -> str:
        """The NBD URI of a volume of the group, live or at a cut."""
        return uri(export_of(self.call(VolumeUri(group=GROUP, volume=volume, cut=cut))))

    def wait_state(self, state: str) -> WaitReply:
        """`farshore wait --state`. Raises TimedOut."""
        return self._wait(lambda slice_s: WaitFor(group=GROUP, state=state, timeout_s=slice_s), state)

    def wait_durable(self) -> WaitReply:
        """`farshore wait`: all written by now is durable at both sites; hosts must be quiet."""
        return self._wait(lambda slice_s: WaitFor(group=GROUP, timeout_s=slice_s), "durable at both sites")

    def _wait(self, build: Callable[[float], WaitFor], what: str) -> WaitReply:
        deadline = monotonic() + WAIT_TIMEOUT_S
        while True:
            data = self.call(build(WAIT_SLICE_S), WAIT_SLICE_S + CALL_TIMEOUT_S)
            if data.reached:
                return data
            if monotonic() > deadline:
                raise TimedOut(f"{GROUP} is not {what}: {data.state}", subject=GROUP)

    def wait_without_hosts(self, volume: str) -> None:
        """Until the daemon saw that every host has closed its connection. Raises TimedOut."""
        deadline = monotonic() + START_TIMEOUT_S
        while self.call(VolumeShow(group=GROUP, volume=volume)).hosts:
            if monotonic() > deadline:
                raise TimedOut(f"{GROUP}/{volume} still has hosts", subject=f"{GROUP}/{volume}")
            pause(POLL_S)


def introduce(one: DemoSite, other: DemoSite) -> str:
    """`farshore peer add` at both; the fingerprint that one has of the other."""
    other.call(PeerAdd(token=one.call(SiteToken()).token))
    return one.call(PeerAdd(token=other.call(SiteToken()).token)).fingerprint


def _free_port() -> int:
    """A TCP port that nobody listens on now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
