"""Real daemons without the cost of starting Python: forked from the test, driven by the control client.

For tests that begin many. What a daemon is made of is all there (its own process and session, its sockets,
`kill -9`); only the import of its modules is the test's.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from console.client import Client
from daemon.__main__ import main
from daemon.config import SiteConfig
from daemon.data_directory import make_site
from protocol.commands.base import BaseCommand, ReplyType
from protocol.commands.peer import PeerAdd
from protocol.commands.site import SiteToken
from protocol.endpoints import control_endpoint
from tests.support.sites import Site, short_directory

CALL_TIMEOUT_S = 90.0
POLL_S = 0.01


class ForkedProcess:
    """What `Site` needs of a `Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def poll(self) -> int | None:
        """Its exit code, if it has ended."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def send_signal(self, number: int) -> None:
        """Signal it, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        """Until it ends; subprocess.TimeoutExpired."""
        began = time.monotonic()
        while (code := self.poll()) is None:
            if timeout is not None and time.monotonic() - began > timeout:
                raise subprocess.TimeoutExpired("site run", timeout)
            time.sleep(POLL_S)
        return code


class ForkedSite(Site):
    """See the module's docstring."""

    def make(self, settings: str) -> None:
        """As `farshore site init` does."""
        endpoint = f"tcp://127.0.0.1:{self.replication_port}"
        make_site(self.directory, SiteConfig(name=self.name, replication=endpoint))
        with (self.directory / "site.toml").open("a") as config:
            config.write(settings)

    def start(self, *prefix: str, wait: bool = True) -> None:
        """Fork the daemon, and wait until it serves."""
        assert not prefix, "a forked daemon runs under nothing"
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            self._become_daemon()
        self.process = ForkedProcess(pid)  # type: ignore[assignment]
        if wait:
            self.wait_until_serving()

    def _become_daemon(self) -> NoReturn:
        code = 1
        try:
            os.setsid()
            os.environ.update(self.environment())
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            for path, target in ((self.log_path, 1), (self.stderr_path, 2)):
                os.dup2(os.open(path, flags, 0o600), target)
            os.closerange(3, 256)
            sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
            code = main(["run", str(self.directory)])
            sys.stdout.flush()
        finally:
            os._exit(code)

    def call(self, command: BaseCommand[ReplyType]) -> ReplyType:
        """Carry out a command by the control socket; FarshoreError as the operator would get it."""
        client = Client(control_endpoint(str(self.directory)), directory=str(self.directory))
        try:
            return client.call(command, CALL_TIMEOUT_S)
        finally:
            client.close()


@contextmanager
def forked_sites(*names: str, settings: str = "") -> Iterator[list[ForkedSite]]:
    """As `running_sites`."""
    parent: Path = short_directory()
    sites = [ForkedSite(parent / name, name) for name in names]
    try:
        for site in sites:
            site.make(settings)
            site.start()
        for one in sites:
            for other in sites:
                if one is not other:
                    one.call(PeerAdd(token=other.call(SiteToken()).token))
        yield sites
    finally:
        for site in sites:
            site.kill()
        shutil.rmtree(parent, ignore_errors=True)
