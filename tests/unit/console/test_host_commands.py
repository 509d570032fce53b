"""`restore --stop --start` and `backup create --freeze-command` against a stub site: what is run when."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest
from msgspec.structs import replace

from protocol.commands.backup import BackupCreate, BackupShow
from protocol.commands.base import Command, Reply, command_name
from protocol.commands.pair import WaitFor
from protocol.commands.restore import RestoreVolume
from protocol.cut_text import CutLabel, CutPosition
from protocol.errors import Trimmed
from tests.unit.console.conftest import Ran
from tests.unit.console.stub_site import REPLIES, StubSite

Run = Callable[..., Ran]
RESTORE = ("restore", "volume", "vm1/root", "--at", "nightly", "--confirm", "vm1/root")
BACKUP = ("backup", "create", "vm1")


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """Where commands note that they ran."""
    return tmp_path / "done"


def words_of(path: Path) -> list[str]:
    """What was noted."""
    return path.read_text().split() if path.exists() else []


def test_the_host_is_stopped_after_the_plan_and_started_after_the_restore(
    stub: StubSite, farshore: Run, done: Path
) -> None:
    def answer(command: RestoreVolume) -> Reply:
        with done.open("a") as file:
            file.write("plan " if command.dry_run else "restore ")
        return replace(REPLIES["restore.volume"], dry_run=command.dry_run)

    stub.replies["restore.volume"] = answer
    around = ("--stop", f"echo stop >> {done}", "--start", f"echo start >> {done}")
    ran = farshore(*RESTORE, *around, "--site", str(stub.directory))
    assert ran.code == 0
    assert words_of(done) == ["plan", "stop", "plan", "restore", "start"]
    assert f"--stop 'echo stop >> {done}'" in ran.out, "the way back stops and starts too"
    first, *_, last = stub.asked
    assert first == RestoreVolume(
        group="vm1", volume="root", cut=CutLabel(label="nightly"), dry_run=True, start=True
    )
    assert isinstance(last.cut, CutPosition), "what was planned is what is done"
    assert (last.start, last.confirm) == (True, "vm1/root")


def test_a_plan_that_is_refused_stops_nothing(stub: StubSite, farshore: Run, done: Path) -> None:
    def refuse(_: object) -> NoReturn:
        raise Trimmed("folded")

    stub.replies["restore.volume"] = refuse
    ran = farshore(*RESTORE, "--stop", f"echo stop >> {done}", "--site", str(stub.directory))
    assert (ran.code, words_of(done)) == (23, [])


def test_a_stop_or_a_start_that_fails(stub: StubSite, farshore: Run, done: Path) -> None:
    ran = farshore(*RESTORE, "--stop", "exit 4", "--start", f"echo > {done}", "--site", str(stub.directory))
    assert (ran.code, "ended with 4" in ran.err, done.exists()) == (1, True, False)
    assert [command.dry_run for command in stub.asked] == [True]
    ran = farshore(*RESTORE, "--start", "exit 5", "--site", str(stub.directory))
    assert (ran.code, "ended with 5" in ran.err) == (3, True)


def test_a_freeze_of_the_command_line_is_around_the_mark_alone(
    stub: StubSite, farshore: Run, done: Path
) -> None:
    def answer(command: Command) -> Reply:
        with done.open("a") as file:
            file.write(f"{type(command).__name__} ")
        return REPLIES[command_name(command)]

    for name in ("backup.create", "backup.show", "wait"):
        stub.replies[name] = answer
    words = ("--freeze-command", f"echo freeze >> {done}", "--thaw-command", f"echo thaw >> {done}")
    ran = farshore(*BACKUP, *words, "--site", str(stub.directory))
    assert (ran.code, ran.err) == (0, "")
    assert words_of(done) == ["freeze", "BackupCreate", "thaw", "WaitFor", "BackupShow"]
    assert [type(command) for command in stub.asked] == [BackupCreate, WaitFor, BackupShow]
    assert stub.asked[0].frozen
    assert "frozen for" in ran.out
    (scripted,) = farshore(*BACKUP, *words, "--json", "--site", str(stub.directory)).json
    assert scripted["data"].items() >= msgspec.to_builtins(REPLIES["backup.show"]).items()
    assert scripted["data"]["took_ms"] == 4.2
    freeze = scripted["data"]["freeze"]
    assert (freeze["hook"], freeze["failure"], freeze["stuck"]) == ("command-line", "", "")


def test_a_refused_backup_is_thawed(stub: StubSite, farshore: Run, done: Path) -> None:
    def refuse(_: object) -> NoReturn:
        raise Trimmed("no")

    stub.replies["backup.create"] = refuse
    words = ("--freeze-command", f"echo freeze >> {done}", "--thaw-command", f"echo thaw >> {done}")
    assert farshore(*BACKUP, *words, "--site", str(stub.directory)).code == 23
    assert words_of(done) == ["freeze", "thaw"]


@pytest.mark.parametrize(
    "options",
    [
        ("--freeze-command", "true"),
        ("--thaw-command", "true"),
        ("--freeze-command", "true", "--thaw-command", "true", "--freeze", "db"),
        ("--freeze-command", "true", "--thaw-command", "true", "--at", "nightly"),
        ("--freeze-command", "true", "--thaw-command", "true", "--freeze-timeout", "0"),
        ("--freeze-command", "true", "--thaw-command", "true", "--freeze-timeout", "601"),
        ("--freeze", "../x"),
    ],
)
def test_options_that_make_no_sense_ask_nothing(
    stub: StubSite, farshore: Run, options: tuple[str, ...]
) -> None:
    assert farshore(*BACKUP, *options, "--site", str(stub.directory)).code == 2
    assert stub.asked == []
