"""SIGHUP to a daemon that is still being loaded: it comes up all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from tests.support.sites import START_TIMEOUT_S, farshore_command, running_sites

PAUSE_S = 0.005


def is_daemon(pid: int) -> bool:
    """Whether the command has become the daemon."""
    return b"daemon\0run\0" in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_reload_that_comes_too_early_ends_nothing() -> None:
    with running_sites("a") as (site,):
        assert site.stop() == 0
        with site.log_path.open("wb") as log:
            process = subprocess.Popen(
                [*farshore_command(), "site", "run", str(site.directory)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=site.environment(),
            )
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while b"site.started" not in site.log_path.read_bytes():
                assert process.poll() is None, process.returncode
                assert time.monotonic() < deadline
                if is_daemon(process.pid):
                    os.kill(process.pid, signal.SIGHUP)
                time.sleep(PAUSE_S)
        finally:
            process.terminate()
            assert process.wait(START_TIMEOUT_S) == 0
