"""Commands about jobs, and which kinds go on after a restart."""

from __future__ import annotations

from functools import partial

from msgspec.structs import replace

from daemon.jobs import Work
from daemon.operations import comparing, verify
from daemon.operations.paging import Page, beyond, rows_of, start_of
from daemon.operations.registry import carries_out
from daemon.site import Site
from protocol.commands.job import JobCancel, JobInfo, JobList, JobListReply, JobShow, JobWatch


def resume_jobs(site: Site) -> None:
    """Take up the jobs of the last run."""
    works: dict[str, Work] = {module.KIND: partial(module.work, site) for module in (verify, comparing)}
    site.jobs.resume(works)


@carries_out(JobList)
async def list_jobs(site: Site, command: JobList) -> Page[JobListReply]:
    """Those that run, and the latest that ended. Without results: a hundred would not fit into a reply."""
    jobs = [job for job in site.jobs.all() if command.group is None or job.group == command.group]
    rows = beyond((((-job.number,), job) for job in jobs), start_of(command, tuple[int]))
    found, more = await rows_of(site, command, rows, lambda job: replace(job.info(), result=None))
    return Page(JobListReply(jobs=found), more)


@carries_out(JobShow)
async def show(site: Site, command: JobShow) -> JobInfo:
    """One job."""
    return site.jobs.get(command.job).info()


@carries_out(JobWatch)
async def watch(site: Site, command: JobWatch) -> JobInfo:
    """One job, once it moved."""
    job = site.jobs.get(command.job)
    await job.wait_past(command.since, command.wait_s)
    return job.info()


@carries_out(JobCancel)
async def cancel(site: Site, command: JobCancel) -> JobInfo:
    """End one job."""
    return (await site.jobs.cancel(command.job)).info()
