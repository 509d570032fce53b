"""Jobs: their ends, their cancellation, and what a restart of the daemon makes of them."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from daemon.jobs import ENDED_KEPT_MAX, Job, Jobs, JobState
from engine.acting import acting, actor
from engine.group.site_state import SITE_TABLES, SiteState
from engine.ports.clock import SystemClock
from engine.ports.lmdb_store import LmdbStore
from protocol.commands.base import Reply
from protocol.errors import NotFound, Unsafe
from protocol.rows import pack_row

Body = Callable[["Rig"], Coroutine[Any, Any, None]]


class Seen(Reply, frozen=True, kw_only=True):
    """What the work of these tests gives."""

    seen: int


class Rig:
    """The jobs of one site over restarts."""

    def __init__(self, directory: Path) -> None:
        self.store = LmdbStore(directory / "state.mdb", 1 << 26, SITE_TABLES)
        self.events: list[str] = []
        self.jobs = self.reopen()

    def reopen(self) -> Jobs:
        clock = SystemClock(asyncio.get_running_loop())
        self.jobs = Jobs(SiteState(self.store), clock, lambda kind, **_: self.events.append(kind))
        return self.jobs

    def store_rows(self, table: str) -> dict[bytes, bytes]:
        return SiteState(self.store).notes(table)

    def put(self, table: str, key: bytes, value: bytes) -> None:
        SiteState(self.store).put_notes(table, {key: value})

    def start(self, work: Callable[[Job], Coroutine[Any, Any, Reply]], **options: Any) -> Job:
        fields: dict[str, Any] = {
            "group": "g",
            "subject": "g/v",
            "arguments": {"rate": 7},
            "resumable": False,
        }
        return self.jobs.start("work", work, **fields | options)


def run(directory: Path, body: Body) -> None:
    async def main() -> None:
        rig = Rig(directory)
        try:
            await body(rig)
        finally:
            rig.store.close()

    asyncio.run(main())


async def ended(job: Job) -> None:
    assert job.task is not None
    await asyncio.wait({job.task})
    await asyncio.sleep(0)  # the task's callbacks come with the next round of the loop


async def forever(job: Job) -> Reply:
    job.progress(1, 2, "bytes", "at it")
    await asyncio.Event().wait()
    return Reply()


def test_a_job_ends_with_its_result_and_stays_listed_over_a_restart(tmp_path: Path) -> None:
    async def body(rig: Rig) -> None:
        async def work(job: Job) -> Reply:
            return Seen(seen=job.arguments["rate"])

        job = rig.start(work)
        assert job.info().state == "running"
        await ended(job)
        assert job.info().result == {"seen": 7}
        rig.reopen().resume({})
        kept = rig.jobs.get(job.number).info()
        assert (kept.state, kept.result, kept.object) == ("done", {"seen": 7}, "g/v")
        assert rig.start(work).number == job.number + 1

    run(tmp_path, body)


def test_who_began_a_job_is_known_over_a_restart(tmp_path: Path) -> None:
    async def body(rig: Rig) -> None:
        heard = []

        async def work(job: Job) -> Reply:
            heard.append(actor())
            return await forever(job)

        with acting("operator:anna"):
            job = rig.start(work, resumable=True)
        own = rig.start(forever, resumable=True)
        await asyncio.sleep(0)
        await rig.jobs.close()
        rig.reopen().resume({"work": work})
        await asyncio.sleep(0)
        assert [rig.jobs.get(each.number).info().by for each in (job, own)] == ["operator:anna", ""]
        assert sorted(heard) == ["", "operator:anna", "operator:anna"]  # so its events say it, too
        await rig.jobs.close()
        # An earlier version gave the same number to another job.
        (key,) = rig.store_rows("job_givers")
        rig.put("job_givers", key, pack_row((job.began_utc_ns - 1, "operator:anna")))
        assert rig.reopen().get(job.number).info().by == ""

    run(tmp_path, body)


def test_who_began_it_goes_with_the_job(tmp_path: Path) -> None:
    async def body(rig: Rig) -> None:
        async def work(_: Job) -> Reply:
            return Reply()

        with acting("uid:0"):
            for _ in range(ENDED_KEPT_MAX + 2):
                await ended(rig.start(work))
        assert len(rig.store_rows("job_givers")) == len(rig.store_rows("jobs")) == ENDED_KEPT_MAX

    run(tmp_path, body)


@pytest.mark.parametrize(
    ("error", "code"), [(Unsafe("no", subject="x"), "unsafe"), (OSError(5, "EIO"), "failed")]
)
def test_work_that_fails_says_why(tmp_path: Path, error: Exception, code: str) -> None:
    async def body(rig: Rig) -> None:
        async def work(_: Job) -> Reply:
            raise error

        job = rig.start(work)
        await ended(job)
        assert job.state is JobState.FAILED
        assert job.error is not None
        assert job.error.code == code
        assert rig.events == ["job.failed"]

    run(tmp_path, body)


@pytest.mark.parametrize("who", ["", "operator"])
def test_a_job_that_cannot_be_written_down_did_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """It was listed as running until the next restart, and nothing could end it."""

    async def body(rig: Rig) -> None:
        put, tables = SiteState.put_notes, list[str]()

        def full(state: SiteState, table: str, rows: dict[bytes, bytes]) -> None:
            tables.append(table)
            if len(tables) == (2 if who else 1):
                raise OSError(errno.ENOSPC, "no room")
            put(state, table, rows)

        with monkeypatch.context() as patched, acting(who):
            patched.setattr(SiteState, "put_notes", full)
            with pytest.raises(OSError, match="no room"):
                rig.start(forever)
        assert rig.jobs.all() == []
        job = rig.start(forever)
        assert rig.jobs.running() == [job]
        assert rig.reopen().all()[0].by == ""

    run(tmp_path, body)


def test_a_cancelled_job_may_be_cancelled_again(tmp_path: Path) -> None:
    async def body(rig: Rig) -> None:
        job = rig.start(forever)
        await asyncio.sleep(0)
        await asyncio.gather(rig.jobs.cancel(job.number), rig.jobs.cancel(job.number))
        assert job.state is JobState.CANCELLED
        assert (await rig.jobs.cancel(job.number)).state is JobState.CANCELLED
        with pytest.raises(NotFound):
            await rig.jobs.cancel(99)

    run(tmp_path, body)


def test_who_watches_is_woken_by_each_step_and_by_the_end(tmp_path: Path) -> None:
    async def body(rig: Rig) -> None:
        job = rig.start(forever)
        await job.wait_past(0, 5.0)
        assert (job.done, job.total, job.text) == (1, 2, "at it")
        watcher = asyncio.ensure_future(job.wait_past(job.serial, 60.0))
        await rig.jobs.cancel(job.number)
        await asyncio.wait_for(watcher, 5.0)
        await asyncio.wait_for(job.wait_past(job.serial, 60.0), 5.0)  # nothing more will come

    run(tmp_path, body)


def test_a_restart_resumes_what_can_be_resumed_and_fails_the_rest(tmp_path: Path) -> None:
    async def body(rig: Rig) -> None:
        kept = rig.start(forever, resumable=True)
        lost = rig.start(forever)
        await asyncio.sleep(0)
        await rig.jobs.close()
        seen: list[int] = []

        async def again(job: Job) -> Reply:
            seen.append(job.arguments["rate"])
            return Reply()

        rig.reopen().resume({"work": again})
        await ended(rig.jobs.get(kept.number))
        assert seen == [7]
        assert rig.jobs.get(kept.number).state is JobState.DONE
        failed = rig.jobs.get(lost.number)
        assert failed.state is JobState.FAILED
        assert "stopped" in str(failed.error)

    run(tmp_path, body)


def test_only_the_latest_that_ended_are_kept(tmp_path: Path) -> None:
    async def body(rig: Rig) -> None:
        async def work(_: Job) -> Reply:
            return Reply()

        running = rig.start(forever)
        for _ in range(ENDED_KEPT_MAX + 3):
            await ended(rig.start(work))
        assert len(rig.jobs.all()) == ENDED_KEPT_MAX + 1
        assert rig.jobs.running() == [running]
        await rig.jobs.close()
        assert len(rig.reopen().all()) == ENDED_KEPT_MAX + 1

    run(tmp_path, body)
