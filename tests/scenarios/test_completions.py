"""TAB in a real bash, zsh and fish, at a terminal: words of the commands, and names from a running daemon."""

from __future__ import annotations

import os
import pty
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.clients import succeed
from tests.support.sites import ROOT, Site

TIMEOUT_S = 60.0
# What is typed before TAB, and the word that then stands there.
CASES = (
    ("farshore pair cre", "create"),
    ("farshore status --js", "--json"),
    ("farshore volume show storage/r", "storage/root"),
    ("farshore backup show storage ni", "nightly"),
    ("farshore ls storage/root@ni", "storage/root@nightly"),
)


class Shell:
    """An interactive shell at a pseudo-terminal."""

    def __init__(self, words: list[str], environment: dict[str, str]) -> None:
        self._terminal, inner = pty.openpty()
        self._process = subprocess.Popen(
            ["setsid", "--ctty", *words], stdin=inner, stdout=inner, stderr=inner, env=environment
        )
        os.close(inner)
        self._read = ""

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)

    def type(self, text: str) -> None:
        """Keys."""
        os.write(self._terminal, text.encode())

    def completed(self, line: str) -> list[str]:
        """The words of a line after TAB at its end."""
        # It is not run, but becomes the argument of another command: ^A goes to its beginning, ^E to its end.
        self.type(f"{line}\t\x01echo is''now \x05\r")
        self.wait_for("isnow ")
        return self.wait_for("\n").split()

    def wait_for(self, wanted: str) -> str:
        """Until this is printed; what came since the last call, up to it."""
        deadline = time.monotonic() + TIMEOUT_S
        while wanted not in self._read:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([self._terminal], [], [], left_s)[0]:
                raise AssertionError(f"{wanted!r} is not in {self._read!r}")
            self._read += os.read(self._terminal, 65536).decode(errors="replace")
        found, self._read = self._read.split(wanted, 1)
        return found


def begin(shell: str, program: str, generated: Path, home: Path) -> tuple[list[str], str]:
    """How to call the shell without anybody's settings, and what loads the completion there."""
    place = generated / "usr/share"
    if shell == "bash":
        return [program, "--norc", "-i"], f"source {place}/bash-completion/completions/farshore"
    if shell == "zsh":
        load = (
            f"fpath=({place}/zsh/vendor-completions $fpath); autoload -Uz compinit; compinit -u -d {home}/zd"
        )
        return [program, "-f", "-i"], f"bindkey -e; {load}"
    return [program, "--no-config", "-i"], f"source {place}/fish/vendor_completions.d/farshore.fish"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_tab_completes_words_and_names(
    shell: str, site: Site, scratch: Path, tool: Callable[[str], str]
) -> None:
    succeed(sys.executable, ROOT / "packaging" / "generate_command_docs.py", scratch)
    site.create_volume("storage/root", "1M")
    site.farshore("backup", "create", "storage", "--label", "nightly")
    program = scratch / "bin" / "farshore"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join(site.command())} "$@"\n')
    program.chmod(0o755)
    environment = site.environment() | {
        "PATH": f"{program.parent}:{os.environ['PATH']}", "FARSHORE_SITE": str(site.directory),
        "HOME": str(scratch), "PS1": "", "TERM": "xterm",
    }  # fmt: skip
    words, load = begin(shell, tool(shell), scratch, scratch)
    terminal = Shell(words, environment)
    try:
        terminal.type(f"{load}; echo load''ed\r")
        terminal.wait_for("loaded")
        for typed, wanted in CASES:
            expected = [*typed.split()[:-1], wanted]
            deadline = time.monotonic() + TIMEOUT_S
            # The completion waits seconds, not for ever: on a busy machine TAB may want to be pressed again.
            while (found := terminal.completed(typed)) != expected:
                assert time.monotonic() < deadline, (typed, found)
    finally:
        terminal.close()
