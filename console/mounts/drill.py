"""A drill: recover a group at a cut, on a clone, as far as a check of one's own, and measure it.

Steps, each timed: clone the group at the cut; for each volume attach it, check its file system (which replays
its log), mount it; then run the check; then, if it is wanted, read every byte of the volumes as they are at
the cut for a digest, which counts as no time of recovery. The drill is good when none of them failed and
something was mounted or checked: a check of mounted files where nothing was mounted is not run, and fails.
The group itself is only read, and the clone is removed in any case.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from console.images.volume_digest import volume_digest
from console.local_time import monotonic
from console.luks.secret import LuksKey as LuksKey
from console.mounts.check_users import CheckUser
from console.mounts.checks import NotCarriedOut, Verdict, run_check, volume_variables
from console.mounts.clones import attached, cloned
from console.mounts.filesystems import (
    Partition,
    check,
    file_system,
    is_encrypted,
    luks_at,
    mountable_partitions,
)
from console.mounts.mounting import Mount
from console.mounts.partition_choice import PartitionChoice
from console.mounts.unlocked import open_clone
from console.session import Session
from protocol.commands.drill import DrillStep, StepInfo, StepState, VolumeDigest
from protocol.cut_text import CutPosition
from protocol.errors import FarshoreError, NotAllowed, NotFound
from protocol.limits import DRILL_SAID_CHARS_MAX, DRILL_STEPS_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillPlan:
    """What to recover, and how it is judged. `volume` none: every volume of the group. `args`: the check's
    words; `user`: as whom it runs, if not as this one. `raw`: nothing is mounted, the check reads the
    devices. `digest`: whether all content is read for a digest. `key`: of what is encrypted."""

    group: str
    volume: str | None
    cut: CutPosition
    cut_time: str
    check: str | None
    timeout_s: float
    partitions: PartitionChoice
    raw: bool
    args: tuple[str, ...] = ()
    user: CheckUser | None = None
    digest: bool = False
    key: LuksKey = field(default_factory=LuksKey)


@dataclass(slots=True)
class Drilled:
    """What came of it. `recovery_s` counts from the command until the last step. `verdict` is the check's,
    of one that came to an end."""

    recovery_s: float = 0.0
    volumes: tuple[str, ...] = ()
    steps: list[DrillStep] = field(default_factory=list)

    digests: tuple[VolumeDigest, ...] = ()
    verdict: Verdict | None = None
    shown: bool = False
    failed: bool = False

    @property
    def ok(self) -> bool:
        """Whether every step went well, and something was mounted or checked."""
        return self.shown and not self.failed


NOTHING_MOUNTED = (
    "no file system was mounted, so the check would see this machine's own files; "
    "--raw for a check that reads FARSHORE_DEVICE, --partition N or V=N where a volume has several"
)


class Failed(Exception):
    """A step failed, which is recorded; what builds on it is not tried."""


def drill(session: Session, plan: DrillPlan, began: float) -> Drilled:
    """Carry it out; `began` is the monotonic time at which recovery began. Raises FarshoreError only for what
    is no finding about the copy: a cut that cannot be read, a program that is missing."""
    result = Drilled()
    with ExitStack() as stack:
        with session.output.activity("cloning"):
            asked = monotonic()
            clone = stack.enter_context(cloned(session, plan.group, plan.volume, plan.cut, "drill"))
        result.volumes = tuple(clone.volumes)
        plan.partitions.require_volumes(clone.volumes, plan.group)
        _add(result, "clone", "ok", monotonic() - asked, said=clone.clone)
        staged: dict[str, tuple[Path | None, str]] = {}
        for volume in clone.volumes:
            with session.output.activity(f"{volume}: attaching, checking, mounting"):
                try:
                    staged[volume] = _stage(stack, session, clone.clone, volume, plan, result)
                except Failed:
                    continue
        shows_files = any(point is not None for point, _ in staged.values())
        if plan.check is not None and not result.failed and not shows_files and not plan.raw:
            _add(result, "check", "failed", 0.0, said=NOTHING_MOUNTED)
        elif plan.check is not None and not result.failed:
            variables = {
                **volume_variables(staged),
                "FARSHORE_GROUP": plan.group,
                "FARSHORE_CUT": str(plan.cut.cut),
                "FARSHORE_CUT_TIME": plan.cut_time,
                "FARSHORE_CLONE": clone.clone,
            }
            with session.output.activity("checking"):
                _check(result, plan, variables)
        result.recovery_s = monotonic() - began
        if plan.digest:
            _take_digests(session, plan, result)
    return result


def _take_digests(session: Session, plan: DrillPlan, result: Drilled) -> None:
    """Of the volumes at the cut, not of the clone, which the check may have changed."""
    found: list[VolumeDigest] = []
    for volume in result.volumes:
        with (
            session.output.activity(f"{volume}: reading all of it"),
            suppress(Failed),
            _timed(result, "digest", volume),
        ):
            found.append(volume_digest(session, plan.group, volume, plan.cut))
    result.digests = tuple(found)


def _stage(
    stack: ExitStack, session: Session, clone: str, volume: str, plan: DrillPlan, result: Drilled
) -> tuple[Path | None, str]:
    """One volume's mount point and device. Raises Failed."""
    with _timed(result, "attach", volume):
        made = stack.enter_context(attached(session, clone, volume))
        if plan.raw:
            return None, made.make_whole_device(read_only=False)
        number = plan.partitions.number(volume, made, alone=len(result.volumes) == 1)
        place = luks_at(made.file, number) if plan.key.available else None
        device = "" if place else made.make_device(read_only=False, number=number)
    if place is not None:
        device = _unlock(session, made, volume, number, place, plan, result)
    try:
        found = file_system(Path(device))
    except NotFound as nothing:
        _require_no_choice(made, volume, device, number, plan, result)
        # Swap, a database's own format, an LVM disk: for the check to judge.
        _add(result, "mount", "skipped", 0.0, volume=volume, said=nothing.message)
        return None, device
    made.make_point()
    _fsck(result, made, volume, device, found.kind)
    with _timed(result, "mount", volume, said=found.kind):
        made.mount(found, writable=True, replay=True)
    return made.point, device


