"""Commands about jobs, and which kinds go on after a restart."""

from __future__ import annotations

from functools import partial
from typing import Any

from daemon.jobs import Work
from daemon.operations import comparing, verifying
from daemon.operations.paging import beyond, page_of, start_of
from daemon.site import Site
from protocol.job_commands import JobCancel, JobList, JobShow, JobWatch

Data = dict[str, Any]


def resume_jobs(site: Site) -> None:
    """Take up the jobs of the last run."""
    works: dict[str, Work] = {module.KIND: partial(module.work, site) for module in (verifying, comparing)}
    site.jobs.resume(works)


async def list_jobs(site: Site, command: JobList) -> Data:
    """Those that run, and the latest that ended. Without results: a hundred would not fit into a reply."""
    jobs = [job for job in site.jobs.all() if command.group is None or job.group == command.group]
    rows = beyond((((-job.number,), job) for job in jobs), start_of(command, tuple[int]))
    return await page_of(site, command, "jobs", rows, lambda job: job.as_dict() | {"result": None})


async def show(site: Site, command: JobShow) -> Data:
    """One job."""
    return site.jobs.get(command.job).as_dict()


async def watch(site: Site, command: JobWatch) -> Data:
    """One job, once it moved."""
    job = site.jobs.get(command.job)
    await job.wait_past(command.since, command.wait_s)
    return job.as_dict()


async def cancel(site: Site, command: JobCancel) -> Data:
    """End one job."""
    return (await site.jobs.cancel(command.job)).as_dict()
