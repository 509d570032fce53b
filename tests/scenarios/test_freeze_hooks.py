"""Hosts held still for a backup: hooks that work, fail and hang, and whoever should have thawed killed.

The hooks here note in a file what was done, in order; `frozen` exists while hosts are frozen.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import call
from tests.support.pairs import wait_until
from tests.support.sites import Site, farshore_command, running_sites, short_directory

TIMEOUT_S = 2.0

SETTINGS = """
[hooks.good]
freeze = ["{hook}", "freeze"]
thaw = ["{hook}", "thaw"]

[hooks.hangs]
freeze = ["{hook}", "hang"]
thaw = ["{hook}", "thaw"]
timeout_s = {timeout}

[hooks.hangs-lenient]
freeze = ["{hook}", "hang"]
thaw = ["{hook}", "thaw"]
timeout_s = {timeout}
on_failure = "crash-consistent"

[hooks.fails]
freeze = ["{hook}", "fail"]
thaw = ["{hook}", "thaw"]

[hooks.sticks]
freeze = ["{hook}", "freeze"]
thaw = ["false"]

[hooks.slow]
freeze = ["{hook}", "slow"]
thaw = ["{hook}", "thaw"]
timeout_s = 60.0
"""

HOOK = """#!/bin/sh
cd {directory}
echo "$1" "$FARSHORE_GROUP" >> done
case $1 in
    freeze) touch frozen ;;
    thaw) rm -f frozen ;;
    fail) touch frozen; echo "no such database" >&2; exit 7 ;;
    hang) touch frozen; sleep 1000 & wait ;;
    slow) touch frozen; while ! [ -e go ]; do sleep 0.1; done ;;
esac
"""


class Hooked:
    """A site with the hooks above."""

    def __init__(self, site: Site, directory: Path) -> None:
        self.site = site
        self.hook = directory / "hook"
        self._directory = directory

    @property
    def frozen(self) -> bool:
        """Whether hosts are."""
        return (self._directory / "frozen").exists()

    @property
    def done(self) -> list[str]:
        """What the hook was called for, in order."""
        file = self._directory / "done"
        return [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def backups(self) -> int:
        """How many there are."""
        return len(self.site.json("backup", "list", "g")["backups"])

    def forget(self) -> None:
        """Begin anew."""
        for name in ("done", "frozen", "go"):
            (self._directory / name).unlink(missing_ok=True)

    def let_freeze_end(self) -> None:
        """The freeze that waits for this ends, and its guard has seen it."""
        (self._directory / "go").touch()
        wait_until(lambda: call("pgrep", "-f", f"{self.hook} slow").returncode == 1, 60)

    @property
    def notes(self) -> list[str]:
        """Hooks that the data directory notes as frozen."""
        return [path.stem for path in (self.site.directory / "frozen").glob("*.json")]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The site's events of one kind."""
        events = self.site.json("events", "--limit", "1000")["events"]
        return [event for event in events if event["kind"] == kind]


def settings(directory: Path) -> str:
    """The hooks above, working in `directory`."""
    hook = directory / "hook"
    hook.write_text(HOOK.format(directory=directory))
    hook.chmod(0o755)
    return SETTINGS.format(hook=hook, timeout=TIMEOUT_S)


@pytest.fixture(scope="module")
def hooked_site() -> Iterator[Hooked]:
    """One site for all: a test here kills and starts it as it likes."""
    directory = short_directory()
    try:
        with running_sites("a", settings=settings(directory)) as (site,):
            site.create_volume("g/v", "4M")
            yield Hooked(site, directory)
            assert site.stop() == 0
            site.check_log()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def hooked(hooked_site: Hooked) -> Hooked:
    """The site, with nothing frozen and nothing done."""
    hooked_site.forget()
    return hooked_site


def start_backup(site: Site, *options: str) -> subprocess.Popen[bytes]:
    """`backup create g` in the background."""
    words = [*farshore_command(), "backup", "create", "g", *options, "--site", str(site.directory)]
    return subprocess.Popen(words, env=site.environment(), stdin=subprocess.DEVNULL)


