"""Fixtures of the console's tests: a stub site, and `farshore` run in this process or as one."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from console.cli import main
from tests.support.reply_lines import check_lines
from tests.unit.console.stub_site import StubSite

ROOT = Path(__file__).resolve().parents[3]
COMMAND = "import sys; from console.cli import main; sys.exit(main())"


@dataclass(frozen=True)
class Ran:
    """How a command line ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> list[Any]:
        """Each line of standard output."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home with a path short enough for sockets, in Paris."""
    directory = Path(tempfile.mkdtemp(prefix="fs-", dir="/tmp"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(directory / "config"))
    monkeypatch.delenv("FARSHORE_SITE", raising=False)
    monkeypatch.setenv("TZ", "Europe/Paris")
    time.tzset()
    yield directory
    monkeypatch.undo()
    time.tzset()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def stub(home: Path) -> Iterator[StubSite]:
    """A running stub site `lon`."""
    (home / "lon").mkdir(mode=0o700)
    with StubSite(home / "lon") as site:
        yield site


@pytest.fixture
def farshore(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run a command line in this process; what it prints as JSON is what console/kinds.py says."""

    def run(*words: str) -> Ran:
        capsys.readouterr()
        code = main(words)
        captured = capsys.readouterr()
        if "--json" in words:
            check_lines(captured.out)
        return Ran(code, captured.out, captured.err)

    return run


def start_process(
    *words: str, environment: dict[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """The command as a process of its own, as an operator starts it."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        **{**streams, **options},
    )


def run_on_terminal(words: tuple[str, ...], *, prompt: str = "", answer: str = "") -> tuple[str, int]:
    """The command on a terminal of its own; types `answer` at `prompt`. Gives screen and exit code."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "200"},
        start_new_session=True,
    ) as process:
        os.close(slave)
        screen = b""
        while True:
            try:
                chunk = os.read(master, 65_536)
            except OSError:  # EIO: the last writer has closed
                break
            if not chunk:
                break
            screen += chunk
            if prompt and prompt.encode() in screen:
                os.write(master, answer.encode() + b"\n")
                prompt = ""
        process.wait(20)
    os.close(master)
    return screen.decode(), process.returncode
