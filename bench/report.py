"""Medians, ratios and the table of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from rich.console import Console
from rich.table import Table

from bench.fio import FioResult, Workload
from bench.recovery import Timing

FLUSH_NOTE = "QEMU's mirror does not pass a host's flush on to its target."


@dataclass(slots=True, kw_only=True)
class Sample:
    """One fio run against one system, and how long the mirror then took to catch up."""

    system: str
    workload: Workload
    result: FioResult
    settle_s: float


@dataclass(slots=True, kw_only=True)
class Comparison:
    """Every sample of one run. `baseline` and `subject` are names of systems."""

    baseline: str
    subject: str
    samples: list[Sample] = field(default_factory=list)

    def of(self, system: str, workload: Workload) -> list[Sample]:
        """The samples of one cell."""
        return [s for s in self.samples if s.system == system and s.workload.name == workload.name]

    def rows(self) -> list[dict[str, object]]:
        """One row a workload: medians of both systems and the ratio of their rates."""
        rows: list[dict[str, object]] = []
        for workload in {s.workload.name: s.workload for s in self.samples}.values():
            row: dict[str, object] = {"workload": workload.name}
            for side, system in (("baseline", self.baseline), ("subject", self.subject)):
                samples = self.of(system, workload)
                if samples:
                    row[side] = _medians(samples)
            if "baseline" in row and "subject" in row:
                row["ratio"] = _rate(row["subject"]) / _rate(row["baseline"])
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
    }


def _rate(cell: object) -> float:
    if not isinstance(cell, dict):
        raise TypeError(f"not a cell: {cell!r}")
    return float(cell["iops"])


def print_comparison(comparison: Comparison, console: Console) -> None:
    """The table for people: one line a workload and system, the ratio on the second."""
    table = Table(title=f"{comparison.subject} beside {comparison.baseline}, medians")
    table.add_column("workload")
    table.add_column("system")
    for name in ("IOPS", "MB/s", "mean µs", "p99 µs", "catch-up s", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in comparison.rows():
        ratio = row.get("ratio")
        for side, system in (("baseline", comparison.baseline), ("subject", comparison.subject)):
            shown = f"{ratio:.2f} ×" if side == "subject" and isinstance(ratio, float) else ""
            if side in row:
                table.add_row(str(row["workload"]), system, *_cells(row[side]), shown)
    console.print(table)
    if any(sample.workload.flush for sample in comparison.samples):
        console.print(FLUSH_NOTE, style="dim")


def _cells(cell: object) -> list[str]:
    if not isinstance(cell, dict):
        raise TypeError(f"not a cell: {cell!r}")
    return [
        f"{cell['iops']:,.0f}",
        f"{cell['mb_per_s']:,.1f}",
        f"{cell['latency_mean_us']:,.0f}",
        f"{cell['latency_p99_us']:,.0f}",
        f"{cell['settle_s']:.2f}",
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
