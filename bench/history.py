"""`python -m bench.history`: what backups, restores and the journal cost as there is more of them.

    backups     10,000 of them: processor time of the daemon for one more, for one that is looked up by its
                label, for a page of the list, and for half of them deleted
    restores    1,000, one upon the other, each taking a write back: processor time for each, and for a random
                read before and after them
    deep        100,000 backups, with a write before each: processor time for a random read of the oldest of
                them, beside one of the live volume
    restart     1 GiB of random writes of 4 KiB, kill -9: processor time of the start

Processor time holds on a busy machine. It judges nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from bench import fio
from bench.fio import RANDOM_READS, RANDOM_WRITES
from bench.processor import daemon_s
from console.client import Client
from console.demo.host import Host
from protocol.commands.backup import BackupCreate, BackupDeleteMany, BackupList
from protocol.commands.cut import CutResolve
from protocol.commands.restore import RestoreVolume
from protocol.cut_text import CutLabel
from protocol.endpoints import control_endpoint
from protocol.limits import BLOCK_BYTES
from tests.support.sites import Site, running_sites

MIB = 1 << 20
VOLUME_BLOCKS = 8192
CALL_TIMEOUT_S = 120.0
TIMES = 200
READS_S = 4.0


class History:
    """A site with one volume, and a client of it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.uri = site.create_volume("g/v", f"{VOLUME_BLOCKS * BLOCK_BYTES // MIB}M")
        self.client = Client(control_endpoint(str(site.directory)))

    def backup(self, label: str) -> None:
        """One of the group."""
        self.client.call(BackupCreate(group="g", label=label), CALL_TIMEOUT_S)

    def backups(self, count: int) -> None:
        """Print what so many make of one."""
        each_ms = self.each_ms(lambda at: self.backup(f"b{at}"), count)
        print(f"backups: {each_ms:.2f} ms each, {count} of them")
        print(f"one more: {self.each_ms(lambda at: self.backup(f'more{at}')):.2f} ms")
        cut = CutLabel(f"b{count // 2}")
        resolved_ms = self.each_ms(lambda _: self.client.call(CutResolve(group="g", cut=cut)))
        print(f"one found by its label: {resolved_ms:.2f} ms")
        listed = BackupList(group="g")
        page_ms = self.each_ms(lambda _: self.client.page(listed, 100, None, CALL_TIMEOUT_S), 20)
        print(f"a page of 100: {page_ms:.2f} ms")
        cuts = tuple(CutLabel(f"b{at}") for at in range(0, count, 2))
        deleted = BackupDeleteMany(group="g", cuts=cuts, confirm="g")
        began_s = time.monotonic()
        deleted_ms = self.each_ms(lambda _: self.client.call(deleted, CALL_TIMEOUT_S), 1)
        print(f"{len(cuts)} deleted: {deleted_ms:.0f} ms, {time.monotonic() - began_s:.1f} s of wall time")

    def restores(self, count: int) -> None:
        """Print what so many make of one, and of reads."""
        fio.fill(self.uri, size_bytes=VOLUME_BLOCKS * BLOCK_BYTES)
        before_us = self.read_us()
        self.backup("back")
        restore = RestoreVolume(group="g", volume="v", cut=CutLabel("back"), start=True, confirm="g/v")
        spent_s = 0.0
        for at in range(count):
            with Host(self.site.nbd_socket, "g/v") as host:
                host.write(at * 7 % VOLUME_BLOCKS * BLOCK_BYTES, bytes([at % 251]) * BLOCK_BYTES)
            began_s = daemon_s(self.site.pid)
            self.client.call(restore, CALL_TIMEOUT_S)
            spent_s += daemon_s(self.site.pid) - began_s
        after_us = self.read_us()
        print(f"restores: {spent_s * 1e3 / count:.2f} ms each, {count} of them")
        print(f"a read: {before_us:.1f} µs before, {after_us:.1f} after, {after_us / before_us:.2f} of it")

    def deep(self, count: int) -> None:
        """Print what reads cost so many cuts deep."""
        fio.fill(self.uri, size_bytes=VOLUME_BLOCKS * BLOCK_BYTES)
        self.backup("oldest")
        with Host(self.site.nbd_socket, "g/v") as host:
            for at in range(count):
                host.write(at * 7 % VOLUME_BLOCKS * BLOCK_BYTES, bytes([at % 251]) * BLOCK_BYTES)
                self.backup(f"d{at}")
        live_us = self.read_us()
        deep_us = self.read_us("@oldest")
        print(
            f"a read: {live_us:.1f} µs live, {deep_us:.1f} {count} cuts deep, {deep_us / live_us:.2f} of it"
        )

    def restart(self, mib: int) -> None:
        """Print what is replayed, and what that takes."""
        fio.write_bytes(
            self.uri, RANDOM_WRITES, size_bytes=VOLUME_BLOCKS * BLOCK_BYTES, total_bytes=mib * MIB
        )
        self.site.kill()
        self.site.start()
        started_s = daemon_s(self.site.pid)
        found = [entry for entry in self.site.log() if entry["event"] == "group.recovered"]
        replayed = (
            f"{found[-1]['bytes'] / MIB:.0f} MiB in {found[-1]['frames']} frames" if found else "nothing"
        )
        print(f"start after kill -9: {started_s:.2f} s, {replayed} replayed")

    def read_us(self, cut: str = "") -> float:
        """Processor time of the daemon for a random read, of the live volume or at a cut."""
        uri = self.site.uri(f"g/v{cut}")
        before_s = daemon_s(self.site.pid)
        result = fio.run(uri, RANDOM_READS, size_bytes=VOLUME_BLOCKS * BLOCK_BYTES, runtime_s=READS_S)
        return (daemon_s(self.site.pid) - before_s) * 1e6 / (result.iops * READS_S)

    def each_ms(self, call: Callable[[int], object], times: int = TIMES) -> float:
        """Processor time of the daemon for each of so many calls."""
        before_s = daemon_s(self.site.pid)
        for at in range(times):
            call(at)
        return (daemon_s(self.site.pid) - before_s) * 1e3 / times


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.history", description=__doc__)
    parser.add_argument("--backups", type=int, default=10_000)
    parser.add_argument("--restores", type=int, default=1_000)
    parser.add_argument("--deep", type=int, default=100_000, help="backups over the oldest one (100,000)")
    parser.add_argument("--mib", type=int, default=1_024, help="written before the kill (1,024)")
    options = parser.parse_args(arguments)
    works = (
        (History.backups, options.backups),
        (History.restores, options.restores),
        (History.deep, options.deep),
        (History.restart, options.mib),
    )
    for work, count in works:
        with running_sites("a") as (site,):
            history = History(site)
            with history.client:
                work(history, count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
