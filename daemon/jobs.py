"""Jobs: long work that a command begins and that goes on without it, with progress and a way to end it.

A job is a task on the site's loop; what it does is given as a function of the job. Who began it may watch it,
go away and come back: the job's row stays for a while after its end. A job's row is durable from before it
begins. After a restart of the daemon a job of a resumable kind begins again with the same arguments (the work
itself remembers how far it was), any other one has failed.

    state table jobs          u64 number    row (kind, group, object, state, resumable, began, ended UTC ns,
                                            arguments, result, error: JSON)
    state table job_givers    u64 number    row (began UTC ns, who began it): apart from it, so that an
                                            earlier version reads its own rows as ever

Work ends with its result, with FarshoreError or OSError (failed), or by its cancellation, which it must stand
at each await. Anything else is a defect: it is logged, and the job has failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from itertools import starmap
from struct import Struct
from typing import Any

import msgspec
import structlog

from engine.acting import acting, actor
from engine.group.compartment import attempt
from engine.group.site_state import SiteState
from engine.ports.clock import Clock
from protocol.bounds import NameOrNone, Text, UtcNs, Word
from protocol.commands.base import Reply
from protocol.commands.job import ErrorInfo, JobInfo
from protocol.cut_text import time_text
from protocol.errors import FarshoreError, NotFound
from protocol.limits import CONTROL_MESSAGE_BYTES_MAX
from protocol.rows import pack_row
from protocol.wire import RowType

Data = dict[str, Any]

TABLE, GIVERS = "jobs", "job_givers"
ENDED_KEPT_MAX = 100
CANCEL_WAIT_S = 5.0
ROW_BYTES_MAX = CONTROL_MESSAGE_BYTES_MAX
NUMBER_MAX = 1 << 53  # exact in every JSON reader
_NUMBER = Struct(">Q")

log = structlog.get_logger()


class JobState(Enum):
    """Where a job is."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ROW = RowType(tuple[Word, NameOrNone, Text, JobState, bool, UtcNs, UtcNs, str, str, str])
GIVER = RowType(tuple[UtcNs, Text])


class Job:
    """One job. `arguments` are what its work was asked for, plain values."""

    def __init__(
        self,
        *,
        number: int,
        kind: str,
        group: str,
        subject: str,
        arguments: Data,
        resumable: bool,
        began_utc_ns: int,
    ) -> None:
        self.number = number
        self.kind = kind
        self.group = group
        self.subject = subject
        self.arguments = arguments
        self.resumable = resumable
        self.began_utc_ns = began_utc_ns
        self.ended_utc_ns = 0
        self.state = JobState.RUNNING
        self.cancelling = False
        self.done = 0
        self.total: int | None = None
        self.unit = ""
        self.text = ""
        self.serial = 0
        self.result: Data | None = None
        self.error: ErrorInfo | None = None
        self.task: asyncio.Task[Reply] | None = None
        self.by = actor()
        self._moved = asyncio.Event()

    def progress(self, done: int, total: int | None, unit: str, text: str = "") -> None:
        """Say how far the work is: `done` of `total` of a unit, and what it is at."""
        self.done, self.total, self.unit, self.text = done, total, unit, text
        self.moved()

    def moved(self) -> None:
        """Wake whoever watches."""
        self.serial += 1
        self._moved.set()
        self._moved = asyncio.Event()

    async def wait_past(self, serial: int, timeout_s: float) -> None:
        """Until something moved past a serial, or the time is over."""
        if self.serial <= serial and self.state is JobState.RUNNING:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._moved.wait()

    def info(self) -> JobInfo:
        """The job as replies have it."""
        return JobInfo(
            job=self.number,
            kind=self.kind,
            group=self.group,
            object=self.subject,
            state=self.state.value,
            resumable=self.resumable,
            cancelling=self.cancelling,
            began=time_text(self.began_utc_ns),
            ended=time_text(self.ended_utc_ns) if self.ended_utc_ns else None,
            done=self.done,
            total=self.total,
            unit=self.unit,
            text=self.text,
            serial=self.serial,
            result=self.result,
            error=self.error,
            by=self.by,
        )


