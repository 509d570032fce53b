"""fio's nbd engine as a measuring instrument: one job, one result.

Its JSON: https://fio.readthedocs.io/en/latest/fio_doc.html#json-output (latencies in nanoseconds).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

FIO_GRACE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What fio does: `rw` as fio names it, `block_bytes` a request, `flush` after every write."""

    name: str
    rw: str
    block_bytes: int
    depth: int
    flush: bool = False

    @property
    def reads(self) -> bool:
        """Whether it only reads."""
        return self.rw in {"read", "randread"}


RANDOM_WRITES = Workload(name="randwrite 4k qd32", rw="randwrite", block_bytes=4096, depth=32)
RANDOM_READS = Workload(name="randread 4k qd32", rw="randread", block_bytes=4096, depth=32)
LARGE_WRITES = Workload(name="write 1M qd8", rw="write", block_bytes=1 << 20, depth=8)


@dataclass(frozen=True, slots=True, kw_only=True)
class FioResult:
    """What one job reached."""

    iops: float
    bytes_per_s: float
    latency_mean_us: float
    latency_p99_us: float
    operations: int
    runtime_s: float


def parse(output: dict[str, Any], workload: Workload) -> FioResult:
    """The figures of a job's only direction."""
    side = output["jobs"][0]["read" if workload.reads else "write"]
    latency = side["clat_ns"]
    percentiles = latency.get("percentile", {})
    return FioResult(
        iops=float(side["iops"]),
        bytes_per_s=float(side["bw_bytes"]),
        latency_mean_us=latency["mean"] / 1000,
        latency_p99_us=float(percentiles.get("99.000000", 0)) / 1000,
        operations=int(side["total_ios"]),
        runtime_s=float(side["runtime"]) / 1000,
    )


def run(uri: str, workload: Workload, *, size_bytes: int, runtime_s: float) -> FioResult:
    """Run `workload` on the first `size_bytes` of an export for `runtime_s`."""
    options = [*_options(workload, size_bytes), f"--runtime={runtime_s}", "--time_based"]
    options += ["--fsync=1"] if workload.flush else []
    return parse(_fio(uri, options, timeout_s=runtime_s + FIO_GRACE_S), workload)


def write_bytes(uri: str, workload: Workload, *, size_bytes: int, total_bytes: int) -> FioResult:
    """Write `total_bytes` in all to the first `size_bytes` of an export, each with content of its own."""
    options = [*_options(workload, size_bytes), f"--io_size={total_bytes}", "--refill_buffers"]
    return parse(_fio(uri, options, timeout_s=900), workload)


def _options(workload: Workload, size_bytes: int) -> list[str]:
    return [
        f"--rw={workload.rw}",
        f"--bs={workload.block_bytes}",
        f"--iodepth={workload.depth}",
        f"--size={size_bytes}",
        "--norandommap",
        "--randrepeat=0",
    ]


def fill(uri: str, *, size_bytes: int, offset_bytes: int = 0) -> None:
    """Write random bytes over `size_bytes` from `offset_bytes`, so that later reads find data, not holes."""
    options = ["--rw=write", "--bs=1m", "--iodepth=8", f"--size={size_bytes}", f"--offset={offset_bytes}"]
    _fio(uri, [*options, "--refill_buffers", "--end_fsync=1"], timeout_s=900)


def _fio(uri: str, options: Sequence[str], *, timeout_s: float) -> dict[str, Any]:
    command = ["fio", "--name=bench", "--ioengine=nbd", f"--uri={uri}", *options, "--output-format=json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"fio ended with {result.returncode}: {result.stderr or result.stdout}")
    # Warnings go to standard output too, before the JSON.
    parsed: dict[str, Any] = json.loads(result.stdout[result.stdout.index("{") :])
    if (code := parsed["jobs"][0]["error"]) != 0:
        raise RuntimeError(f"fio met errno {code}: {result.stderr or result.stdout[:2000]}")
    return parsed
