"""A user's check: a command line that looks at what was mounted and says whether it is good.

It runs as the user of `farshore`, never in the daemon. Exit code 0 is good, 1 to 124 is bad; anything else
means that the check itself could not be carried out (126 and 127 are the shell's words for that).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from console.local_time import monotonic, pause
from protocol.errors import FarshoreError, TimedOut
from protocol.printable import printable_lines

CHECK_TIMEOUT_S = 3600.0
BAD_MAX = 124
END_TIMEOUT_S = 10.0
POLL_S = 0.02
SAID_BYTES = 4096
# What says where a volume is; of an outer command's it must know nothing.
VARIABLES = ("FARSHORE_MOUNT", "FARSHORE_DEVICE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether it was good, and the end of what the check said."""

    ok: bool
    said: str


def run_check(command: str, environment: Mapping[str, str], timeout_s: float = CHECK_TIMEOUT_S) -> Verdict:
    """Run it by the shell; what it leaves running in its process group is killed. Raises TimedOut, and
    FarshoreError when it could not be carried out.

    It must not look at this machine's own files by mistake and call them good: what is not mounted has no
    variable, a variable that is not set is an error in its words, and its directory is an empty one."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(VARIABLES)}
    with TemporaryDirectory(ignore_cleanup_errors=True) as empty, TemporaryFile() as output:
        process = subprocess.Popen(
            ["/bin/sh", "-u", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**inherited, **environment},
            cwd=empty,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise TimedOut(f"the check was not done after {timeout_s:g} s", subject=command) from error
        finally:
            _end_group(process)
        output.seek(max(0, output.seek(0, os.SEEK_END) - SAID_BYTES))
        said = printable_lines(output.read().decode(errors="replace").strip())
    if not 0 <= code <= BAD_MAX:
        raise FarshoreError(
            f"the check could not be carried out, it ended with {code}: {said[-500:]}",
            subject=command,
            next_step="0 says good, 1 to 124 bad; try the command by hand",
        )
    return Verdict(ok=code == 0, said=said)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what runs in the check's process group, and wait for it: what it held open must be closed."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = monotonic() + END_TIMEOUT_S
    while _runs(process.pid) and monotonic() < deadline:
        pause(POLL_S)


def _runs(group: int) -> bool:
    """Whether any process of a group is more than a zombie (proc_pid_stat(5))."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, found = stat.read_text(errors="replace").rpartition(") ")[2].split()[:3]
        except (OSError, ValueError):
            continue  # ended meanwhile
        if int(found) == group and state not in "ZX":
            return True
    return False


def volume_variables(volumes: Mapping[str, tuple[Path | None, str]]) -> dict[str, str]:
    """FARSHORE_MOUNT_V and FARSHORE_DEVICE_V of each volume V (upper case, `_` for other characters) from its
    mount point, if it has one, and its device; without V those of the first volume that has them."""
    found: dict[str, str] = {}
    for name, (point, device) in volumes.items():
        word = re.sub(r"[^A-Z0-9]", "_", name.upper())
        values = {"FARSHORE_MOUNT": str(point) if point is not None else "", "FARSHORE_DEVICE": device}
        for key, value in values.items():
            if value:
                found.setdefault(key, value)
                found[f"{key}_{word}"] = value
    return found
