"""A host that checks what it reads back rides through everything that may happen to the other site."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.pairs import same_at_the_cut, wait_for_states, wait_until
from tests.support.sites import Site

pytestmark = [pytest.mark.slow, pytest.mark.alone]

# Longer than any disturbance takes: the host is told to end.
RUN_S = 100
SIZE = "32M"
CHECK_EVERY = 2000


def start_checking_host(fio: str, uri: str, report: Path) -> subprocess.Popen[bytes]:
    """fio that overwrites the volume again and again and reads back what it wrote, until a file `stop` is
    there beside the report."""
    words = [fio, "--name=host", "--ioengine=nbd", f"--uri={uri}", f"--size={SIZE}", "--bs=4k"]
    words += ["--rw=randwrite", "--iodepth=16", "--rate_iops=3000", "--time_based", f"--runtime={RUN_S}"]
    words += ["--verify=crc32c", "--verify_fatal=1", "--do_verify=1", f"--verify_backlog={CHECK_EVERY}"]
    words += [
        f"--trigger-file={report.parent / 'stop'}",
        "--trigger=true",
        "--output-format=json",
        f"--output={report}",
    ]
    with report.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, cwd=report.parent)


def written(primary: Site) -> int:
    """Bytes of the group's journal."""
    position: int = primary.json("pair", "show", "g")["written"]
    return position


def let_write(primary: Site, host: subprocess.Popen[bytes]) -> None:
    """Until the host has written what it is to read back, or ended."""
    goal = written(primary) + 2 * CHECK_EVERY * 4096
    wait_until(lambda: written(primary) >= goal or host.poll() is not None, 60)


def restart_cleanly(primary: Site, secondary: Site) -> None:
    """A service manager's restart."""
    assert secondary.stop() == 0
    secondary.start()


def restart_after_kill(primary: Site, secondary: Site) -> None:
    """kill -9, and back."""
    secondary.kill()
    secondary.start()


def split_and_resync(primary: Site, secondary: Site) -> None:
    """An operator's pause."""
    primary.farshore("pair", "split", "g")
    wait_for_states("split", primary, secondary, group="g", timeout_s=10)
    primary.farshore("pair", "resync", "g")


@pytest.mark.parametrize("disturb", [restart_cleanly, restart_after_kill, split_and_resync])
def test_host_rides_through(
    pair: tuple[Site, Site],
    scratch: Path,
    tool: Callable[[str], str],
    disturb: Callable[[Site, Site], None],
) -> None:
    """Twice while the host writes; each time the pair comes back by itself, and in the end both are equal."""
    primary, secondary = pair
    uri = primary.create_volume("g/v", SIZE)
    primary.farshore("pair", "create", "g", "--with", secondary.name)
    primary.farshore("wait", "g", "--state", "paired", "--timeout", "30")
    report = scratch / "fio.json"
    host = start_checking_host(tool("fio"), uri, report)
    try:
        for _ in range(2):
            disturb(primary, secondary)
            primary.farshore("wait", "g", "--state", "paired", "--timeout", "30")
            # Disturbances may be over before the host has written what it is to read back.
            let_write(primary, host)
        assert host.poll() is None, "the host ended before the last disturbance was over"
        (scratch / "stop").touch()
        assert host.wait(60) == 0, report.with_suffix(".log").read_text()[-4000:]
    finally:
        host.kill()
        host.wait()
    (job,) = json.loads(report.read_text())["jobs"]
    assert job["error"] == 0
    assert job["write"]["total_ios"] > CHECK_EVERY
    assert job["read"]["total_ios"] >= CHECK_EVERY, "the host read nothing back"  # one batch of its writes
    same_at_the_cut(primary, secondary, "g", ("v",))
