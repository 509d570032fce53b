"""Checks that lie at a machine under a name, to be run in drills: `--check-hook NAME`.

    /etc/farshore/checks/NAME          the machine's own: a program, run as it is
    console/ready_checks/NAME          those that come with Farshore: text for /bin/sh

The machine's own come first. Root runs them, so root must be the only one who can write there.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path

from farshore.plain_files import read_plain
from protocol.commands.base import check_name
from protocol.errors import NotAllowed, NotFound, UsageError

OWN = Path("/etc/farshore/checks")
READY = Path(__file__).resolve().parents[1] / "ready_checks"
DIGEST_CHARS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckHook:
    """`command` is what /bin/sh is given, `shown` names the file and what it holds, for a report; `says`
    what it does. `raw`: it reads devices, and nothing is to be mounted; its file has a line `# drill:
    raw`."""

    name: str
    command: str
    shown: str
    says: str
    raw: bool


def find_hook(name: str) -> CheckHook:
    """The check of that name. NotFound names those that there are; NotAllowed if others than root could
    change it where root would run it; UsageError for an empty file."""
    check_name(name, "check")
    for directory in (OWN, READY):
        path = directory / name
        try:
            text = read_plain(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise NotAllowed(f"{path} cannot be read: {error.strerror}", subject=str(path)) from error
        if not text.strip():
            raise UsageError(f"{path} is empty, and would call everything good", subject=str(path))
        return _hook(name, path, text)
    raise NotFound(
        f"there is no check {name}",
        subject=name,
        next_step=f"those that there are: {', '.join(each.name for each in hooks())}; your own go to {OWN}",
    )


def hooks() -> list[CheckHook]:
    """All that can be named; of two of a name the machine's own."""
    found: dict[str, CheckHook] = {}
    for directory in (READY, OWN):
        for path in sorted(directory.glob("[a-z]*")) if directory.is_dir() else []:
            if path.is_file() and not path.name.endswith((".md", "~", ".dpkg-old")):
                found[path.name] = _described(path)
    return [each for _, each in sorted(found.items())]


def _described(path: Path) -> CheckHook:
    try:
        text = read_plain(path)
    except OSError:
        text = b""
    return CheckHook(name=path.name, command="", shown=str(path), says=_says(text), raw=_is_raw(text))


def _says(text: bytes) -> str:
    """The first line of the comment that it opens with."""
    for line in text[:2000].decode(errors="replace").splitlines():
        if line.startswith("# "):
            return line[2:].strip()
    return ""


def _hook(name: str, path: Path, text: bytes) -> CheckHook:
    if path.parent == READY:
        command, file = text.decode(), f"{name} of Farshore"
    else:
        _require_safe(path)
        command, file = f'exec {shlex.quote(str(path))} "$@"', str(path)
    digest = hashlib.sha256(text).hexdigest()[:DIGEST_CHARS]
    return CheckHook(
        name=name,
        command=command,
        shown=f"{file}, sha256:{digest}",
        says=_says(text),
        raw=_is_raw(text),
    )


def _is_raw(text: bytes) -> bool:
    return b"# drill: raw" in text[:2000].splitlines()


def _require_safe(path: Path) -> None:
    for each in (path, path.parent, path.parent.parent):
        found = each.stat()
        if os.geteuid() == 0 and (found.st_uid != 0 or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
            raise NotAllowed(
                f"{each} can be changed by others than root, who would run it",
                subject=str(path),
                next_step=f"chown root:root {shlex.quote(str(each))}; chmod go-w {shlex.quote(str(each))}",
            )
    if not os.access(path, os.X_OK):
        raise UsageError(
            f"{path} cannot be run", subject=str(path), next_step=f"chmod 755 {shlex.quote(str(path))}"
        )