def _require_no_choice(
    made: Mount, volume: str, device: str, number: int | None, plan: DrillPlan, result: Drilled
) -> None:
    """A volume of which something could have been mounted, had it been said what or how, is not passed over:
    the drill would be good though nothing of it was looked at. Raises Failed."""
    there = [str(each.number) for each in mountable_partitions(made.file)] if number is None else []
    if there:
        said = f"partitions {', '.join(there)} have a file system: --partition {volume}=N chooses, or --raw"
    elif plan.check is None and is_encrypted(Path(device)):
        said = "it is encrypted (LUKS): --key-file FILE opens it"
    else:
        return
    _add(result, "mount", "failed", 0.0, volume=volume, said=said)
    raise Failed


def _unlock(
    session: Session,
    made: Mount,
    volume: str,
    number: int | None,
    place: Partition,
    plan: DrillPlan,
    result: Drilled,
) -> str:
    """The device of what is inside. Raises NotAllowed for a key that does not open it, which is no finding
    about the copy; Failed."""
    began = monotonic()
    try:
        device = open_clone(session, made, place, number, plan.key)
    except NotAllowed:
        raise
    except FarshoreError as error:
        _add(result, "unlock", "failed", monotonic() - began, volume=volume, said=error.message)
        raise Failed from error
    _add(result, "unlock", "ok", monotonic() - began, volume=volume)
    return device


def _fsck(result: Drilled, made: Mount, volume: str, device: str, kind: str) -> None:
    began = monotonic()
    verdict = check(device, kind, made.point)
    state: StepState = "skipped" if verdict.ok is None else "ok" if verdict.ok else "failed"
    _add(result, "fsck", state, monotonic() - began, volume=volume, said=verdict.said)
    if state == "failed":
        raise Failed


def _check(result: Drilled, plan: DrillPlan, variables: dict[str, str]) -> None:
    began = monotonic()
    try:
        verdict = run_check(plan.check or "", variables, plan.timeout_s, args=plan.args, user=plan.user)
    except NotCarriedOut as error:
        result.verdict = Verdict(ok=False, said=error.said, code=error.exit_status)
        _add(result, "check", "failed", monotonic() - began, said=error.message)
        return
    except FarshoreError as error:
        _add(result, "check", "failed", monotonic() - began, said=error.message)
        return
    result.verdict = verdict
    _add(result, "check", "ok" if verdict.ok else "failed", monotonic() - began, said=verdict.said)


@contextmanager
def _timed(result: Drilled, step: str, volume: str, said: str = "") -> Iterator[None]:
    """A step that fails with an error; raises Failed for it."""
    began = monotonic()
    try:
        yield
    except FarshoreError as error:
        _add(result, step, "failed", monotonic() - began, volume=volume, said=error.message)
        raise Failed from error
    _add(result, step, "ok", monotonic() - began, volume=volume, said=said)


def _add(
    result: Drilled, step: str, state: StepState, took_s: float, *, volume: str = "", said: str = ""
) -> None:
    result.failed = result.failed or state == "failed"
    result.shown = result.shown or (state == "ok" and step in ("mount", "check"))
    if len(result.steps) < DRILL_STEPS_MAX:
        # Of what a program said at length, how it began and how it ended.
        half = DRILL_SAID_CHARS_MAX // 2
        kept = said if len(said) <= 2 * half else f"{said[: half - 1]}…{said[-half:]}"
        result.steps.append(
            DrillStep(step=step, state=state, took_s=round(took_s, 3), volume=volume, said=kept)
        )


def step_rows(steps: list[StepInfo]) -> list[tuple[str, ...]]:
    """A drill's steps for a table."""
    return [
        (
            step.volume or "all",
            step.step,
            step.state,
            f"{step.took_s:.2f} s",
            step.said.replace("\n", " / ")[-100:],
        )
        for step in steps
    ]
