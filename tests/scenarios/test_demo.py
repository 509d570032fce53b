"""`farshore demo`: the main job with others' programs as judges, what it leaves behind, how it fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.reply_lines import check_lines
from tests.support.sites import farshore_command

DEMO_TIMEOUT_S = 280


def environment(home: Path) -> dict[str, str]:
    """The caller's, with a home of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FARSHORE_")}
    return kept | {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "config")}


def daemons_below(directory: Path) -> list[str]:
    """Processes whose command line names the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(directory).encode() in words:
                found.append(entry.name)
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_proof_holds(scratch: Path) -> None:
    place = scratch / "demo"
    result = subprocess.run(
        [*farshore_command(), "demo", "--json", "--dir", str(place)],
        capture_output=True,
        text=True,
        env=environment(scratch),
        timeout=DEMO_TIMEOUT_S,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    check_lines(result.stdout)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(line["api"] == 1 for line in lines)
    summary = lines[-1]
    assert summary["kind"] == "demo"
    assert summary["data"]["ok"]
    assert len(summary["data"]["steps"]) == 15
    proofs = [line["data"] for line in lines if line["data"].get("event") == "proof"]
    assert len(proofs) == summary["data"]["proofs"] > 30
    assert all(proof["holds"] for proof in proofs)
    assert not place.exists()
    assert not (scratch / "config" / "farshore" / "sites.toml").exists()


def test_ctrl_c_leaves_nothing(scratch: Path) -> None:
    place = scratch / "demo"
    with subprocess.Popen(
        [*farshore_command(), "demo", "--json", "--dir", str(place)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(scratch),
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if json.loads(line)["data"].get("step") == 2:
                break
        assert daemons_below(place)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 130
    assert not place.exists()
    assert daemons_below(place) == []


def test_a_proof_that_fails_is_named(scratch: Path) -> None:
    """A file system check that says no: the demo ends there, names the proof and keeps what there is to
    see."""
    (scratch / "e2fsck").write_text("#!/bin/sh\nexit 4\n")
    (scratch / "e2fsck").chmod(0o755)
    place = scratch / "demo"
    result = subprocess.run(
        [*farshore_command(), "demo", "--dir", str(place)],
        capture_output=True,
        text=True,
        env=environment(scratch) | {"PATH": f"{scratch}:{os.environ['PATH']}"},
        timeout=DEMO_TIMEOUT_S,
        check=False,
    )
    assert result.returncode == 24
    assert "step 2" in result.stderr
    assert "its file system is clean (e2fsck -fn): it ends with 4" in result.stderr
    assert "NOT EVERY PROOF HELD" in result.stdout
    assert (place / "a.log").exists()
    assert daemons_below(place) == []


def test_a_missing_tool_is_named_with_its_package(scratch: Path) -> None:
    command = farshore_command()
    result = subprocess.run(
        [*command, "demo"],
        capture_output=True,
        text=True,
        env=environment(scratch) | {"PATH": str(scratch)},
        timeout=60,
        check=False,
    )
    assert result.returncode == 10
    assert "nbdcopy (package libnbd-bin)" in result.stderr
    assert "apt-get install" in result.stderr


def test_a_directory_in_use_is_refused(scratch: Path) -> None:
    (scratch / "mine").write_text("precious")
    result = subprocess.run(
        [*farshore_command(), "demo", "--dir", str(scratch)],
        capture_output=True,
        text=True,
        env=environment(scratch),
        timeout=60,
        check=False,
    )
    assert result.returncode == 11
    assert (scratch / "mine").read_text() == "precious"
