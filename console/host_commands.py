"""Commands of the operator's that stop and start a host around a restore, run here and as this user.

Each is a line of shell. What it prints goes to standard error: standard output is the result's.
"""

from __future__ import annotations

import subprocess

from protocol.errors import FarshoreError

STANDARD_ERROR = 2


def run_host_command(command: str) -> int:
    """Run a line of shell; its exit code. Raises FarshoreError where there is no shell."""
    try:
        ended = subprocess.run(
            ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, stdout=STANDARD_ERROR, check=False
        )
    except OSError as error:
        raise FarshoreError(f"/bin/sh: {error.strerror}", next_step="run the command by hand") from error
    return ended.returncode


def stop_host(command: str, subject: str) -> None:
    """Raises FarshoreError, saying that nothing was changed, unless the command succeeds."""
    code = run_host_command(command)
    if code != 0:
        raise FarshoreError(
            f"the stop command ended with {code}: {subject} is as it was",
            subject=subject,
            next_step=f"look at the host, which may be half stopped: {command}",
        )
