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
from protocol.limits import RATE_BYTES_S_MAX
from protocol.pages import PagedCommand

JobNumber = Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]


class JobList(PagedCommand, frozen=True, tag="job.list"):
    """Those that run and those that ended a while ago, newest first. {"jobs": [JOB, without its result]}"""

    group: Name | None = None


class JobShow(BaseCommand, frozen=True, tag="job.show"):
    """JOB"""

    job: JobNumber


class JobWatch(BaseCommand, frozen=True, tag="job.watch"):
    """Answers once the job has a serial above `since`, or after `wait_s`. JOB"""

    job: JobNumber
    since: Annotated[int, Meta(ge=-1, le=(1 << 63) - 1)] = -1
    wait_s: WaitSeconds = 1.0


class JobCancel(BaseCommand, frozen=True, tag="job.cancel"):
    """Ask a job to end; twice is fine, and so is one that has ended. JOB"""

    job: JobNumber


class VerifyStart(BaseCommand, frozen=True, tag="verify.start"):
    """Begin to check everything that a group holds here, byte by byte, as a job that goes on where the last
    one stopped; the one that runs already, if it was asked for the same. `deep` false: only with `repair`,
    for what is known to be damaged. `rate_bytes_s` 0: as fast as it goes; `for_s` null: to the end.
    JOB with the result {"group", "ok": bool (no damage is known), "deep": bool, "complete": bool (to the
    end), "since": str|null (the oldest check that counts), "frames": int, "bytes": int, "versions": int,
    "damage": [DAMAGE] (the first of it), "damaged": int, "backups": [{"id": hex16, "label": str|null,
    "damaged": int}] (those affected), "volumes": [str] (affected as they are now), "verified": [hex16],
    "mended": int, "took_s": float}
    DAMAGE is {"object": str, "position": str, "message": str, "next": str}."""

    group: Name
    deep: bool = True
    repair: bool = False
    rate_bytes_s: Annotated[int, Meta(ge=0, le=RATE_BYTES_S_MAX)] = 0
    for_s: Annotated[float, Meta(gt=0)] | None = None
