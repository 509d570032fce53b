"""A check's exit code is its verdict; what it leaves running is ended; its variables name every volume."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from console.mounts.checks import run_check, volume_variables
from protocol.errors import FarshoreError, TimedOut


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
