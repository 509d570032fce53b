"""A site as a service of this machine: `farshore@NAME` runs /var/lib/farshore/NAME (packaging/systemd).

Its sockets are in /run/farshore/NAME, which the unit makes. Members of the group `farshore` reach both, so
that a person need not be root to look at the site, to take backups or to fetch a file.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

from protocol.commands.base import check_name
from protocol.errors import FarshoreError, NotAllowed, NotFound, UsageError
from protocol.printable import printable

ACCOUNT = "farshore"
DATA = Path("/var/lib/farshore")
RUN = Path("/run/farshore")
UNIT_FILES = (Path("/etc/systemd/system"), Path("/usr/lib/systemd/system"), Path("/lib/systemd/system"))
TEMPLATE = "farshore@.service"
SYSTEMD_RUNS = Path("/run/systemd/system")
CONTROL_MODE = "0660"


def unit_of(name: str) -> str:
    """The site's unit."""
    return f"farshore@{name}.service"


def directory_of(given: Path) -> Path:
    """The data directory: of a bare name the one that its unit runs. UsageError for one elsewhere."""
    path = DATA / given if len(given.parts) == 1 and not given.is_absolute() else Path(os.path.abspath(given))
    check_name(path.name, "site")
    if path.parent != DATA:
        raise UsageError(
            f"its unit runs {DATA / path.name}, not {path}",
            subject=str(path),
            next_step=f"name it by {path.name} alone, or leave --service out",
        )
    return path


def own_doors(name: str) -> tuple[str, str]:
    """Where commands come in, and where hosts connect."""
    return f"ipc://{RUN}/{name}/control.sock", f"unix:{RUN}/{name}/nbd.sock"


def require_service() -> None:
    """Before anything is made: NotAllowed unless root asks, NotFound where no unit could run it."""
    if os.geteuid() != 0:
        raise NotAllowed("a service of this machine is root's to make", next_step="sudo farshore …")
    try:
        pwd.getpwnam(ACCOUNT)
        known = any((directory / TEMPLATE).is_file() for directory in UNIT_FILES)
    except KeyError:
        known = False
    if not known or not SYSTEMD_RUNS.is_dir():
        raise NotFound(
            f"no systemd here that has {TEMPLATE} and a user {ACCOUNT}",
            next_step="install the Debian package, or leave --service out and run `farshore site run DIR`",
        )


def begin_service(name: str) -> None:
    """Start the site, now and at each start of the machine. FarshoreError with what systemd said; the site is
    made all the same."""
    unit = unit_of(name)
    done = subprocess.run(
        ["systemctl", "enable", "--now", unit],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = " ".join(printable(done.stderr).split())
        raise FarshoreError(
            f"the site is made, and {unit} did not start: {said}",
            subject=unit,
            next_step=f"journalctl -u {unit}; then systemctl enable --now {unit}",
        )
