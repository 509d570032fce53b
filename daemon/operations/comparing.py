"""The full compare after a restore, as a job: every block of what was restored against the cut it came
from.

The restore itself compares visibilities and a sample before it says that it is done (invariant 14); this
reads all of it, with each block's checksum, in small slices between which hosts are served. It ends in
VERIFIED: a copy of that cut, all of whose volumes were read, is verified from then on. After a restart of the
daemon it begins again.

A volume that is turned back once more is compared with the newest cut only: what an earlier restore led to is
no longer what hosts see. And however many compares there are, together they read at one pace.
"""

from __future__ import annotations

import asyncio
from functools import partial

from daemon.jobs import Job
from daemon.operations.paging import in_slices
from daemon.site import Site
from engine.group.group import Group
from engine.index.view import VolumeView
from protocol.commands.restore import CompareResult
from protocol.errors import FarshoreError, Mismatch
from protocol.limits import BLOCK_BYTES
from protocol.positions import Cut, parse_cut
from site_primary.restore_volume import RestorePlan, check_restored
from site_primary.shipping.rate_limit import TokenBucket

KIND = "compare"
# What is compared at one stroke, on the hosts' loop: about a millisecond, at most some fifty times a second.
SLICE_BYTES = 32 * BLOCK_BYTES
RATE_BYTES_S = 16 << 20
HOLE_BYTES_MAX = 1 << 30
SHOW_EVERY_S = 0.25


def start(site: Site, group: Group, volumes: list[str], cut: Cut, after: Cut, name: str) -> Job:
    """Begin to compare volumes (by name) at `after`, a cut since which no restore wrote, with `cut`. Ends the
    compares of earlier restores of them."""
    earlier = site.jobs.running(KIND, group.name)
    arguments = {"volumes": volumes, "cut": str(cut), "after": str(after)}
    job = site.jobs.start(
        KIND, partial(work, site), group=group.name, subject=name, arguments=arguments, resumable=True
    )
    for each in earlier:
        if all(_is_superseded(site, each, volume) for volume in each.arguments["volumes"]):
            site.spawn(site.jobs.cancel(each.number))
    return job


async def sample(site: Site, group: Group, plan: RestorePlan) -> int:
    """The check by which a restore claims success (site_primary.restore_volume), right after it. Begun before
    anything is awaited; of a group of many volumes it takes longer than other hosts may wait."""
    return await in_slices(site, check_restored(group, plan, site.rng))


def _is_superseded(site: Site, job: Job, volume: str) -> bool:
    """Whether the compare of a later restore of a volume runs."""
    newer = (each for each in site.jobs.running(KIND, job.group) if each.number > job.number)
    return any(volume in each.arguments["volumes"] for each in newer)


async def work(site: Site, job: Job) -> CompareResult:
    """The job. Mismatch names the first block that differs; Corruption one that cannot be read."""
    group = site.group(job.group)
    cut, after = parse_cut(job.arguments["cut"]), parse_cut(job.arguments["after"])
    leases = group.kept.leases
    names = {f"job:{job.number}:{end}": each for end, each in (("cut", cut), ("after", after))}
    began_utc_ns = site.clock.utc_ns()
    try:
        for lease, each in names.items():
            leases.hold(lease, each, durable=True)
        views = {}
        for volume in job.arguments["volumes"]:
            now = group.kept.view_at(volume, after)
            views[volume] = (group.kept.view_of(now.volume, cut), now)
        views = await _compare(site, job, group, views)
    finally:
        for lease in names:
            leases.release(lease)
    compared = {past.volume for past, _ in views.values()}
    verified = [
        copy
        for copy in group.copies.of_cut(group.spans(group.writer.written), cut)
        if compared.issuperset(copy.volumes)
    ]
    for copy in verified:
        group.copies.verified(copy.id, began_utc_ns)
    group.emit("restore.verified", group=group.name, object=job.subject, cut=str(cut), bytes=job.done)
    return CompareResult(
        group=group.name,
        volumes=list(views),
        cut=str(cut),
        position=str(after),
        state="verified",
        compared_bytes=job.done,
        verified=[f"{copy.id:016x}" for copy in verified],
    )


async def _compare(
    site: Site, job: Job, group: Group, views: dict[str, tuple[VolumeView, VolumeView]]
) -> dict[str, tuple[VolumeView, VolumeView]]:
    """Those that were compared to their end."""
    pace, sharing, compared = TokenBucket(RATE_BYTES_S), 1, {}
    total = sum(past.size_bytes for past, _ in views.values())
    done = 0
    shown = site.clock.monotonic()
    for volume, (past, now) in views.items():
        offset, reach = 0, SLICE_BYTES
        while offset < past.size_bytes and not _is_superseded(site, job, volume):
            length, read_bytes = _slice(group, volume, past, now, offset, reach)
            # A look further than a slice costs nothing in a hole, and is in vain in data.
            reach = SLICE_BYTES if read_bytes else min(2 * reach, HOLE_BYTES_MAX)
            offset += length
            done += length
            moment = site.clock.monotonic()
            if (running := max(1, len(site.jobs.running(KIND)))) != sharing:
                pace.set_rate(RATE_BYTES_S // running, moment)
                sharing = running
            pace.spend(read_bytes, moment)
            if moment - shown > SHOW_EVERY_S:
                job.progress(done, total, "bytes", volume)
                shown = moment
            await asyncio.sleep(pace.wait_s(1, moment))
        if offset >= past.size_bytes:
            compared[volume] = past, now
    job.progress(done, total, "bytes")
    return compared


def _slice(
    group: Group, volume: str, past: VolumeView, now: VolumeView, offset: int, reach: int
) -> tuple[int, int]:
    """Compare some bytes from an offset, looking for a hole as far as `reach`; how many, and how many were
    read for it."""
    left = min(past.size_bytes - offset, reach)
    holes = [view.extents(offset, left, only_one=True)[0] for view in (past, now)]
    if not any(data for _, data in holes):
        return min(size for size, _ in holes), 0
    length = min(left, SLICE_BYTES)
    try:
        with past.batch() as batch:
            one, other = past.read(batch, offset, length), now.read(batch, offset, length)
    except FarshoreError as error:
        group.damage.read_failed(error)
        raise
    if one != other:
        at = next(i for i in range(length) if one[i] != other[i])
        name = f"{group.name}/{volume}"
        raise Mismatch(
            f"{name} was restored, but block {(offset + at) // BLOCK_BYTES} differs from the cut's",
            subject=name,
            position=str(offset + at),
            next_step=f"take {name} offline; `farshore verify {group.name} --deep --repair`",
        )
    return length, 2 * length