def test_a_backup_of_frozen_hosts(hooked: Hooked) -> None:
    taken = hooked.site.json("backup", "create", "g", "--label", "still", "--freeze", "good")
    assert hooked.done == ["freeze", "thaw"]
    assert not hooked.frozen
    assert hooked.notes == []
    assert taken["consistency"] == "frozen"
    assert taken["freeze"]["frozen_ms"] > 0
    assert hooked.site.json("backup", "show", "g", "still")["consistency"] == "frozen"


def test_a_label_that_is_taken_freezes_nothing(hooked: Hooked) -> None:
    hooked.site.farshore("backup", "create", "g", "--label", "one")
    hooked.site.farshore("backup", "create", "g", "--label", "one", "--freeze", "good", exit_code=13)
    hooked.site.farshore("backup", "create", "g", "--at", "one", "--freeze", "good", exit_code=2)
    hooked.site.farshore("backup", "create", "g", "--freeze", "unknown", exit_code=10)
    assert hooked.done == []


def test_a_freeze_that_hangs_is_thawed_and_no_backup_taken(hooked: Hooked) -> None:
    began, before = time.monotonic(), hooked.backups
    said = hooked.site.farshore("backup", "create", "g", "--freeze", "hangs", exit_code=22)
    assert TIMEOUT_S <= time.monotonic() - began < TIMEOUT_S + 20
    assert "did not end in time" in said
    assert hooked.done == ["hang", "thaw"]
    assert not hooked.frozen
    assert hooked.backups == before
    assert [event["object"] for event in hooked.events("hook.failed")][-1:] == ["hangs"]


def test_a_freeze_that_hangs_leaves_a_crash_consistent_backup_where_configured(hooked: Hooked) -> None:
    taken = hooked.site.json("backup", "create", "g", "--freeze", "hangs-lenient")
    assert taken["consistency"] == "crash"
    assert "did not end in time" in taken["freeze"]["failure"]
    assert hooked.done == ["hang", "thaw"]
    assert not hooked.frozen


def test_a_freeze_that_fails_is_thawed_too(hooked: Hooked) -> None:
    said = hooked.site.farshore("backup", "create", "g", "--freeze", "fails", exit_code=20)
    assert "no such database" in said
    assert hooked.done == ["fail", "thaw"]
    assert not hooked.frozen


def test_a_thaw_that_fails_is_an_error_and_tried_again_at_the_next_start(hooked: Hooked) -> None:
    site = hooked.site
    site.expected_errors.add("hook.thaw_failed")
    said = site.farshore("backup", "create", "g", "--freeze", "sticks", exit_code=3)
    assert "false ended with 1" in said
    assert hooked.frozen
    assert hooked.notes == ["sticks"]
    assert [event["level"] for event in hooked.events("hook.thaw_failed")] == ["error"]
    assert "hook sticks: the thaw failed" in site.farshore("check", exit_code=2)
    assert "hook sticks: the thaw failed" in site.farshore("check", "g", exit_code=2)
    assert "hook sticks: the thaw failed" in site.farshore("status")
    assert site.json("status")["stuck_hooks"] == ["sticks"]
    # The note says what is run to thaw, whatever site.toml says by then.
    note = site.directory / "frozen" / "sticks.json"
    note.write_text(note.read_text().replace('"false"', f'"{hooked.hook}","thaw"'))
    site.stop()
    site.start()
    wait_until(lambda: bool(hooked.events("hook.thawed")), 60)
    assert (hooked.notes, hooked.frozen) == ([], False)
    assert [event["object"] for event in hooked.events("hook.thawed")] == ["sticks"]
    assert "sticks" not in site.farshore("check")


