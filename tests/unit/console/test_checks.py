"""A check's exit code is its verdict; what it leaves running is ended; its variables name every volume."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from console.mounts.checks import run_check, volume_variables
from console.mounts.partition_choice import parse_partitions
from protocol.errors import FarshoreError, NotFound, TimedOut, UsageError


@pytest.mark.parametrize(("code", "ok"), [(0, True), (1, False), (124, False)])
def test_the_exit_code_is_the_verdict(code: int, ok: bool) -> None:
    verdict = run_check('echo "$WORD"; exit ' + str(code), {"WORD": "seen"})
    assert (verdict.ok, verdict.said) == (ok, "seen")


@pytest.mark.parametrize("command", ["exit 125", "exit 126", "/no/such/program", "kill -9 $$"])
def test_a_check_that_could_not_be_carried_out_is_no_verdict(command: str) -> None:
    with pytest.raises(FarshoreError, match="could not be carried out"):
        run_check(command, {})


def test_what_a_check_leaves_is_ended(tmp_path: Path) -> None:
    assert run_check(f"sleep 300 & echo $! > {tmp_path}/pid", {}).ok
    process = int((tmp_path / "pid").read_text())
    status = Path(f"/proc/{process}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()


def test_a_check_that_takes_too_long_is_ended() -> None:
    with pytest.raises(TimedOut, match="not done after"):
        run_check("sleep 300", {}, timeout_s=0.2)


def test_only_the_end_of_much_is_kept() -> None:
    assert len(run_check("seq 100000", {}).said) <= 4096


@pytest.mark.parametrize(
    ("made", "tools"),
    [
        ('>"$f" echo sqlite3 3.40', ("sqlite3 3.40",)),
        ('rm "$f"', ()),
        ('rm "$f"; mkdir "$f"', ()),
        ('rm "$f"; ln -s /etc/passwd "$f"', ()),
        # What holds it open outlives the check, in a session of its own.
        ('rm "$f"; mkfifo "$f"; setsid sleep 5 3<>"$f" &', ()),
    ],
)
def test_whatever_a_check_makes_of_the_file_for_versions(made: str, tools: tuple[str, ...]) -> None:
    verdict = run_check(f"f=$FARSHORE_VERSIONS; {made}", {})
    assert (verdict.ok, verdict.tools) == (True, tools)


def test_variables_name_each_volume_and_the_first() -> None:
    variables = volume_variables({"swap": (None, "/dev/loop1"), "my-data": (Path("/mnt"), "/dev/loop2")})
    assert variables == {
        "FARSHORE_DEVICE_SWAP": "/dev/loop1",
        "FARSHORE_DEVICE": "/dev/loop1",
        "FARSHORE_MOUNT_MY_DATA": "/mnt",
        "FARSHORE_MOUNT": "/mnt",
        "FARSHORE_DEVICE_MY_DATA": "/dev/loop2",
    }
    assert not set(variables) & set(os.environ)


def test_c45_what_is_not_mounted_is_not_looked_for_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARSHORE_MOUNT_DATA", "/")
    assert not run_check('test -d "$FARSHORE_MOUNT_DATA/etc"', {}).ok
    assert not run_check("test -d etc", {}).ok
    assert run_check('test -d "$FARSHORE_MOUNT_DATA/etc"', {"FARSHORE_MOUNT_DATA": "/"}).ok


@pytest.mark.parametrize(
    "words", [["0"], ["x"], ["=1"], ["v="], ["v=-1"], ["1", "2"], ["v=1", "v=1"], ["9999"]]
)
def test_a_choice_of_partitions_that_makes_no_sense_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError, match="--partition"):
        parse_partitions(words)


def test_c46_a_choice_of_partitions_is_for_all_volumes_or_for_one() -> None:
    choice = parse_partitions(["2", "a=3"])
    assert (choice.everywhere, choice.of) == (2, {"a": 3})
    choice.require_volumes(["a", "b"], "g")
    with pytest.raises(NotFound, match="g has b"):
        choice.require_volumes(["b"], "g")
