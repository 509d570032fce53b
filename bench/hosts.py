"""`python -m bench.hosts`: what hosts in numbers cost a site's daemon.

A row a figure: processor time of the daemon for each write, by connections and depth; memory once many hosts
have left; connections refused while the daemon was held. Those are processor time and counts, which hold on a
busy machine; only the last rows are wall time. It judges nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.fio import FIO_GRACE_S
from bench.processor import daemon_s
from protocol.nbd.constants import Command
from tests.support.raw_host import Asked, RawHost
from tests.support.sites import Site, short_directory

MIB = 1 << 20
RUNTIME_S = 4
KNOCKING = 500
HELD_S = 1.0


def memory_mib(site: Site, field: str = "VmRSS") -> float:
    """Memory of the daemon by a name of /proc/PID/status."""
    lines = Path(f"/proc/{site.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def writes(site: Site, uri: str, *, hosts: int, depth: int, block_bytes: int = 4096) -> tuple[int, float]:
    """Random writes for `RUNTIME_S`; how many there were, and processor time for each in seconds."""
    size = f"--size={(256 << 20) // block_bytes * block_bytes}"
    command = [
        "fio", "--name=hosts", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite", f"--bs={block_bytes}",
        size, f"--iodepth={depth}", f"--numjobs={hosts}", "--thread", "--group_reporting",
        f"--runtime={RUNTIME_S}", "--time_based", "--norandommap", "--output-format=terse",
    ]  # fmt: skip
    before = daemon_s(site.pid)
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=RUNTIME_S + FIO_GRACE_S, cwd="/tmp"
    )
    used_s = daemon_s(site.pid) - before
    terse = next(line for line in done.stdout.splitlines() if line.startswith("3;"))
    count = int(terse.split(";")[46]) * 1024 // block_bytes  # KiB written
    return count, used_s / max(1, count)


def refused_while_held(site: Site) -> int:
    """Of `KNOCKING` connections that come while the daemon does nothing, those that are not let in."""
    with contextlib.ExitStack() as stack:
        os.kill(site.pid, signal.SIGSTOP)
        knocking, refused = [], 0
        try:
            for _ in range(KNOCKING):
                one = stack.enter_context(socket.socket(socket.AF_UNIX))
                one.setblocking(False)
                try:
                    one.connect(str(site.nbd_socket))
                    knocking.append(one)
                except OSError:
                    refused += 1
            time.sleep(HELD_S)
        finally:
            os.kill(site.pid, signal.SIGCONT)
        for one in knocking:
            one.settimeout(20)
            try:
                refused += not one.recv(18)
            except OSError:
                refused += 1
    return refused


def large_writers(site: Site, hosts: int, rounds: int) -> float:
    """Hosts that each write 32 MiB at once, so many times; the most memory that the daemon had."""
    most = memory_mib(site)
    payload = b"w" * (32 * MIB)

    def write() -> None:
        with RawHost.unix(site.nbd_socket, "g/v") as host:
            for _ in range(rounds):
                host.ask(Command.WRITE, 0, payload=payload)

    threads = [threading.Thread(target=write) for _ in range(hosts)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        most = max(most, memory_mib(site))
        time.sleep(0.02)
    return most


def after_many_left(site: Site) -> tuple[float, float]:
    """Memory while 500 hosts are there that each wrote and read 1 MiB, and once they have left."""
    with contextlib.ExitStack() as stack:
        hosts = [stack.enter_context(RawHost.unix(site.nbd_socket, "g/v")) for _ in range(KNOCKING)]
        for host in hosts:
            host.ask(Command.WRITE, 0, payload=b"w" * MIB)
            host.ask(Command.READ, 0, MIB)
        there = memory_mib(site)
    deadline = time.monotonic() + 30
    while _connected(site) and time.monotonic() < deadline:
        time.sleep(0.1)
    return there, memory_mib(site)


def _connected(site: Site) -> bool:
    return any(_of_a_host(link, site) for link in Path(f"/proc/{site.pid}/fd").iterdir())


def _of_a_host(link: Path, site: Site) -> bool:
    with contextlib.suppress(OSError):
        return f"[{os.readlink(link).partition('[')[2]}" in _hosts_sockets(site)
    return False


def _hosts_sockets(site: Site) -> set[str]:
    """Inodes of the connected ones, as `/proc/PID/fd` writes them (proc(5), /proc/net/unix: state 03)."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return {f"[{row[6]}]" for row in rows if row[5] == "03" and row[-1] == str(site.nbd_socket)}


