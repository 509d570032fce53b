"""`farshore job`: what runs for long at a site. `follow_job` is for every command that begins a job: it shows
the job's progress, and leaves the job running when the command is interrupted.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from console.figures import size_text
from console.options import After, Limit
from console.session import Session, session_of
from protocol.commands.base import ReplyType
from protocol.commands.job import JobCancel, JobInfo, JobList, JobShow, JobWatch
from protocol.errors import FarshoreError, RemoteProtocolError, error_from_dict

WATCH_SLICE_S = 5.0
# A daemon that is slow for a moment must not end a long watch.
WATCH_GRACE_S = 20.0

app = typer.Typer(help="Long work of the site.", no_args_is_help=True, rich_markup_mode=None)

JobArgument = Annotated[int, typer.Argument(metavar="JOB", help="A job's number.", min=1)]


def follow_job(session: Session, job: JobInfo) -> JobInfo:
    """JOB once it is done; its progress until then. Ctrl-C leaves the job running and says how to come back.
    Raises FarshoreError if the job failed or was cancelled."""
    number = job.job
    try:
        with session.output.activity(f"{job.kind} {job.object}") as activity:
            while job.state == "running":
                command = JobWatch(job=number, since=job.serial, wait_s=WATCH_SLICE_S)
                job = session.call(command, WATCH_SLICE_S + WATCH_GRACE_S)
                text = f"{job.kind} {job.object}: {progress_text(job)}"
                activity.update(job, text, done=job.done, total=job.total)
    except KeyboardInterrupt:
        session.output.note(
            f"job {number} goes on: `farshore job watch {number}`, or `farshore job cancel {number}`"
        )
        raise
    if job.state == "failed":
        raise error_from_dict(msgspec.to_builtins(job.error) or {})
    if job.state != "done":
        raise FarshoreError(f"job {number} was cancelled", subject=job.object, next_step="begin it again")
    return job


def job_result(job: JobInfo, kind: type[ReplyType]) -> ReplyType:
    """The result of a job that is done. Raises RemoteProtocolError unless it is of that type."""
    try:
        return msgspec.convert(job.result, kind)
    except msgspec.ValidationError as error:
        raise RemoteProtocolError(f"bad result of job {job.job}: {error}") from error


def progress_text(job: JobInfo) -> str:
    """How far a job is, in words."""
    done, total, unit = job.done, job.total, job.unit
    if unit == "bytes":
        far = f"{size_text(done)} of {size_text(total)}" if total else size_text(done)
    elif unit:
        far = f"{done} of {total} {unit}" if total else f"{done} {unit}"
    else:
        far = ""
    return " ".join(part for part in (job.text, far) if part)


@app.command("list")
def list_jobs(
    ctx: typer.Context,
    group: Annotated[str | None, typer.Argument(metavar="G", help="A group; all without.")] = None,
    limit: Limit = None,
    after: After = None,
) -> None:
    """Jobs that run, and the latest that ended."""
    session = session_of(ctx)
    data = session.listed(JobList(group=group), limit, after)
    columns = ("job", "kind", "object", "state", "began", "by", "progress")

    def show() -> None:
        rows = [
            (
                str(job.job),
                job.kind,
                job.object,
                _state(job),
                session.local(job.began),
                job.by,
                progress_text(job),
            )
            for job in data.jobs
        ]
        session.output.table(columns, rows, empty="no jobs")

    session.output.result("job.list", data, show)
    session.say_more(data)


@app.command("show")
def show_job(ctx: typer.Context, job: JobArgument) -> None:
    """One job: where it is, and its result."""
    session = session_of(ctx)
    data = session.call(JobShow(job=job))
    session.output.result("job", data, lambda: _show(session, data))


@app.command("watch")
def watch_job(ctx: typer.Context, job: JobArgument) -> None:
    """Follow a job to its end; Ctrl-C leaves it running. Ends with the job's own exit code if it failed."""
    session = session_of(ctx)
    data = follow_job(session, session.call(JobShow(job=job)))
    session.output.result("job", data, lambda: _show(session, data))


@app.command("cancel")
def cancel_job(ctx: typer.Context, job: JobArgument) -> None:
    """End a job. What it had done so far stays; one that is resumable can be begun again from there."""
    session = session_of(ctx)
    data = session.call(JobCancel(job=job))
    session.output.result("job", data, lambda: _show(session, data))


def _state(job: JobInfo) -> str:
    return "cancelling" if job.cancelling and job.state == "running" else job.state


def _show(session: Session, job: JobInfo) -> None:
    result = job.result or {}
    session.output.fields(
        [
            ("job", str(job.job)),
            ("kind", job.kind),
            ("object", job.object),
            ("state", _state(job)),
            ("began", session.local(job.began)),
            ("ended", session.local(job.ended)),
            ("by", job.by),
            ("progress", progress_text(job)),
            ("resumable", "yes" if job.resumable else ""),
            ("error", job.error.message if job.error else ""),
            ("next", job.error.next if job.error else ""),
            *((name, str(value)) for name, value in result.items() if not isinstance(value, list | dict)),
        ]
    )
