"""The demo from end to end: checks what it needs, runs the steps, cleans up whatever happens.

It ends 0 only if every proof held. A proof that failed leaves the directory for a look; Ctrl-C and SIGTERM
leave nothing behind.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Concatenate, ParamSpec, TypeVar

from console.demo import crashes, moving, restoring, writing
from console.demo.report import Report, Step
from console.demo.sites import DIRECTORY_CHARS_MAX, GROUP, DemoSite
from console.demo.tools import require_tools
from console.demo.writing import FILES, LABEL, Stage
from console.figures import size_text
from console.output import Output
from protocol.errors import Busy, ExitCode, FarshoreError, UsageError

P = ParamSpec("P")
T = TypeVar("T")

SPACE_BYTES = 4 << 30


def main(output: Output, *, directory: Path | None, keep: bool) -> int:
    """Run the demo; the exit code. Raises FarshoreError with the proof that failed, or why it cannot run."""
    require_tools()
    with _workplace(directory) as place, _ends_on_sigterm():
        stage = Stage(primary=DemoSite(place, "a"), secondary=DemoSite(place, "b"), directory=place / "work")
        stage.directory.mkdir()
        report = Report(output)
        output.note(f"farshore demo: two sites in {place}; NBD on unix sockets, ZeroMQ with CURVE")
        try:
            _steps(report, stage, stop=not keep)
        except FarshoreError as error:
            _kill(stage)
            _conclude(report)
            error.next_step = error.next_step or f"data and logs are in {place}"
            raise
        except BaseException:
            _kill(stage)
            _remove(place)
            raise
        _conclude(report)
        if keep:
            _say_what_next(output, stage)
        else:
            _remove(place)
    return int(ExitCode.OK)


def _steps(report: Report, stage: Stage, *, stop: bool) -> None:
    rng = random.Random()

    def do(title: str, part: Callable[Concatenate[Stage, Step, P], T], *more: P.args, **named: P.kwargs) -> T:
        with report.step(title) as step:
            return part(stage, step, *more, **named)

    do("Two sites, introduced and paired", writing.two_sites)
    do("A real file system onto the mirrored volume", writing.real_files)
    do("The secondary holds the same bytes", writing.at_both_sites)
    do("fio verify on a second volume of the group", writing.fio_verify)
    do("A labelled backup", writing.backup)
    wreck_sha256 = do("Damage", restoring.damage, rng.getrandbits(32))
    do("The past, read at both sites", writing.read_the_past)
    left = do("Restore", restoring.restore)
    do("Undo of the restore, and restore again", restoring.undo, left, wreck_sha256)
    do("kill -9 of the secondary under writes", crashes.kill_secondary)
    do(f"kill -9 of the primary under writes, {crashes.KILLS} times", crashes.kill_primary, rng)
    do("The writing moves to the other site", moving.switch_over)
    do("kill -9 of the site that writes, and takeover", moving.take_over)
    do("Both journals checked, frame by frame", crashes.both_journals)
    if stop:
        with report.step("A clean stop") as step:
            sites = (stage.primary, stage.secondary)
            for site in sites:
                step.command(f"kill {site.pid}")
                site.terminate()
            for site in sites:
                code = site.wait_end()
                step.proof(f"{site.name} ended by itself on SIGTERM", code == 0, f"exit code {code}")


def _conclude(report: Report) -> None:
    report.output.result("demo", report.summary(), report.show_summary)


# -- where it runs


@contextmanager
def _workplace(directory: Path | None) -> Iterator[Path]:
    """The demo's directory: a new one, or the user's, which must be new or empty."""
    if directory is None:
        place = Path(tempfile.mkdtemp(prefix="farshore-demo-", dir=_roomy_directory()))
    else:
        place = Path(os.path.abspath(directory))
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            taken = any(place.iterdir())
        except OSError as error:
            raise FarshoreError(f"cannot make {place}: {error.strerror}", subject=str(place)) from error
        if taken:
            raise Busy(f"{place} is not empty", subject=str(place), next_step="choose an empty directory")
    try:
        _check_place(place)
    except FarshoreError:
        _remove(place)
        raise
    yield place


def _roomy_directory() -> str:
    """/tmp may be a small file system in memory: then /var/tmp."""
    usual = tempfile.gettempdir()
    roomy = shutil.disk_usage(usual).free >= SPACE_BYTES
    return usual if roomy or not os.access("/var/tmp", os.W_OK) else "/var/tmp"


def _check_place(place: Path) -> None:
    if len(os.fsencode(place)) > DIRECTORY_CHARS_MAX:
        raise UsageError(
            f"the path {place} is too long for the unix sockets below it",
            subject=str(place),
            next_step=f"choose one of at most {DIRECTORY_CHARS_MAX} bytes: --dir DIR",
        )
    free = shutil.disk_usage(place).free
    if free < SPACE_BYTES:
        raise FarshoreError(
            f"the demo needs {size_text(SPACE_BYTES)}, {place} has {size_text(free)}",
            subject=str(place),
            next_step="choose another place: --dir DIR",
        )


@contextmanager
def _ends_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does: with everything cleaned up."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _kill(stage: Stage) -> None:
    """End both daemons. A second Ctrl-C must not leave one behind."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for site in (stage.primary, stage.secondary):
            site.kill()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _remove(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)


# -- what to try next


def _say_what_next(output: Output, stage: Stage) -> None:
    a, b = stage.primary, stage.secondary
    program = _program()
    pids = f"{a.pid} {b.pid}"
    for site in (a, b):
        site.close()
    volume = f"{GROUP}/{FILES}"
    lines = [
        f"{program} status --site {a.directory}",
        f"{program} backup list --site {b.directory}",
        f"{program} events --site {a.directory}",
        f"{program} journal show {GROUP} --limit 10 --site {b.directory}",
        f'nbdinfo --map "$({program} volume uri {volume} --site {a.directory})"',
        f'nbdcopy "$({program} volume uri {volume}@{LABEL} --site {b.directory})" past.img',
        f"{program} backup create {GROUP} --label mine --site {a.directory}",
        f"{program} restore volume {volume} --at {LABEL} --dry-run --site {a.directory}",
        f"{program} restore volume {volume} --at {LABEL} --confirm {volume} --online --site {a.directory}",
        f'mkdir d m; nbdfuse d/disk.img "$({program} volume uri {volume}@{LABEL} --site {b.directory})" &',
        "mount -o ro,loop d/disk.img m   # as root; afterwards: umount m d",
    ]
    output.note("")
    output.note(f"Both sites go on running, and {stage.image} is the image. Try:")
    for line in lines:
        output.note(f"  {line}")
    output.note("and at the end:")
    output.note(f"  kill {pids}; rm -r {a.directory.parent}")


def _program() -> str:
    """How to call `farshore` from the user's shell."""
    installed = Path(sys.executable).parent / "farshore"
    if shutil.which("farshore") or not installed.exists():
        return "farshore"
    return os.path.relpath(installed) if installed.is_relative_to(Path.cwd()) else str(installed)
