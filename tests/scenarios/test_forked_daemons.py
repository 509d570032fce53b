"""What tests start by forking is a daemon like any other: its own session, its exit code, `kill -9`."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.command_server import ServedProcess
from tests.support.sites import Site


def program_of(site: Site) -> str:
    """Its command line."""
    return Path(f"/proc/{site.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def test_it_ends_as_its_signal_says(site: Site) -> None:
    process = site.process
    assert isinstance(process, ServedProcess)
    assert os.getsid(site.pid) == os.getpgid(site.pid) == site.pid
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.kill()
    assert process.wait(30) == process.poll() == -signal.SIGKILL
    process.kill()  # it has ended: nobody else is meant
    site.kill()
    site.start()
    assert site.stop() == 0


def test_its_environment_is_that_of_its_site(site: Site) -> None:
    """The witness lies where STATE_DIRECTORY says."""
    assert site.state_directory.is_dir()


@pytest.mark.usefixtures("as_installed")
def test_those_of_a_start_are_started_by_the_command(site: Site) -> None:
    assert isinstance(site.process, subprocess.Popen)
    assert program_of(site).rstrip().endswith(f"launch.py daemon run {site.directory}")


def test_what_a_command_has_the_daemon_do_is_the_same_forked(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`site init`: made, and refused where there is one already."""
    place = site.directory.parent
    said: list[tuple[list[str], str, str]] = []
    for name, forks in (("forked", True), ("started", False)):
        monkeypatch.setattr(Site, "forks_daemons", forks)
        words = ("site", "init", str(place / name), "--name", "c", "--json")
        made, again = site.run(*words, site=False), site.run(*words, site=False)
        assert (made.returncode, again.returncode) == (0, 11), again.stdout
        files = sorted(str(path.relative_to(place / name)) for path in (place / name).rglob("*"))
        said.append((files, again.stdout.replace(name, "NAME"), again.stderr.replace(name, "NAME")))
    assert said[0] == said[1]