@pytest.mark.parametrize("when", ["freezing", "frozen", "stopped"])
def test_a_daemon_that_ends_while_frozen_leaves_nothing_frozen(hooked: Hooked, when: str) -> None:
    site, before = hooked.site, hooked.backups
    backup = start_backup(site, "--freeze", "slow")
    wait_until(lambda: hooked.frozen, 60)
    assert site.json("status")["stuck_hooks"] == [], "its guard is there, and thaws"
    if when == "frozen":
        # Held up, so that no mark and no thaw follow; then the freeze ends as it should.
        site.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
        hooked.let_freeze_end()
    if when == "stopped":
        assert site.stop() == 0
    else:
        site.kill()
    wait_until(lambda: not hooked.frozen and hooked.notes == [], 60)
    assert hooked.done == ["slow", "thaw"]
    backup.kill()
    backup.wait()
    site.start()
    assert hooked.backups == before


def test_a_guard_that_is_killed_with_its_daemon_is_made_good_at_the_next_start(hooked: Hooked) -> None:
    site = hooked.site
    backup = start_backup(site, "--freeze", "slow")
    wait_until(lambda: hooked.frozen and hooked.notes == ["slow"], 60)
    guards = subprocess.run(
        ["pgrep", "-P", str(site.pid), "-f", "site_primary.guard"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(guards) == 1
    site.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
    subprocess.run(["kill", "-9", *guards], check=True)
    site.kill()
    backup.kill()
    backup.wait()
    assert hooked.frozen
    site.start()
    wait_until(lambda: not hooked.frozen and hooked.notes == [], 60)
    assert hooked.done == ["slow", "thaw"]
    # Events outlive the daemon: those of earlier tests are there, too.
    wait_until(lambda: hooked.events("hook.thawed")[-1]["object"] == "slow", 60)


def test_a_request_that_nobody_waits_for_any_more_is_thawed(hooked: Hooked) -> None:
    hooked.site.farshore("backup", "create", "g", "--freeze", "slow", "--timeout", "3", exit_code=22)
    # On a busy machine the freeze may begin only now.
    wait_until(lambda: hooked.done == ["slow", "thaw"], 60)
    wait_until(lambda: not hooked.frozen and hooked.notes == [], 60)


def test_hooks_of_the_command_line(hooked: Hooked) -> None:
    site, hook, before = hooked.site, hooked.hook, hooked.backups
    words = ["--freeze-command", f"{hook} freeze", "--thaw-command", f"{hook} thaw"]
    taken = site.json("backup", "create", "g", "--label", "by-hand", *words)
    assert taken["consistency"] == "frozen"
    assert taken["state"] == {"a": "available"}
    assert hooked.done == ["freeze", "thaw"]
    words[1] = f"{hook} hang"
    site.farshore("backup", "create", "g", *words, "--freeze-timeout", "1", exit_code=22)
    assert hooked.done == ["freeze", "thaw", "hang", "thaw"]
    words[1] = f"{hook} fail"
    site.farshore("backup", "create", "g", *words, exit_code=20)
    assert hooked.done[-2:] == ["fail", "thaw"]
    assert hooked.backups == before + 1
    site.farshore("backup", "create", "g", "--freeze-command", "true", exit_code=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_command_that_ends_while_frozen_is_thawed(hooked: Hooked, number: signal.Signals) -> None:
    words = ["--freeze-command", f"{hooked.hook} slow", "--thaw-command", f"{hooked.hook} thaw"]
    backup = start_backup(hooked.site, *words, "--freeze-timeout", "60")
    wait_until(lambda: hooked.frozen, 60)
    backup.send_signal(number)
    wait_until(lambda: not hooked.frozen, 60)
    assert backup.wait(10) in (-signal.SIGKILL, 130)
    assert hooked.done == ["slow", "thaw"]


def test_a_schedule_freezes_by_its_hook(hooked: Hooked) -> None:
    """The last test here: a run that has begun may go on after the schedule is gone."""
    site = hooked.site
    site.farshore("schedule", "set", "g", "--every", "1s", "--freeze", "unknown", exit_code=10)
    site.farshore("schedule", "set", "g", "--every", "1s", "--freeze", "good")
    wait_until(lambda: hooked.done[:2] == ["freeze", "thaw"], 30)
    site.farshore("schedule", "remove", "g")
    assert any(each["consistency"] == "frozen" for each in site.json("backup", "list", "g")["backups"])
