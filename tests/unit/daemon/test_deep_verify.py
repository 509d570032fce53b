"""A deep verification at a real site: who had it made is known, and each run of it gets on."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import msgspec

from console.demo.host import Host
from daemon.site import Site
from engine.acting import acting
from protocol.commands.backup import BackupCreate, BackupShow
from protocol.commands.job import JobList, JobShow
from protocol.commands.verify import VerifyResult, VerifyStart
from protocol.commands.volume import VolumeCreate
from protocol.cut_text import CutLabel
from tests.support.sites import short_directory
from tests.unit.daemon.stage import carried_out, make_one_site

MIB = 1 << 20
WRITTEN_MIB = 12
NO_TIME_S = 1e-9


async def filled(site: Site) -> None:
    """A group whose journal takes several slices, with a backup of it."""
    await carried_out(site, VolumeCreate(group="g", volume="v", size_bytes=32 * MIB))

    def write() -> None:
        rng = random.Random(1)
        with Host(Path(site.nbd_addresses[0].removeprefix("unix:")), "g/v") as host:
            for at in range(WRITTEN_MIB):
                host.write(at * MIB, rng.randbytes(MIB))
            host.flush()

    await asyncio.to_thread(write)
    await carried_out(site, BackupCreate(group="g", label="b1"))


async def verified(site: Site, for_s: float | None) -> VerifyResult:
    number = (await carried_out(site, VerifyStart(group="g", for_s=for_s))).job
    task = site.jobs.get(number).task
    assert task is not None
    await asyncio.wait({task})
    return msgspec.convert((await carried_out(site, JobShow(job=number))).result, VerifyResult)


async def each_run_gets_on(site: Site) -> None:
    """Its time is over before it begins, as at a machine where the checkpoint before it takes long."""
    before, runs = 0, 0
    while True:
        part = await verified(site, NO_TIME_S)
        assert part.bytes > before
        before, runs = part.bytes, runs + 1
        if part.complete:
            break
        assert part.bytes < 2 * WRITTEN_MIB * MIB
    assert runs > 2
    assert before >= 2 * WRITTEN_MIB * MIB  # the journal, and every version


async def who_had_it_made_is_known(site: Site) -> None:
    with acting("operator:anna"):
        await verified(site, None)
    (newest, *others) = (await carried_out(site, JobList())).jobs
    assert newest.by == "operator:anna"
    assert {each.by for each in others} == {""}  # nobody's: this test began them
    done = [event for event in site.events.since(0, 1000)[0] if event.kind == "job.done"]
    assert done[-1].by == "operator:anna"
    (proven,) = (await carried_out(site, BackupShow(group="g", cut=CutLabel(label="b1")))).proven
    assert (proven.how, proven.ok, proven.by) == ("verified", True, "operator:anna")


def test_a_deep_verification() -> None:
    async def main() -> None:
        site = await make_one_site(short_directory(), "a")
        try:
            await filled(site)
            await each_run_gets_on(site)
            await who_had_it_made_is_known(site)
        finally:
            await site.stop()

    asyncio.run(main())