def beside(site: Site, work: Sequence[str]) -> str:
    """A writer of 4 KiB at depth 1 while another process does `work` again and again: its waits, which are
    wall time, and how often the work was done."""
    over = threading.Event()
    done: list[int] = []

    def keep_on() -> None:
        while not over.is_set() and work:
            done.append(subprocess.run(work, stdout=subprocess.DEVNULL, check=False, cwd="/tmp").returncode)

    thread = threading.Thread(target=keep_on)
    thread.start()
    taken = []
    try:
        with RawHost.unix(site.nbd_socket, "g/v") as host:
            until = time.monotonic() + RUNTIME_S
            while time.monotonic() < until:
                began = time.monotonic()
                host.ask(Command.WRITE, 0, payload=b"w" * 4096)
                taken.append((time.monotonic() - began) * 1e6)
    finally:
        over.set()
        thread.join()
    quantiles = statistics.quantiles(taken, n=1000)
    return (
        f"{quantiles[499]:.0f} µs p50, {quantiles[989]:.0f} p99, {quantiles[998]:.0f} p99.9"
        f" ({len(done)} times, {sum(map(bool, done))} failed)"
    )


def fragment(site: Site, blocks: int) -> None:
    """Every second block of so many is written."""
    with RawHost.unix(site.nbd_socket, "g/v") as host:
        for first in range(0, blocks, 2000):
            host.exchange([
                Asked(command=Command.WRITE, offset=block * 4096, length=4096, payload=b"e" * 4096)
                for block in range(first, min(first + 2000, blocks), 2)
            ])  # fmt: skip


def main() -> int:
    """Print the rows; 0 whatever they are."""
    directory = short_directory()
    try:
        site = Site(directory / "a", "a")
        site.init()
        site.start()
        try:
            uri = site.create_volume("g/v", "8G")
            _print_rows(site, uri)
        finally:
            site.kill()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


def _print_rows(site: Site, uri: str) -> None:
    wanted = set(sys.argv[1:])

    def row(name: str, figure: Callable[[], str]) -> None:
        if not wanted or wanted & set(name.replace(":", "").split()):
            print(f"{name:48} {figure()}", flush=True)

    def cost(hosts: int, depth: int, block_bytes: int = 4096) -> str:
        count, each_s = writes(site, uri, hosts=hosts, depth=depth, block_bytes=block_bytes)
        return f"{each_s * 1e6:8.1f} µs of processor each, {count} in {RUNTIME_S} s"

    row("refused while held: connections", lambda: f"{refused_while_held(site)} of {KNOCKING}")
    row("write 4k: 1 host, depth 32", lambda: cost(1, 32))
    row("write 4k: 1 host, depth 1", lambda: cost(1, 1))
    row("write 4k: 8 hosts, depth 1", lambda: cost(8, 1))
    row("write 4k: 64 hosts, depth 1", lambda: cost(64, 1))
    row("write 4k: 64 hosts, depth 8", lambda: cost(64, 8))
    row("write 1m: 1 host, depth 8", lambda: cost(1, 8, MIB))
    row("memory at first", lambda: f"{memory_mib(site):.0f} MiB")
    row("memory: 16 hosts writing 32 MiB", lambda: f"{large_writers(site, 16, 4):.0f} MiB at most")
    row(
        "memory: 500 hosts of 1 MiB, there and left",
        lambda: "{:.0f} MiB, {:.0f} MiB".format(*after_many_left(site)),
    )
    reads = ["fio", "--name=r", "--ioengine=nbd", f"--uri={uri}", "--rw=read", "--bs=32m", "--iodepth=4"]
    reads += ["--size=512m", "--output-format=terse"]
    row("latency of a writer: alone", lambda: beside(site, ()))
    row("latency of a writer: beside reads of 32 MiB", lambda: beside(site, reads))
    if not wanted or "map" in wanted:
        fragment(site, 800_000)
    row("latency of a writer: beside a map of 400,000", lambda: beside(site, ("nbdinfo", "--map", uri)))
    row("empty 16 TiB: a map", lambda: empty_map(site))


def empty_map(site: Site) -> str:
    """Processor time of the daemon for a map of a volume that holds nothing."""
    uri = site.create_volume("g/empty", "16T")
    before = daemon_s(site.pid)
    subprocess.run(("nbdinfo", "--map", uri), stdout=subprocess.DEVNULL, check=True)
    return f"{daemon_s(site.pid) - before:.2f} s of processor"


if __name__ == "__main__":
    sys.exit(main())
