"""Drills at the secondary of a pair that is written to: what they find and leave, whom they disturb."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from console.client import Client
from console.mounts.mounting import mounts
from protocol.commands.pair import PairInfo, PairShow
from protocol.endpoints import control_endpoint
from tests.conftest import missing
from tests.support.clients import MIB, succeed
from tests.support.pairs import start_fio, start_pair, wait_until
from tests.support.sites import Site, farshore_command, running_sites

FULL = os.environ.get("FARSHORE_FULL") == "1"
LOAD_BYTES = 256 * MIB
QUIET_S = 30.0 if FULL else 3.0
POLL_S = 0.1
# A drill shares the machine with both sites and the host here, so its work alone delays them all a little.
LAG_MOST_BYTES = 64 * MIB


@pytest.fixture(scope="module")
def sites(tool: Callable[[str], str]) -> Iterator[tuple[Site, Site]]:
    """A pair; group `g` has `v`, an ext4 file system with a file of orders, and `load`, to be written to."""
    for name in ("nbdfuse", "losetup", "mkfs.ext4", "e2fsck", "fio"):
        tool(name)
    if os.geteuid() != 0 or not Path("/dev/fuse").exists() or not Path("/dev/loop-control").exists():
        missing("mounting needs root, /dev/fuse and loop devices")
    with running_sites("a", "b") as (a, b):
        tree, image = a.directory.parent / "tree", a.directory.parent / "image"
        tree.mkdir()
        (tree / "orders").write_text("".join(f"order {number}\n" for number in range(1000)))
        with image.open("wb") as file:
            file.truncate(64 * MIB)
        succeed(tool("mkfs.ext4"), "-q", "-d", tree, image)
        start_pair(a, b, "g/v", 64 * MIB)
        succeed(tool("nbdcopy"), image, a.uri("g/v"))
        a.create_volume("g/load", str(LOAD_BYTES))
        a.farshore("wait", "g")
        yield a, b
        for site in (a, b):
            assert site.stop() == 0
            site.check_log()


@contextmanager
def watched(site: Site) -> Iterator[list[PairInfo]]:
    """The pair, looked at again and again meanwhile."""
    seen: list[PairInfo] = []
    stop = threading.Event()

    def look() -> None:
        client = Client(control_endpoint(str(site.directory)))
        while not stop.wait(POLL_S):
            seen.append(client.call(PairShow(group="g")))
        client.close()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join(20)


def nothing_is_left(site: Site) -> None:
    """No clone, and no mount of a drill."""
    assert site.json("clone", "list")["clones"] == []
    assert [each.export for each in mounts() if each.site == str(site.directory)] == []


def durable_there(seen: list[PairInfo]) -> list[int]:
    """What was durable at the peer, each time."""
    return [each.remote_durable or 0 for each in seen]


def lags(seen: list[PairInfo]) -> tuple[int, float]:
    """The largest lag seen, in bytes and in seconds."""
    known = [(each.lag_bytes, each.lag_s) for each in seen]
    return (
        max(lag_bytes for lag_bytes, _ in known if lag_bytes is not None),
        max(lag_s for _, lag_s in known if lag_s is not None),
    )


@pytest.mark.slow
@pytest.mark.alone
def test_a_drill_at_the_secondary_disturbs_nobody(
    sites: tuple[Site, Site], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = sites
    load = start_fio(
        a, "g/load", "--time_based", "--runtime=120", "--rate_iops=400", size=str(LOAD_BYTES), timeout_s=150
    )
    try:
        with watched(a) as before:
            time.sleep(QUIET_S)  # what is measured is this span
        check = 'test "$(grep -c order "$FARSHORE_MOUNT_V/orders")" = 1000 && test -b "$FARSHORE_DEVICE_LOAD"'
        with watched(a) as during:
            began = time.monotonic()
            data = b.json("drill", "run", "g", "--check", check)
            took_s = time.monotonic() - began
            # A drill may be over before the peer's next sync.
            wait_until(lambda: len(durable := durable_there(during)) > 1 and durable[-1] > durable[0], 5)
        assert load.poll() is None
    finally:
        load.terminate()
        load.wait(20)
    steps = {(step["volume"], step["step"]): step["state"] for step in data["steps"]}
    assert steps == {
        ("", "clone"): "ok",
        ("v", "attach"): "ok",
        ("v", "fsck"): "ok",
        ("v", "mount"): "ok",
        ("load", "attach"): "ok",
        ("load", "mount"): "skipped",
        ("", "check"): "ok",
    }
    assert data["ok"]
    assert 0 < data["recovery_s"] <= took_s
    assert data["data_age_s"] < 5
    nothing_is_left(b)
    assert {each.state for each in before + during} == {"paired"}
    most_bytes, _ = lags(during)
    assert most_bytes <= LAG_MOST_BYTES
    shown = f"{lags(before)}, {lags(during)}"
    with capsys.disabled():
        print(
            f"\ndrill: {data['recovery_s']} s, data {data['data_age_s']} s old, lag before, during: {shown}"
        )

    status = b.json("status")["groups"][0]["last_drill"]
    assert (status["drill"], status["ok"]) == (data["drill"], True)
    assert re.search(r"\| drill \d+(\.\d)? s ago \d+(\.\d)? s", b.farshore("status"))
    report = b.json("drill", "report")["groups"][0]
    assert (report["drills"], report["ok"]) == (1, 1)
    assert report["recovery_max_s"] == data["recovery_s"]
    assert any(event["kind"] == "drill.ok" for event in b.json("events")["events"])


@pytest.mark.slow
def test_a_drill_that_finds_something_wrong_says_what(sites: tuple[Site, Site]) -> None:
    _, b = sites
    result = b.run("drill", "run", "g/v", "--check", 'echo "no $FARSHORE_GROUP"; exit 3')
    assert result.returncode == 1, result.stderr
    assert "g did not prove good at b" in result.stdout
    last = b.json("drill", "show", "g")
    assert last["ok"] is False
    assert last["steps"][-1] == {**last["steps"][-1], "step": "check", "state": "failed", "said": "no g"}
    assert "failed" in b.farshore("status")
    assert [event["level"] for event in b.json("events")["events"] if event["kind"] == "drill.failed"] == [
        "warning"
    ]
    nothing_is_left(b)


@pytest.mark.slow
def test_a_drill_that_is_interrupted_leaves_nothing(sites: tuple[Site, Site]) -> None:
    _, b = sites
    drills = len(b.json("drill", "list", "g")["drills"])
    started = b.directory.parent / "started"
    os.mkfifo(started)
    for number in (signal.SIGINT, signal.SIGTERM):
        words = ["drill", "run", "g/v", "--check", f"echo > {started}; sleep 300", "--site", str(b.directory)]
        with subprocess.Popen(
            [*farshore_command(), *words],
            env=b.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            started.read_text()
            process.send_signal(number)
            assert process.wait(60) == 130
        nothing_is_left(b)
    assert len(b.json("drill", "list", "g")["drills"]) == drills
