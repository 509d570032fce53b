"""kill -9 of either daemon at random moments under fio: nothing acknowledged is lost, the pair converges."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from console.demo.host import Host, Ledger
from protocol.limits import BLOCK_BYTES
from tests.support.sites import Site

KILLS = 20
BLOCKS = 4096
IN_FLIGHT = 64
BURST = 16
SEED = 20261122


def start_fio(site: Site, export: str, *options: str) -> subprocess.Popen[bytes]:
    """fio in the background, writing 4 KiB at random with 16 in flight."""
    words = [
        "timeout",
        "60",
        "fio",
        "--name=load",
        "--ioengine=nbd",
        f"--uri={site.uri(export)}",
        "--size=64M",
    ]
    words += ["--rw=randwrite", "--bs=4k", "--iodepth=16", "--time_based", *options]
    # One process, which is killed with the one that keeps its time.
    words += ["--thread"]
    null = subprocess.DEVNULL
    return subprocess.Popen(words, stdout=null, stderr=null, cwd="/tmp", start_new_session=True)


def end_fio(fio: subprocess.Popen[bytes]) -> None:
    """All of it: one that had not connected yet when its daemon was killed would write to the next daemon,
    and go on while volumes are compared."""
    os.killpg(fio.pid, signal.SIGKILL)
    fio.wait()


def write_until_killed(site: Site, ledger: Ledger, after_s: float) -> int:
    """Write without a pause until kill -9 comes, `after_s` from now; how many writes were left unanswered."""
    host = Host(site.nbd_socket, "g/ledger")
    process = site.process
    assert process is not None
    timer = threading.Timer(after_s, process.kill)
    timer.start()
    try:
        while True:
            ledger.send(host, BURST)
            ledger.take_replies(host, IN_FLIGHT - BURST)
    except OSError:
        pass
    try:
        ledger.take_replies(host, 0)
    except OSError:
        pass
    timer.join()
    site.kill()
    host.close()
    return ledger.forget_unanswered()


def frames(site: Site) -> list[dict[str, object]]:
    """The newest frames of the group's journal."""
    found: list[dict[str, object]] = site.json("journal", "show", "g", "--limit", "1")["frames"]
    return found


def same_at_the_cut(primary: Site, secondary: Site, volumes: tuple[str, ...], tmp_path: Path) -> None:
    """The secondary at the cut that `wait` printed equals the live volume, and both journals end in one
    digest."""
    primary.farshore("wait", "g", "--state", "paired", "--timeout", "60")
    cut = primary.json("wait", "g", "--timeout", "60")["position"]
    for volume in volumes:
        live, held = primary.uri(f"g/{volume}"), secondary.uri(f"g/{volume}@{cut}")
        words = ["timeout", "60", "qemu-img", "compare", "-f", "raw", "-F", "raw", live, held]
        result = subprocess.run(words, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
    one, other = frames(primary)[-1], frames(secondary)[-1]
    assert (one["position"], one["digest"]) == (other["position"], other["digest"])


@pytest.fixture
def loaded_pair(pair: tuple[Site, Site]) -> tuple[Site, Site]:
    """A pair of one group with a volume for the ledger and one for fio."""
    primary, secondary = pair
    primary.create_volume("g/ledger", f"{BLOCKS * BLOCK_BYTES}")
    primary.create_volume("g/load", "64M")
    primary.farshore("pair", "create", "g", "--with", secondary.name)
    primary.farshore("wait", "g", "--state", "paired", "--timeout", "30")
    return primary, secondary


def test_primary_killed_at_random_moments(loaded_pair: tuple[Site, Site], tmp_path: Path) -> None:
    """L1: every acknowledged write is there; L2: read twice, the same; L3: the secondary follows."""
    primary, secondary = loaded_pair
    rng = random.Random(SEED)
    ledger = Ledger(BLOCKS, rng)
    with Host(primary.nbd_socket, "g/ledger") as host:
        ledger.fill(host)
    for kill in range(KILLS):
        fio = start_fio(primary, "g/load", "--runtime=30")
        try:
            write_until_killed(primary, ledger, 0.2 + rng.random() * 1.2)
        finally:
            end_fio(fio)
        primary.start()
        with Host(primary.nbd_socket, "g/ledger") as host:
            assert ledger.check(host) == [], f"after kill {kill + 1} of {KILLS}"
            assert ledger.check(host) == [], f"read again after kill {kill + 1}"
    same_at_the_cut(primary, secondary, ("ledger", "load"), tmp_path)
    timelines = primary.json("journal", "show", "g", "--limit", "1")["timelines"]
    assert len(timelines) >= KILLS
    assert ledger.acknowledged > BLOCKS + KILLS * BURST


def test_secondary_killed_while_hosts_write(loaded_pair: tuple[Site, Site], tmp_path: Path) -> None:
    """The primary's hosts notice nothing, and what was missed is sent, not a full copy."""
    primary, secondary = loaded_pair
    fio = start_fio(primary, "g/load", "--runtime=12", "--rate_iops=2000")
    rng = random.Random(SEED)
    for _ in range(3):
        time.sleep(0.5 + rng.random())
        secondary.kill()
        time.sleep(0.3)
        secondary.start()
    assert fio.wait(60) == 0
    same_at_the_cut(primary, secondary, ("load",), tmp_path)
    sessions = [entry["position"] for entry in primary.log() if entry.get("event") == "pair.session"]
    starts = [int(str(position).rpartition(":")[2]) for position in sessions]
    assert starts == sorted(starts), "each session goes on where the one before had got to"
    assert all(start > 0 for start in starts[1:]), "no session began from nothing"
