"""Other people's programs for file systems, each run under a deadline."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence

from protocol.errors import NotFound, TimedOut
from protocol.file_stream import shown

# Program to Debian package.
PACKAGES = {"e2fsck": "e2fsprogs", "guestfish": "guestfish", "sync": "coreutils"}
_SAID_BYTES_MAX = 64 << 10


def find_program(name: str) -> str | None:
    """Its path; programs for file systems may lie outside of a user's PATH."""
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")


def require_program(name: str) -> str:
    """Its path. Raises NotFound naming the package."""
    found = find_program(name)
    if found is None:
        package = PACKAGES.get(name, name)
        raise NotFound(f"{name} is not installed", subject=name, next_step=f"apt-get install {package}")
    return found


def run_program(words: Sequence[str], *, timeout_s: float) -> tuple[int, str]:
    """Exit code and what it said, printable. Raises NotFound, TimedOut."""
    program = require_program(words[0])
    try:
        done = subprocess.run(
            [program, *words[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimedOut(f"{words[0]} was not done after {timeout_s:g} s", subject=shlex.join(words)) from error
    lines = done.stdout[-_SAID_BYTES_MAX:].splitlines()
    return done.returncode, " ".join(shown(line) for line in lines)
