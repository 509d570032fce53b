"""Medians, ratios and the table of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from rich.console import Console
from rich.table import Table

from bench.fio import FioResult, Workload
from bench.recovery import Timing

COLUMNS = ("IOPS", "MB/s", "p99 µs", "catch-up s", "sustained", "CPU µs", "disk ×", "ratio", "sustained ×")
PROCESSOR_NOTE = (
    "sustained: operations by the time until the mirror had them. CPU µs: processor time of all the system's "
    "processes for each operation. disk ×: bytes they had written to disks for each of the host's."
)
FLUSH_NOTE = "QEMU's mirror does not pass a host's flush on to its target."


@dataclass(slots=True, kw_only=True)
class Sample:
    """One fio run against one system, how long the mirror then took to catch up, and what the system's
    processes used of processors and had written to disks until then."""

    system: str
    workload: Workload
    result: FioResult
    settle_s: float
    processor_s: float
    disk_bytes: int

    @property
    def sustained_iops(self) -> float:
        """Operations by the time until the mirror had them."""
        return self.result.operations / (self.result.runtime_s + self.settle_s)

    @property
    def processor_us(self) -> float:
        """For each operation; of 1 MiB writes that is for each MiB."""
        return self.processor_s * 1e6 / self.result.operations

    @property
    def disk_ratio(self) -> float:
        """Bytes to disks, of all sites, for each that the host wrote."""
        return self.disk_bytes / (self.result.operations * self.workload.block_bytes)


@dataclass(slots=True, kw_only=True)
class Comparison:
    """Every sample of one run. `baseline` and `subject` are names of systems. So is `limit`, what the
    client can do, if that was measured."""

    baseline: str
    subject: str
    limit: str = ""
    samples: list[Sample] = field(default_factory=list)

    def of(self, system: str, workload: Workload) -> list[Sample]:
        """The samples of one cell."""
        return [s for s in self.samples if s.system == system and s.workload.name == workload.name]

    def sides(self) -> list[tuple[str, str]]:
        """What each system is in a row, and its name."""
        sides = [("limit", self.limit)] if self.limit else []
        return [*sides, ("baseline", self.baseline), ("subject", self.subject)]

    def rows(self) -> list[dict[str, object]]:
        """One row a workload: medians of both systems and the ratio of their rates."""
        rows: list[dict[str, object]] = []
        for workload in {s.workload.name: s.workload for s in self.samples}.values():
            row: dict[str, object] = {"workload": workload.name}
            for side, system in self.sides():
                samples = self.of(system, workload)
                if samples:
                    row[side] = _medians(samples)
            if "baseline" in row and "subject" in row:
                row["ratio"] = _figure(row["subject"], "iops") / _figure(row["baseline"], "iops")
                rates = [_figure(row[side], "sustained_iops") for side in ("subject", "baseline")]
                row["sustained_ratio"] = rates[0] / rates[1]
            rows.append(row)
        return rows


def _medians(samples: Sequence[Sample]) -> dict[str, float]:
    return {
        "runs": len(samples),
        "iops": median(s.result.iops for s in samples),
        "mb_per_s": median(s.result.bytes_per_s for s in samples) / 1e6,
        "latency_mean_us": median(s.result.latency_mean_us for s in samples),
        "latency_p99_us": median(s.result.latency_p99_us for s in samples),
        "settle_s": median(s.settle_s for s in samples),
        "sustained_iops": median(s.sustained_iops for s in samples),
        "processor_us": median(s.processor_us for s in samples),
        "disk_ratio": median(s.disk_ratio for s in samples),
    }


def _figure(cell: object, name: str) -> float:
    if not isinstance(cell, dict):
        raise TypeError(f"not a cell: {cell!r}")
    return float(cell[name])


def print_comparison(comparison: Comparison, console: Console) -> None:
    """The table for people: one line a workload and system, the ratio on the second."""
    table = Table(title=f"{comparison.subject} beside {comparison.baseline}, medians")
    table.add_column("workload")
    table.add_column("system")
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for row in comparison.rows():
        ratios = [row.get(name) for name in ("ratio", "sustained_ratio")]
        for side, system in comparison.sides():
            shown = [f"{ratio:.2f} ×" for ratio in ratios if side == "subject" and isinstance(ratio, float)]
            if side in row:
                table.add_row(str(row["workload"]), system, *_cells(row[side]), *shown)
    console.print(table)
    console.print(PROCESSOR_NOTE, style="dim")
    if any(sample.workload.flush for sample in comparison.samples):
        console.print(FLUSH_NOTE, style="dim")


def _cells(cell: object) -> list[str]:
    if not isinstance(cell, dict):
        raise TypeError(f"not a cell: {cell!r}")
    return [
        f"{cell['iops']:,.0f}",
        f"{cell['mb_per_s']:,.1f}",
        f"{cell['latency_p99_us']:,.0f}",
        f"{cell['settle_s']:.2f}",
        f"{cell['sustained_iops']:,.0f}",
        f"{cell['processor_us']:,.0f}",
        f"{cell['disk_ratio']:.1f}",
    ]


def print_timings(timings: Sequence[Timing], console: Console) -> None:
    """The table of commands."""
    table = Table(title="commands on a paired volume")
    for name, side in (("command", "left"), ("wall ms", "right"), ("in the daemon ms", "right")):
        table.add_column(name, justify="right" if side == "right" else "left")
    for timing in timings:
        inside = "—" if timing.daemon_ms is None else f"{timing.daemon_ms:,.1f}"
        table.add_row(timing.what, f"{timing.wall_s * 1000:,.0f}", inside)
    console.print(table)
