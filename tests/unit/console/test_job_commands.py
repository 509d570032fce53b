"""Jobs that a command follows to their end, and what it makes of their results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from console.commands.job import job_result
from protocol.commands.job import ErrorInfo, JobInfo, JobWatch
from protocol.commands.verify import VerifyResult
from protocol.errors import ExitCode, RemoteProtocolError
from tests.unit.console.conftest import Ran
from tests.unit.console.stub_site import StubSite

Run = Callable[..., Ran]
RESULT = VerifyResult(
    group="vm1",
    ok=True,
    deep=True,
    frames=3,
    bytes=8192,
    versions=4,
    damage=[],
    took_s=1.5,
    complete=False,
    since=None,
    damaged=0,
    backups=[],
    volumes=[],
    verified=["00000000000000ab"],
    mended=0,
)
DONE = JobInfo(
    job=3,
    kind="verify",
    group="vm1",
    object="vm1",
    state="done",
    resumable=True,
    cancelling=False,
    began="2026-07-03T00:45:00Z",
    ended="2026-07-03T00:46:00Z",
    done=8192,
    total=None,
    unit="bytes",
    text="index",
    serial=4,
    result=msgspec.to_builtins(RESULT),
    error=None,
)


def test_a_job_is_followed_to_its_result(stub: StubSite, farshore: Run) -> None:
    stub.replies |= {"verify.start": replace(DONE, state="running", result=None), "job.watch": DONE}
    ran = farshore("verify", "vm1", "--deep", "--json", "--site", str(stub.directory))
    assert ran.code == ExitCode.PARTIAL
    progress, verified = ran.json
    assert progress["data"] == msgspec.to_builtins(DONE)
    assert verified["data"] == DONE.result
    assert stub.asked[1:] == [JobWatch(job=3, since=4, wait_s=5.0)]


def test_a_job_that_failed_ends_with_its_own_code(stub: StubSite, farshore: Run) -> None:
    error = ErrorInfo(code="busy", exit_code=11, message="no", object="vm1", position="", next="wait")
    stub.replies["job.show"] = replace(DONE, state="failed", result=None, error=error)
    ran = farshore("job", "watch", "3", "--site", str(stub.directory))
    assert (ran.code, ran.err) == (11, "error: no\nobject: vm1\nnext: wait\n")


@pytest.mark.parametrize("result", [None, {}, {**(DONE.result or {}), "frames": "3"}])
def test_a_result_of_another_shape_is_refused(result: dict[str, Any] | None) -> None:
    assert job_result(DONE, VerifyResult) == RESULT
    with pytest.raises(RemoteProtocolError, match="bad result of job 3"):
        job_result(replace(DONE, result=result), VerifyResult)
