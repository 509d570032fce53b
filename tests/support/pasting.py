"""Commands that `farshore` prints, taken off the screen and pasted into a shell, as a person does it.

A command is what stands in backticks, or all of a line behind its name (`next:`, `undo`, `back`). The shell
has another site as its default: one whose socket only counts who comes, so that a command that does not name
its site is found out whatever it would have done there.
"""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.sites import Site, farshore_command

PASTED_TIMEOUT_S = 60.0
ELSEWHERE = "elsewhere"
_IN_BACKTICKS = re.compile(r"`(farshore [^`]+)`")
_WHOLE_LINE = re.compile(r"(?:^|\n)[a-z]+(?: [a-z]+)?:?\s+(farshore [^`\n]+)(?=\n|$)")
# Of sites that the one who prints it knows no name of.
_GIVEN_ELSEWHERE = re.compile(r"`farshore [^`]+` at (?:each site|both|every peer|the (?:other|peer|site))")
# What a person has to fill in: TOKEN, G/V, NAME.
_TO_FILL_IN = re.compile(r"(?:^|[ /@])(?:[A-Z]{2,}|[A-Z])(?:$|[ /@:|])")


def printed_commands(screen: str) -> list[str]:
    """Each command on it that can be pasted as it is."""
    here = _GIVEN_ELSEWHERE.sub("", screen)
    found = [*_IN_BACKTICKS.findall(here), *(line.strip() for line in _WHOLE_LINE.findall(screen))]
    return [command for command in dict.fromkeys(found) if not _TO_FILL_IN.search(command)]


class Shell:
    """A shell of an operator who has chosen another site since."""

    def __init__(self, place: Path, of: Site) -> None:
        self._environment = of.environment() | {"FARSHORE_SITE": ELSEWHERE, "PATH": f"{place}:/usr/bin:/bin"}
        program = place / "farshore"
        program.write_text(f'#!/bin/sh\nexec {shlex.join(farshore_command())} "$@"\n')
        program.chmod(0o755)
        self.came = 0

    def paste(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run it as it is. One that follows something is ended after a while."""
        return subprocess.run(
            ["timeout", "--signal", "INT", "15", "bash", "-c", command],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PASTED_TIMEOUT_S,
        )

    def count(self, listener: socket.socket) -> None:
        """Count whoever comes to the other site, until its socket is closed."""
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.came += 1
            connection.close()


@contextmanager
def shell_elsewhere(of: Site) -> Iterator[Shell]:
    """A shell whose FARSHORE_SITE is a site of that name, known beside those of `of`."""
    place = of.directory.parent / ELSEWHERE
    place.mkdir(mode=0o700)
    sites = of.directory.parent / "farshore" / "sites.toml"
    with sites.open("a") as file:
        file.write(f'\n[sites.{ELSEWHERE}]\ndirectory = "{place}"\n')
    shell = Shell(place, of)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "control.sock"))
        listener.listen()
        counting = threading.Thread(target=shell.count, args=(listener,))
        counting.start()
        try:
            yield shell
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            counting.join()
