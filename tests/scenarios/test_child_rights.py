"""C15: what lies in the directory in which the daemon was started is not run, and its children have no more
rights than their work needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from console.demo.host import Host
from farshore.children import child_words
from farshore.launch import PACKAGES
from protocol.errors import ExitCode
from tests.support.sites import running_sites

pytestmark = pytest.mark.usefixtures("as_installed")

CAP_SYS_RESOURCE = 1 << 24
NAMES = ("farshore", *PACKAGES, "msgspec", "zmq")


@pytest.fixture
def trap(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory: whichever of its packages is imported leaves a file."""
    for name in NAMES:
        (scratch / name).mkdir()
        sprung = str(scratch / "sprung")
        text = f"open({sprung!r}, 'a').write({name!r} + chr(10))\nraise ImportError('a trap')\n"
        (scratch / name / "__init__.py").write_text(text)
        (scratch / f"{name}.py").write_text(text)
    monkeypatch.chdir(scratch)
    return scratch / "sprung"


def children(pid: int) -> dict[str, dict[str, str]]:
    """By module that each child runs: the lines of /proc/PID/status."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
        if words[1:3] == child_words("")[1:3]:
            lines = Path(f"/proc/{child}/status").read_text().splitlines()
            status = {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}
            found[words[3]] = status | {"fds": " ".join(sorted(os.listdir(f"/proc/{child}/fd")))}
    return found


def test_the_current_directory_is_not_run(trap: Path) -> None:
    hooks = '[hooks.db]\nfreeze = ["true"]\nthaw = ["true"]\n'
    with running_sites("a", settings=hooks) as (site,):
        site.create_volume("g/v", "16M")
        with Host(site.nbd_socket, "g/v") as host:
            host.write(0, b"w" * 4096)
            host.flush()
        site.farshore("backup", "create", "g", "--freeze", "db")
        words = ("--freeze-command", "true", "--thaw-command", "true")
        site.farshore("backup", "create", "g", *words)
        site.farshore("verify", "g")
        found = children(site.pid)
        assert "engine.index.indexer" in found
        _check_rights(found["engine.index.indexer"])
        assert site.run("ls", "g/v@latest:/").returncode != ExitCode.OK  # it holds no file system
        assert site.stop() == 0
        site.farshore("journal", "show", "--dir", str(site.directory), "g", site=False)
        site.check_log()
    assert not trap.exists(), trap.read_text()


def _check_rights(status: dict[str, str]) -> None:
    assert status["NoNewPrivs"] == "1"
    for name in ("CapEff", "CapPrm"):
        assert int(status[name], 16) & ~CAP_SYS_RESOURCE == 0, status[name]
    assert int(status["CapInh"], 16) == 0
    # Its pipes and the log; then what it opened itself: the index, its lock, segments.
    assert len(status["fds"].split()) < 16


def test_the_trap_springs(trap: Path) -> None:
    """The check above would be worth nothing otherwise."""
    ended = subprocess.run(
        [sys.executable, "-m", "engine.index.indexer", "x"], capture_output=True, check=False
    )
    assert ended.returncode != 0
    assert trap.exists()
