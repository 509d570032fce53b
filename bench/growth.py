"""`python -m bench.growth`: what a daemon costs as its groups grow in number (the design's table of growth).

One site with many groups of one small volume each. Some are written at once; then the daemon is stopped and
started, and killed and started, and every acknowledged write is read back. Processor time holds on a busy
machine, wall time does not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import machine
from bench.processor import children_of, daemon_and_children_s, waited_for_s
from console.client import Client
from console.demo.host import Host
from protocol.commands.volume import VolumeCreate
from protocol.endpoints import control_endpoint
from protocol.limits import BLOCK_BYTES
from tests.support.pairs import anonymous_mib
from tests.support.sites import Site, running_sites

VOLUME_BYTES = 1 << 20
CALL_TIMEOUT_S = 60.0
STEP_TIMEOUT_S = 600.0
IDLE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one step took: wall seconds, and the processor's, of the daemon and its children."""

    what: str
    wall_s: float
    processor_s: float
    note: str = ""


class Growth:
    """One site, and what was acknowledged to hosts of its groups."""

    def __init__(self, site: Site, groups: int, written: int, blocks: int) -> None:
        self.site = site
        self.names = [f"g{number:04}" for number in range(groups)]
        self.written = self.names[:: max(1, groups // written)][:written]
        self.blocks = blocks
        self.costs: list[Cost] = []
        self._round = 0

    def run(self) -> list[Cost]:
        """Everything in turn."""
        self.create()
        self._stop("clean stop, nothing written")
        self._start("start, nothing to replay")
        self._idle()
        self.write()
        self._stop("clean stop after the writes")
        self._start("start after it")
        self.write()
        self.site.kill()
        self._start("start after kill -9")
        self.check()
        return self.costs

    def create(self) -> None:
        """Every group, with its volume."""
        began_s, began_processor_s = time.monotonic(), daemon_and_children_s(self.site.pid)
        with Client(control_endpoint(str(self.site.directory))) as client:
            for name in self.names:
                client.call(VolumeCreate(group=name, volume="v", size_bytes=VOLUME_BYTES), CALL_TIMEOUT_S)
        self._took(f"{len(self.names)} groups created", began_s, began_processor_s, self.footprint())

    def footprint(self) -> str:
        """What the daemon holds now, and its groups on disk."""
        pid = self.site.pid
        threads = len(os.listdir(f"/proc/{pid}/task"))
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        disk_mib = disk_bytes(self.site.directory / "groups") / len(self.names) / (1 << 20)
        return (
            f"{threads} threads, {descriptors} descriptors, {len(children_of(pid))} children, "
            f"{anonymous_mib(pid):.0f} MiB; {disk_mib:.2f} MiB of disk a group"
        )

    def write(self) -> None:
        """All the chosen groups at once, each with a flush at the end."""
        began_s, began_processor_s = time.monotonic(), daemon_and_children_s(self.site.pid)
        self._round += 1
        hosts = [(name, Host(self.site.nbd_socket, f"{name}/v")) for name in self.written]
        for block in range(self.blocks):
            for name, host in hosts:
                host.submit_write(block * BLOCK_BYTES, self._content(name, block))
        for _, host in hosts:
            for _ in range(self.blocks):
                _, error = host.take_reply()
                if error:
                    raise AssertionError(f"a write was refused with {error}")
        for _, host in hosts:
            host.flush()
            host.close()
        what = f"{len(hosts)} groups written at once, {self.blocks} blocks each"
        self._took(what, began_s, began_processor_s, self.footprint())

    def check(self) -> None:
        """Every acknowledged write is there."""
        for name in self.written:
            with Host(self.site.nbd_socket, f"{name}/v") as host:
                for block in range(self.blocks):
                    if host.read(block * BLOCK_BYTES, BLOCK_BYTES) != self._content(name, block):
                        raise AssertionError(f"{name}/v block {block} is not what was acknowledged")

    def _content(self, name: str, block: int) -> bytes:
        return f"{name} {block} {self._round} ".encode().ljust(BLOCK_BYTES, b"x")

    def _idle(self) -> None:
        began_s, began_processor_s = time.monotonic(), daemon_and_children_s(self.site.pid)
        time.sleep(IDLE_S)
        self._took("idle", began_s, began_processor_s, self.footprint())

    def _stop(self, what: str) -> None:
        began_s, began_processor_s = time.monotonic(), daemon_and_children_s(self.site.pid)
        before = waited_for_s()
        self.site.stop(STEP_TIMEOUT_S)
        # What was waited for is the daemon's whole life, and that of the children which it waited for.
        ended_processor_s = waited_for_s() - before
        took_s = time.monotonic() - began_s
        cost = Cost(what=what, wall_s=took_s, processor_s=ended_processor_s - began_processor_s)
        self.costs.append(cost)
        print(cost, file=sys.stderr)

    def _start(self, what: str) -> None:
        began_s = time.monotonic()
        self.site.start(wait=False)
        self.site.wait_until_serving(STEP_TIMEOUT_S)
        self._took(what, began_s, 0.0, self.footprint())

    def _took(self, what: str, began_s: float, began_processor_s: float, note: str) -> None:
        wall_s = time.monotonic() - began_s
        used_s = daemon_and_children_s(self.site.pid) - began_processor_s
        self.costs.append(Cost(what=what, wall_s=wall_s, processor_s=used_s, note=note))
        print(self.costs[-1], file=sys.stderr)


def disk_bytes(directory: Path) -> int:
    """What the files below a directory take."""
    return sum(path.lstat().st_blocks * 512 for path in directory.rglob("*"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--groups", type=int, default=1000)
    parser.add_argument("--written", type=int, default=100, help="groups that are written at once (100)")
    parser.add_argument("--blocks", type=int, default=64, help="blocks of 4 KiB written to each (64)")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    options = parser.parse_args(arguments)
    with running_sites("a") as (site,):
        costs = Growth(site, options.groups, options.written, options.blocks).run()
    if options.json:
        print(json.dumps({"machine": machine.facts(), "steps": [asdict(cost) for cost in costs]}, indent=2))
        return 0
    console = Console(width=max(140, Console().width))
    for name, value in machine.facts().items():
        console.print(f"{name}: {value}", highlight=False)
    table = Table(title=f"{options.groups} groups on one daemon")
    for column in ("step", "wall s", "processor s", "then"):
        table.add_column(column, justify="left" if column in ("step", "then") else "right")
    for cost in costs:
        table.add_row(cost.what, f"{cost.wall_s:.2f}", f"{cost.processor_s:.2f}", cost.note)
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
