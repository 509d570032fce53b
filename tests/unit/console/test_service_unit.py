"""`farshore site init --service`: what it refuses before anything is made. What it makes: test_first_jobs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from console import service_unit
from console.commands import site as site_commands
from protocol.errors import ExitCode, UsageError
from tests.unit.console.conftest import Ran

Run = Callable[..., Ran]


def test_a_name_is_the_directory_that_its_unit_runs() -> None:
    assert service_unit.directory_of(Path("lon")) == Path("/var/lib/farshore/lon")
    assert service_unit.directory_of(Path("/var/lib/farshore/lon")) == Path("/var/lib/farshore/lon")
    for elsewhere in ("/srv/lon", "farshore/lon", "..", "/var/lib/farshore/a/lon", "Lon"):
        with pytest.raises(UsageError):
            service_unit.directory_of(Path(elsewhere))


def test_a_machine_without_the_unit_gets_no_site(
    home: Path, farshore: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(*_words: object, **_options: object) -> None:
        raise AssertionError("a site was made")

    monkeypatch.setattr(site_commands, "run_daemon", made)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    ran = farshore("site", "init", "lon", "--service")
    assert ran.code == ExitCode.NOT_ALLOWED
    assert "sudo" in ran.err
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(service_unit, "SYSTEMD_RUNS", home / "nowhere")
    ran = farshore("site", "init", "lon", "--service")
    assert ran.code == ExitCode.NOT_FOUND
    assert "install the Debian package" in ran.err
    monkeypatch.setattr(site_commands, "require_service", lambda: None)
    ran = farshore("site", "init", "lon", "--service", "--name", "par")
    assert ran.code == ExitCode.USAGE
    assert "its unit calls it lon" in ran.err


def test_a_site_is_called_like_its_directory(home: Path, farshore: Run) -> None:
    ran = farshore("site", "init", str(home / "lon"), "--json")
    assert ran.code == 0, ran.err
    assert (ran.json[0]["data"]["site"], ran.json[0]["data"]["unit"]) == ("lon", None)
    ran = farshore("site", "init", str(home / "Lon"))
    assert ran.code == ExitCode.USAGE
    assert not (home / "Lon").exists()
