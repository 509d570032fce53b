"""A user's check: a command line that looks at what was mounted and says whether it is good.

It runs as the user of `farshore`, or as another one that root names, never in the daemon. Exit code 0 is
good, 1 to 124 is bad; anything else means that the check itself could not be carried out (126 and 127 are
the shell's words for that).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from tempfile import TemporaryDirectory, TemporaryFile

from console.local_time import monotonic, pause
from console.mounts import as_user
from console.mounts.check_users import CheckUser
from protocol.errors import FarshoreError, TimedOut
from protocol.printable import printable_lines
from protocol.proof_limits import TOOL_CHARS_MAX, TOOLS_MAX

CHECK_TIMEOUT_S = 3600.0
BAD_MAX = 124
END_TIMEOUT_S = 10.0
POLL_S = 0.02
SAID_BYTES = 4096
VERSIONS_BYTES = 4096
# What says where a volume is; of an outer command's it must know nothing.
VARIABLES = ("FARSHORE_MOUNT", "FARSHORE_DEVICE")
MOUNT = "FARSHORE_MOUNT"
# Where a check writes which programs it ran, a line each.
VERSIONS = "FARSHORE_VERSIONS"
# What another user's check gets of root's environment: the rest may hold secrets.
KEPT = ("PATH", "LANG", "LANGUAGE", "TZ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether it was good, its exit code, the end of what the check said, and the versions that it named."""

    ok: bool
    said: str
    code: int = 0
    tools: tuple[str, ...] = ()


class NotCarriedOut(FarshoreError):
    """The check ended in a way that says nothing about what it looked at. `code` is the exit code."""

    def __init__(self, code: int, said: str, command: str) -> None:
        super().__init__(
            f"the check could not be carried out, it ended with {code}: {said[-500:]}",
            subject=command,
            next_step="0 says good, 1 to 124 bad; try the command by hand",
        )
        self.exit_status = code
        self.said = said


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a check runs: in an empty directory, beside the file for versions."""

    directory: Path
    versions: Path
    words: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)


def run_check(
    command: str,
    environment: Mapping[str, str],
    timeout_s: float = CHECK_TIMEOUT_S,
    *,
    args: tuple[str, ...] = (),
    user: CheckUser | None = None,
) -> Verdict:
    """Run it by the shell, `args` being its positional parameters; what it leaves running in its process
    group, or as another user at all, is killed. Raises TimedOut, and NotCarriedOut when it could not be
    carried out.

    It must not look at this machine's own files by mistake and call them good: what is not mounted has no
    variable, a variable that is not set is an error in its words, and its directory is an empty one."""
    with _place(environment, user) as place, TemporaryFile() as output:
        process = subprocess.Popen(
            [*place.words, "/bin/sh", "-u", "-c", command, "check", *args],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=place.environment,
            cwd=place.directory,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise TimedOut(f"the check was not done after {timeout_s:g} s", subject=command[:200]) from error
        finally:
            _end_group(process)
        output.seek(max(0, output.seek(0, os.SEEK_END) - SAID_BYTES))
        said = printable_lines(output.read().decode(errors="replace").strip())
        tools = _tools(place.versions)
    if not 0 <= code <= BAD_MAX:
        raise NotCarriedOut(code, said, command[:200])
    return Verdict(ok=code == 0, said=said, code=code, tools=tools)


@contextmanager
def _place(environment: Mapping[str, str], user: CheckUser | None) -> Iterator[_Place]:
    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        parent = Path(name)
        empty, versions = parent / "empty", parent / "versions"
        empty.mkdir(mode=0o700)
        versions.touch(mode=0o600)
        said = {**environment, VERSIONS: str(versions)}
        if user is None:
            inherited = {name: value for name, value in os.environ.items() if not name.startswith(VARIABLES)}
            yield _Place(directory=empty, versions=versions, environment={**inherited, **said})
            return
        for path in (empty, versions):
            os.chown(path, user.uid, user.gid)
        parent.chmod(0o711)
        pairs = _bound(parent, said)
        # By its path and without site-packages: it needs nothing of ours.
        words = [sys.executable, "-I", "-S", as_user.__file__, str(user.uid), str(user.gid)]
        words += [",".join(map(str, user.groups)), *(str(each) for pair in pairs for each in pair), "--"]
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        account = {"HOME": str(empty), "USER": user.name, "LOGNAME": user.name}
        yield _Place(directory=empty, versions=versions, words=words, environment={**kept, **account, **said})


def _bound(parent: Path, environment: dict[str, str]) -> list[tuple[Path, Path]]:
    """A directory for each mount point that the environment names, which then names that one: mount points
    are where only root comes. Only the check's own process has the file systems there."""
    targets: dict[str, Path] = {}
    for name, value in environment.items():
        if name.startswith(MOUNT):
            if value not in targets:
                targets[value] = parent / f"mount-{len(targets)}"
                targets[value].mkdir(mode=0o755)
            environment[name] = str(targets[value])
    return [(Path(source), target) for source, target in targets.items()]


def _tools(path: Path) -> tuple[str, ...]:
    """What the check wrote there, bounded; nothing if it made something else of the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ()
    try:
        is_file = S_ISREG(os.fstat(descriptor).st_mode)
        text = os.read(descriptor, VERSIONS_BYTES).decode(errors="replace") if is_file else ""
    finally:
        os.close(descriptor)
    lines = [" ".join(printable_lines(line).split())[:TOOL_CHARS_MAX] for line in text.splitlines()]
    return tuple(line for line in lines if line)[:TOOLS_MAX]


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
