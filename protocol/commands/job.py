"""Jobs: what runs for long at a site, whoever asked for it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from protocol.bounds import Name
from protocol.commands.base import BaseCommand, Query, Reply, WaitSeconds
from protocol.commands.pages import ListReply, PagedCommand

JobNumber = Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]


class ErrorInfo(Reply, frozen=True, kw_only=True):
    """What failed and why: `error` of a job, or one of the `errors` of a line."""

    code: str
    exit_code: int
    message: str
    object: str
    position: str
    next: str


class JobInfo(Reply, frozen=True, kw_only=True):
    """A job. `resumable`: goes on after a restart of the daemon. `done` and `total` in `unit`; `text`: what
    it is at; `serial` grows with each step. `result` has the fields that the command which began it says,
    as they were written. `by`: who began it, as events say it; empty if nobody knows."""

    job: int
    kind: str
    group: str
    object: str
    state: Literal["running", "done", "failed", "cancelled"]
    resumable: bool
    cancelling: bool
    began: str
    ended: str | None
    done: int
    total: int | None
    unit: str
    text: str
    serial: int
    result: dict[str, Any] | None
    error: ErrorInfo | None
    by: str = ""


class JobListReply(ListReply, frozen=True, kw_only=True):
    """Newest first, without their results."""

    jobs: list[JobInfo]


class JobList(PagedCommand[JobListReply], frozen=True, tag="job.list"):
    """Those that run and those that ended a while ago."""

    group: Name | None = None


class JobShow(Query[JobInfo], frozen=True, tag="job.show"):
    """One job."""

    job: JobNumber


class JobWatch(Query[JobInfo], frozen=True, tag="job.watch"):
    """Answers once the job has a serial above `since`, or after `wait_s`."""

    job: JobNumber
    since: Annotated[int, Meta(ge=-1, le=(1 << 63) - 1)] = -1
    wait_s: WaitSeconds = 1.0


class JobCancel(BaseCommand[JobInfo], frozen=True, tag="job.cancel"):
    """Ask a job to end; twice is fine, and so is one that has ended."""

    job: JobNumber
