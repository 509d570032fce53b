"""Commands about jobs: what runs for long at a site, whoever asked for it.

JOB is {"job": int, "kind": "verify"|"compare"|…, "group", "object": str, "state": "running"|"done"|"failed"|
"cancelled", "resumable": bool (goes on after a restart of the daemon), "cancelling": bool, "began", "ended":
str|null, "done": int, "total": int|null (of `unit`), "unit": str, "text": str (what it is at),
"serial": int (grows with each step), "result": {…}|null (as the command that began it says), "error": the
error as `errors` of a reply has it|null}.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from protocol.command_base import BaseCommand, Name, WaitSeconds

JobNumber = Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]


class JobList(BaseCommand, frozen=True, tag="job.list"):
    """Those that run and those that ended a while ago, newest first. {"jobs": [JOB]}"""

    group: Name | None = None


class JobShow(BaseCommand, frozen=True, tag="job.show"):
    """JOB"""

    job: JobNumber


class JobWatch(BaseCommand, frozen=True, tag="job.watch"):
    """Answers once the job has a serial above `since`, or after `wait_s`. JOB"""

    job: JobNumber
    since: Annotated[int, Meta(ge=-1)] = -1
    wait_s: WaitSeconds = 1.0


class JobCancel(BaseCommand, frozen=True, tag="job.cancel"):
    """Ask a job to end; twice is fine, and so is one that has ended. JOB"""

    job: JobNumber
