"""`farshore-hook` on a real file system, and against an agent that speaks QEMU's protocol."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.support.clients import call, succeed
from tests.support.mounting import loop_device, mounted, require_mounting
from tests.support.sites import ROOT

CALL_TIMEOUT_S = 30.0


def hook(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `farshore-hook`."""
    return subprocess.run(
        [sys.executable, "-m", "console.hooks", *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True, text=True, timeout=CALL_TIMEOUT_S, check=False,
    )  # fmt: skip


@pytest.fixture
def point(scratch: Path, tool: Callable[[str], str]) -> Iterator[Path]:
    """An ext4 file system of its own; thawed at the end, whatever a test left."""
    require_mounting()
    image = scratch / "image"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    succeed(tool("mkfs.ext4"), "-q", "-F", image)
    with ExitStack() as stack:
        device = stack.enter_context(loop_device(tool("losetup"), image))
        where = stack.enter_context(mounted(device, scratch))
        stack.callback(call, tool("fsfreeze"), "--unfreeze", where)
        yield where


def test_a_frozen_file_system_holds_its_writers(point: Path) -> None:
    assert hook("fsfreeze", point, "freeze").returncode == 0
    writer = subprocess.Popen(["touch", str(point / "late")])
    with pytest.raises(subprocess.TimeoutExpired):
        writer.wait(0.5)
    assert "busy" in hook("fsfreeze", point, "freeze").stderr
    assert hook("fsfreeze", point, "thaw").returncode == 0
    assert writer.wait(10) == 0
    assert hook("fsfreeze", point, "thaw").returncode == 0, "nothing frozen is nothing to complain of"


def test_what_must_not_be_frozen_is_not(point: Path) -> None:
    (point / "site").mkdir()
    refused = hook("fsfreeze", point, "freeze", FARSHORE_DATA=str(point / "site"))
    assert (refused.returncode, "data directory" in refused.stderr) == (1, True)
    refused = hook("fsfreeze", point / "site", "freeze")
    assert (refused.returncode, "no mount point" in refused.stderr) == (1, True)
    (point / "written").touch()


def test_a_database_that_does_not_answer_freezes_nothing(point: Path, tool: Callable[[str], str]) -> None:
    tool("psql")
    refused = hook("postgres", point, "freeze", "--conninfo", f"host={point} connect_timeout=2")
    assert (refused.returncode, "CHECKPOINT" in refused.stderr) == (1, True)
    (point / "written").touch()


class ScriptedAgent:
    """Takes one client after the other and answers as the agent in a guest does; `before` comes first."""

    def __init__(self, path: Path, *, before: bytes = b"", frozen: object = 2) -> None:
        self.heard: list[str] = []
        self._before = before
        self._frozen = frozen
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, client.makefile("rb") as lines:
                client.sendall(self._before)
                for line in lines:
                    client.sendall(self._answer(line))

    def _answer(self, line: bytes) -> bytes:
        # As QEMU's does: whatever came before the sentinel is forgotten.
        request = json.loads(line.rpartition(b"\xff")[2])
        command = request["execute"]
        self.heard.append(command)
        if command == "guest-sync-delimited":
            assert b"\xff" in line
            return b"\xff" + json.dumps({"return": request["arguments"]["id"]}).encode() + b"\n"
        if isinstance(self._frozen, dict):
            return json.dumps({"error": self._frozen}).encode() + b"\n"
        return json.dumps({"return": self._frozen}).encode() + b"\n"


def test_a_guest_is_frozen_through_its_agent(scratch: Path) -> None:
    path = scratch / "agent"
    stale = b'{"return": 77}\n{"return"' + b'\xff{"return": 12}\n'
    with closing(ScriptedAgent(path, before=stale)) as agent:
        assert hook("qemu-agent", path, "freeze").returncode == 0
        assert hook("qemu-agent", path, "thaw").returncode == 0
    sync = "guest-sync-delimited"
    assert agent.heard == [sync, "guest-fsfreeze-freeze", sync, "guest-fsfreeze-thaw"]


@pytest.mark.parametrize(
    ("frozen", "said"),
    [(0, "no file system"), ({"class": "GenericError", "desc": "hook has failed"}, "hook has failed")],
)
def test_a_guest_that_does_not_freeze_is_said(scratch: Path, frozen: object, said: str) -> None:
    path = scratch / "agent"
    with closing(ScriptedAgent(path, frozen=frozen)):
        refused = hook("qemu-agent", path, "freeze")
    assert (refused.returncode, said in refused.stderr) == (1, True)


def test_an_agent_that_is_silent_or_away_is_said(scratch: Path) -> None:
    path = scratch / "agent"
    assert "No such file" in hook("qemu-agent", path, "freeze").stderr
    with closing(socket.socket(socket.AF_UNIX)) as silent:
        silent.bind(str(path))
        silent.listen()
        assert "does not answer" in hook("qemu-agent", path, "freeze", "--timeout", "0.5").stderr
