"""`python -m bench`: QEMU's mirror and Farshore alternately (A B A B) in one run on this machine.

Both sides are set up before the first measurement and stay up; only one is loaded at a time, and the next run
starts when the mirror of the last one has caught up. Reads find data: both volumes are filled first.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from rich.console import Console

from bench import fio, machine, recovery
from bench.farshore_pair import FarshorePair
from bench.nbdkit_memory import NAME as LIMIT
from bench.nbdkit_memory import nbdkit_memory
from bench.processor import used_s, written_bytes
from bench.qemu_mirror import CopyMode, QemuMirror
from bench.report import Comparison, Sample, print_comparison, print_timings

GIB = 1 << 30
TABLE_COLUMNS = 140
BASELINES: dict[str, CopyMode] = {
    "async": "background",
    "sync": "write-blocking",
    "sync-strict": "write-blocking",
}
WORKLOADS = (
    fio.RANDOM_WRITES,
    fio.Workload(
        name="randwrite 4k qd32, flush each", rw="randwrite", block_bytes=4096, depth=32, flush=True
    ),
    fio.RANDOM_READS,
    fio.LARGE_WRITES,
    fio.Workload(name="randwrite 4k qd1", rw="randwrite", block_bytes=4096, depth=1),
)


class System(Protocol):
    """One side of the comparison."""

    name: str

    @property
    def uri(self) -> str:
        """Where fio connects."""

    def settle(self) -> float:
        """Wait until the mirror has everything; seconds."""

    def pids(self) -> list[int]:
        """Its processes, but for their children."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    result.add_argument("--mode", choices=sorted(BASELINES), default="async", help="Farshore's pair mode")
    result.add_argument("--runs", type=int, default=3, help="runs of each system and workload (3)")
    result.add_argument("--seconds", type=float, default=10.0, help="length of one run (10)")
    result.add_argument("--size-mib", type=int, default=1024, help="part of the volume that is used (1024)")
    result.add_argument("--only", help="workloads whose name contains this")
    result.add_argument("--quick", action="store_true", help="one run of 3 s each on 256 MiB")
    result.add_argument("--baseline-only", action="store_true", help="measure QEMU alone")
    result.add_argument(
        "--qemu-granularity", type=int, default=4096, help="its chunk, bytes (4096; QEMU: 65536)"
    )
    result.add_argument(
        "--qemu-link", choices=["tcp", "tls", "unix"], default="tcp", help="source to target (tcp)"
    )
    result.add_argument("--client-limit", action="store_true", help="measure nbdkit's memory plugin, too")
    result.add_argument("--recovery", action="store_true", help="also backup and restore of a 10 GiB volume")
    result.add_argument("--dir", type=Path, help="where QEMU's images go (a temporary directory)")
    result.add_argument("--json", action="store_true", help="print JSON and nothing else")
    return result


def measure(
    systems: Sequence[System], workloads: Sequence[fio.Workload], options: argparse.Namespace
) -> list[Sample]:
    """Every workload on every system in turn, `options.runs` times."""
    samples = []
    size_bytes = options.size_mib << 20
    progress = Console(stderr=True)
    for system in systems:
        fio.fill(system.uri, size_bytes=size_bytes)
        system.settle()
    for workload in workloads:
        for _ in range(options.runs):
            for system in systems:
                before_s, before_bytes = used(system)
                result = fio.run(system.uri, workload, size_bytes=size_bytes, runtime_s=options.seconds)
                settle_s = system.settle()
                until_s, until_bytes = used(system)
                sample = Sample(
                    system=system.name,
                    workload=workload,
                    result=result,
                    settle_s=settle_s,
                    processor_s=until_s - before_s,
                    disk_bytes=until_bytes - before_bytes,
                )
                samples.append(sample)
                line = f"{workload.name}: {result.iops:,.0f} IOPS, caught up in {settle_s:.2f} s"
                progress.print(f"{system.name}: {line}", style="dim")
    return samples


def used(system: System) -> tuple[float, int]:
    """Processor time, and bytes to disks, of a system so far."""
    return used_s(system.pids()), written_bytes(system.pids())


def compare(options: argparse.Namespace) -> Comparison:
    """Set both sides up and measure them."""
    workloads = [w for w in WORKLOADS if not options.only or options.only in w.name]
    directory = Path(tempfile.mkdtemp(prefix="farshore-bench-", dir=options.dir))
    try:
        with ExitStack() as stack:
            qemu = QemuMirror(
                directory / "qemu",
                size_bytes=2 * GIB,
                copy_mode=BASELINES[options.mode],
                granularity_bytes=options.qemu_granularity,
                link=options.qemu_link,
            )
            systems: list[System] = [stack.enter_context(qemu)]
            if options.client_limit:
                memory = nbdkit_memory(directory / "memory.sock", size_bytes=2 * GIB)
                systems.insert(0, stack.enter_context(memory))
            if not options.baseline_only:
                systems.append(stack.enter_context(FarshorePair(size="2G", mode=options.mode)))
            comparison = Comparison(
                baseline=qemu.name,
                subject=f"farshore {options.mode}",
                limit=LIMIT if options.client_limit else "",
            )
            comparison.samples = measure(systems, workloads, options)
            return comparison
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, exit code."""
    options = parser().parse_args(arguments)
    if options.quick:
        options.runs, options.seconds, options.size_mib = 1, 3.0, 256
    facts = machine.facts()
    facts["qemu mirror"] = f"granularity {options.qemu_granularity}, {options.qemu_link}"
    facts["fio"] += f", {options.runs} × {options.seconds:g} s on {options.size_mib} MiB"
    comparison = compare(options)
    timings = recovery.measure() if options.recovery and not options.baseline_only else []
    if options.json:
        document = {
            "machine": facts,
            "seconds": options.seconds,
            "size_mib": options.size_mib,
            "baseline": comparison.baseline,
            "subject": comparison.subject,
            "workloads": comparison.rows(),
            "commands": [asdict(timing) for timing in timings],
        }
        print(json.dumps(document, indent=2))
        return 0
    console = Console(width=max(TABLE_COLUMNS, Console().width))
    for name, value in facts.items():
        console.print(f"{name}: {value}", highlight=False)
    print_comparison(comparison, console)
    if timings:
        print_timings(timings, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