# Its result is what the command that begins it says.
Work = Callable[[Job], Awaitable[Reply]]


class Jobs:
    """Every job of one site."""

    def __init__(self, state: SiteState, clock: Clock, emit: Callable[..., None]) -> None:
        self._state = state
        self._clock = clock
        self._emit = emit
        self._closing = False
        self._jobs = {job.number: job for job in starmap(_read, state.notes(TABLE).items())}
        for number, (began_utc_ns, by) in starmap(_read_giver, state.notes(GIVERS).items()):
            job = self._jobs.get(number)
            if job is not None and job.began_utc_ns == began_utc_ns:
                job.by = by

    def start(
        self, kind: str, work: Work, *, group: str, subject: str, arguments: Data, resumable: bool
    ) -> Job:
        """Begin a job; its row is durable on return. `arguments` must be plain JSON values. OSError: it did
        not begin."""
        job = Job(
            number=max(self._jobs, default=0) + 1,
            kind=kind,
            group=group,
            subject=subject,
            arguments=arguments,
            resumable=resumable,
            began_utc_ns=self._clock.utc_ns(),
        )
        if job.by:
            row = pack_row((job.began_utc_ns, job.by))
            self._state.put_notes(GIVERS, {_NUMBER.pack(job.number): row})
        self._put(job)
        self._jobs[job.number] = job
        self._begin(job, work)
        return job

    def resume(self, works: Mapping[str, Work]) -> None:
        """Take up what the last run of the daemon left. Call once, when the groups are open."""
        for job in self.running():
            if job.task is not None:
                continue
            work = works.get(job.kind)
            if job.resumable and work is not None:
                self._begin(job, work)
            else:
                error = FarshoreError(
                    "the daemon was stopped before the job's end",
                    subject=job.subject,
                    next_step="begin it again",
                )
                self._ended(job, JobState.FAILED, error=error)

    def _begin(self, job: Job, work: Work) -> None:
        async def run() -> Reply:
            with acting(job.by):
                return await work(job)

        def ended(task: asyncio.Task[Reply]) -> None:
            with acting(job.by):
                attempt("job.defect", self._task_ended, job, task)

        job.task = asyncio.get_running_loop().create_task(run(), name=f"job {job.number} {job.kind}")
        job.task.add_done_callback(ended)

    def _task_ended(self, job: Job, task: asyncio.Task[Reply]) -> None:
        if task.cancelled():
            # A daemon that stops leaves the row as it is, for the next start to decide.
            if not self._closing:
                self._ended(job, JobState.CANCELLED)
            return
        failure = task.exception()
        if failure is None:
            self._ended(job, JobState.DONE, result=task.result())
        elif isinstance(failure, FarshoreError):
            self._ended(job, JobState.FAILED, error=failure)
        elif isinstance(failure, OSError):
            text = f"{job.kind}: {failure.strerror or failure}"
            next_step = "check the disk of the data directory, then begin it again"
            self._ended(
                job, JobState.FAILED, error=FarshoreError(text, subject=job.subject, next_step=next_step)
            )
        else:
            log.error("job.defect", job=job.number, kind=job.kind, exc_info=failure)
            error = FarshoreError(
                f"{job.kind} failed inside the daemon",
                subject=job.subject,
                next_step="see the daemon's log",
            )
            self._ended(job, JobState.FAILED, error=error)

    def _ended(
        self, job: Job, state: JobState, *, result: Reply | None = None, error: FarshoreError | None = None
    ) -> None:
        job.state, job.result = state, msgspec.to_builtins(result)
        job.error = msgspec.convert(error.as_dict(), ErrorInfo) if error else None
        job.ended_utc_ns = self._clock.utc_ns()
        job.cancelling = False
        try:
            self._put(job)
            self._forget_old()
        except (FarshoreError, OSError) as failure:
            # A full disk: the next start will take the job for one that was stopped. No reason not to start.
            self._emit(
                "job.not_saved", group=job.group, object=job.subject, job=job.number, error=str(failure)
            )
        job.moved()
        self._emit(
            f"job.{state.value}",
            group=job.group,
            object=job.subject,
            job=job.number,
            job_kind=job.kind,
            reason=error.message if error else "",
        )

    def _forget_old(self) -> None:
        ended = [each.number for each in self.all() if each.state is not JobState.RUNNING]
        for number in ended[ENDED_KEPT_MAX:]:
            del self._jobs[number]
            self._state.remove_notes(TABLE, [_NUMBER.pack(number)])
            self._state.remove_notes(GIVERS, [_NUMBER.pack(number)])

    def _put(self, job: Job) -> None:
        row = (
            job.kind,
            job.group,
            job.subject,
            job.state.value,
            job.resumable,
            job.began_utc_ns,
            job.ended_utc_ns,
            *(json.dumps(msgspec.to_builtins(each)) for each in (job.arguments, job.result, job.error)),
        )
        self._state.put_notes(TABLE, {_NUMBER.pack(job.number): pack_row(row)})

    def all(self) -> list[Job]:
        """Newest first."""
        return [self._jobs[number] for number in sorted(self._jobs, reverse=True)]

    def running(self, kind: str = "", group: str = "") -> list[Job]:
        """Those that run, of a kind or a group if given, newest first."""
        return [
            job
            for job in self.all()
            if job.state is JobState.RUNNING and kind in ("", job.kind) and group in ("", job.group)
        ]

    def get(self, number: int) -> Job:
        """One job; NotFound."""
        job = self._jobs.get(number)
        if job is None:
            raise NotFound(
                f"there is no job {number} here", subject=str(number), next_step="`farshore job list`"
            )
        return job

    async def cancel(self, number: int) -> Job:
        """Ask a job to end and wait a moment for it. Twice is fine."""
        job = self.get(number)
        if job.state is JobState.RUNNING and job.task is not None:
            if not job.cancelling:
                job.cancelling = True
                job.task.cancel()
                job.moved()
            await asyncio.wait({job.task}, timeout=CANCEL_WAIT_S)
        return job

    async def close(self) -> None:
        """End every job's task; their rows stay as they are."""
        self._closing = True
        tasks = {job.task for job in self.running() if job.task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def check_row(key: bytes, value: bytes) -> None:
    """Whether it is a job's. RemoteProtocolError, ValueError or StructError."""
    _read(key, value)


def check_giver(key: bytes, value: bytes) -> None:
    """Whether it says who began a job. RemoteProtocolError, ValueError or StructError."""
    _read_giver(key, value)


def _read_giver(key: bytes, value: bytes) -> tuple[int, tuple[int, str]]:
    return _number_in(key), GIVER.decode(value)


def _number_in(key: bytes) -> int:
    number = int(_NUMBER.unpack(key)[0])
    if not 1 <= number <= NUMBER_MAX:
        raise ValueError("jobs are numbered from 1 on, and not so high")
    return number


def _read(key: bytes, value: bytes) -> Job:
    number = _number_in(key)
    kind, group, subject, state, resumable, began, ended, *texts = ROW.decode(value, ROW_BYTES_MAX)
    arguments, result, error = (_plain(text) for text in texts)
    if arguments is None:
        raise ValueError("a job has arguments")
    job = Job(
        number=number,
        kind=kind,
        group=group,
        subject=subject,
        arguments=arguments,
        resumable=resumable,
        began_utc_ns=began,
    )
    job.state, job.ended_utc_ns = state, ended
    job.result = result
    job.error = msgspec.convert(error, ErrorInfo) if error else None
    return job


def _plain(text: str) -> Data | None:
    """A JSON object, or nothing, that a reply can carry. ValueError."""
    found = json.loads(text)
    if found is not None and not isinstance(found, dict):
        raise ValueError("not an object")
    try:
        pack_row((found,))
    except OverflowError as error:
        raise ValueError(f"no reply can carry it: {error}") from error
    return found
