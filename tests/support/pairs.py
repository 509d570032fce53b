"""What tests of a pair share: a real host's load, the state at both ends, and whether both are equal."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from console.demo.host import Host
from protocol.errors import FarshoreError
from tests.support.clients import MIB, succeed
from tests.support.sites import Site
from tests.support.waiting import pause_s

POLL_S = 0.1


def start_pair(primary: Site, secondary: Site, volume: str, size_bytes: int) -> None:
    """A new volume at one site, its group mirrored to the other, paired."""
    primary.create_volume(volume, str(size_bytes))
    group = volume.partition("/")[0]
    primary.farshore("pair", "create", group, "--with", secondary.name)
    primary.farshore("wait", group, "--state", "paired", "--timeout", "30")


def start_fio(
    site: Site, export: str, *options: str, size: str = "64M", timeout_s: int = 60
) -> subprocess.Popen[bytes]:
    """fio in the background, writing 4 KiB at random with 16 in flight."""
    words = ["timeout", str(timeout_s), "fio", "--name=load", "--ioengine=nbd", f"--uri={site.uri(export)}"]
    words += [f"--size={size}", "--rw=randwrite", "--bs=4k", "--iodepth=16", *options]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/tmp")


def newest_frame(site: Site, group: str) -> dict[str, Any]:
    """The newest frame of a group's journal."""
    frames: list[dict[str, Any]] = site.json("journal", "show", group, "--limit", "1")["frames"]
    return frames[-1]


def same_at_the_cut(primary: Site, secondary: Site, group: str, volumes: tuple[str, ...]) -> None:
    """The pair is paired again by itself; at the cut that everything written stands for, the secondary's
    volumes equal the primary's, and both journals end in one digest. No host may write meanwhile."""
    primary.farshore("wait", group, "--state", "paired", "--timeout", "60")
    cut = primary.json("wait", group, "--timeout", "60")["position"]
    for volume in volumes:
        one, other = primary.uri(f"{group}/{volume}@{cut}"), secondary.uri(f"{group}/{volume}@{cut}")
        succeed("qemu-img", "compare", "-f", "raw", "-F", "raw", one, other)
    one_frame, other_frame = newest_frame(primary, group), newest_frame(secondary, group)
    assert (one_frame["position"], one_frame["digest"]) == (other_frame["position"], other_frame["digest"])


def no_host_may_write(site: Site, volume: str) -> bool:
    """Whether a host that comes for the live volume is refused."""
    try:
        Host(site.nbd_socket, volume).close()
    except FarshoreError:
        return True
    return False


def states(*sites: Site, group: str) -> tuple[str, ...]:
    """The pair's state as each site shows it."""
    return tuple(site.json("pair", "show", group)["state"] for site in sites)


def wait_for_states(expected: str, *sites: Site, group: str, timeout_s: float) -> float:
    """Until every site shows `expected`; how many seconds that took."""
    began = time.monotonic()
    while True:
        asked = time.monotonic()
        seen = states(*sites, group=group)
        now = time.monotonic()
        if seen == (expected,) * len(sites):
            return now - began
        assert now - began <= timeout_s, f"{seen} after {now - began:.1f} s, not {expected}"
        time.sleep(pause_s(now - asked))


def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    """Until a condition holds."""
    began = time.monotonic()
    while True:
        asked = time.monotonic()
        if condition():
            return
        now = time.monotonic()
        assert now - began <= timeout_s, f"not so after {now - began:.1f} s"
        time.sleep(pause_s(now - asked))


def anonymous_mib(pid: int) -> float:
    """RssAnon of a process: what it holds itself, without the pages of files that it mapped."""
    return _status_bytes(pid, "RssAnon") / MIB


def resident_bytes(pid: int) -> int:
    """VmRSS of a process: with the pages of files that it mapped."""
    return _status_bytes(pid, "VmRSS")


def _status_bytes(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) << 10
    raise AssertionError(f"process {pid} has no {field}")


class MemoryWatch:
    """How far the daemons' own memory rises while the `with` body runs."""

    def __init__(self, *sites: Site) -> None:
        self._pids = {site.name: site.pid for site in sites}
        self._before = {name: anonymous_mib(pid) for name, pid in self._pids.items()}
        self.rise_mib = dict.fromkeys(self._pids, 0.0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(POLL_S):
            for name, pid in self._pids.items():
                rise = anonymous_mib(pid) - self._before[name]
                self.rise_mib[name] = max(self.rise_mib[name], rise)
