"""Standard streams that fail, or are not there: one clear error, and the exit code says what happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from protocol.errors import ExitCode
from tests.unit.console.conftest import COMMAND, ROOT, Ran, start_process
from tests.unit.console.stub_site import ROW, STATUS, StubSite

FULL = Path("/dev/full")


def run_into(full: str, *words: str) -> tuple[int, str]:
    """The command with that stream on a full disk: its exit code, and what the other one said."""
    sink: Any
    with FULL.open("w") as sink, start_process(*words, **{full: sink}) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out if full == "stderr" else err


@pytest.mark.parametrize(
    ("line", "done"),
    [
        ("backup create vm1", True),
        ("backup create vm1 --json", True),
        ("volume list", True),
        ("events --json", True),
        ("--help", False),
    ],
)
def test_a_full_standard_output_is_told_with_what_was_done(line: str, done: bool, stub: StubSite) -> None:
    code, err = run_into("stdout", *line.split(), "--site", str(stub.directory))
    assert code == ExitCode.FAILED
    assert err.startswith("error: standard output: No space left on device")
    assert ("the command was carried out" in err) is done
    assert "\nnext: " in err
    assert "Traceback" not in err
    assert len(stub.asked) == done


@pytest.mark.parametrize("line", ["volume list", "volume list --json"])
def test_an_error_keeps_its_exit_code_where_it_cannot_be_printed(line: str, home: Path) -> None:
    words = (*line.split(), "--site", str(home / "lon"))
    code, err = run_into("stdout", *words)
    assert code == ExitCode.UNREACHABLE
    assert err.startswith("error: no daemon answers")
    code, out = run_into("stderr", *words)
    assert code == ExitCode.UNREACHABLE
    assert ("no daemon answers" in out) is ("--json" in words)


def test_what_standard_error_does_not_take_fails_no_command(stub: StubSite) -> None:
    code, out = run_into("stderr", "journal", "show", "vm1", "--site", str(stub.directory))
    assert code == ExitCode.OK
    assert "8f3a000000000001:0" in out


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_file_that_cannot_be_is_named(
    form: tuple[str, ...], stub: StubSite, farshore: Callable[..., Ran]
) -> None:
    name = "x" * 300
    ran = farshore("mount", "vm1/root@nightly", name, *form, "--site", str(stub.directory))
    assert ran.code == ExitCode.FAILED
    assert f"{name}: File name too long" in ran.out + ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("closed", "line"),
    [
        ("0<&-", "volume list"),
        ("1>&-", "volume list --json"),
        ("1>&-", "backup create vm1"),
        ("2>&-", "nonsense"),
        ("0<&- 1>&- 2>&-", "backup create vm1"),
    ],
)
def test_a_stream_that_is_closed_is_one_that_nobody_reads(closed: str, line: str, stub: StubSite) -> None:
    words = [sys.executable, "-c", COMMAND, *line.split(), "--site", str(stub.directory)]
    ran = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ran.returncode == (ExitCode.USAGE if line == "nonsense" else ExitCode.OK), ran.stderr
    assert "Traceback" not in ran.stderr
    assert bool(ran.stdout) == ("1>" not in closed and line != "nonsense")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_characters_that_standard_output_lacks_are_escaped(encoding: str, stub: StubSite) -> None:
    group = replace(ROW, group="vm\u00e9\u2192\U0001f600")
    stub.replies["site.status"] = replace(STATUS, groups=[group])
    words = ("status", "--site", str(stub.directory))
    environment = {"PYTHONIOENCODING": encoding}
    with start_process(*words, environment=environment, encoding="latin-1") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (ExitCode.OK, "")
    assert "\\u2192" in out
    with start_process(*words, "--json", environment=environment) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (ExitCode.OK, "")
    assert json.loads(out)["data"]["groups"][0]["group"] == group.group


@pytest.mark.parametrize("line", ["volume export vm1/root -", "cat vm1/root@before:/etc/fstab"])
def test_content_that_nobody_would_have_is_not_written(line: str, stub: StubSite) -> None:
    """Its only copy would be in /dev/null, and the exit code would say that all is well."""
    words = [sys.executable, "-c", COMMAND, *line.split(), "--site", str(stub.directory)]
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *words],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == ExitCode.USAGE, done.stderr
    assert "standard output is closed" in done.stderr
