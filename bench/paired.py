"""`python -m bench.paired`: what a mirrored volume costs in processor time and disk, over both sites.

    1m      1 MiB writes in order: processor time for each MiB, of both daemons and their indexers, until the
            mirror has all and both indexes are whole
    4k      the same for random writes of 4 KiB
    window  random writes of 4 KiB with an any-point window of 5 s: the rate from tenth to tenth, the most
            that either site took of the disk, and the indexers' processor time for each block

Processor time holds on a busy machine; rates do not. It judges nothing.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench import fio
from bench.farshore_pair import FarshorePair
from bench.fio import LARGE_WRITES, RANDOM_WRITES
from bench.growth import disk_bytes
from bench.processor import daemon_and_children_s, daemon_s, waited_for_s
from tests.support.sites import Site

MIB = 1 << 20
VOLUME_BYTES = 1 << 30
WINDOW_S = 5
TENTHS = 10
LOOK_EVERY_S = 0.25
STOP_TIMEOUT_S = 600.0


def until_stopped(workload: fio.Workload, total_bytes: int, mode: str) -> str:
    """Processor time of both sites from the first write to the end of a clean stop."""
    with FarshorePair(size=f"{VOLUME_BYTES // MIB}M", mode=mode) as pair:
        sites = (pair.primary, pair.secondary)
        before = [daemon_and_children_s(site.pid) for site in sites]
        written = fio.write_bytes(pair.uri, workload, size_bytes=VOLUME_BYTES, total_bytes=total_bytes)
        pair.settle()
        daemons = [daemon_s(site.pid) for site in sites]
        ends = []
        for site in sites:
            waited_s = waited_for_s()
            site.stop(STOP_TIMEOUT_S)
            ends.append(waited_for_s() - waited_s)
    used = [end - at for end, at in zip(ends, before, strict=True)]
    unit, count = ("MiB", total_bytes // MIB) if workload is LARGE_WRITES else ("write", total_bytes // 4096)
    scale, text = (1e3, "ms") if workload is LARGE_WRITES else (1e6, "µs")
    parts = ", ".join(
        f"{name} {each * scale / count:.2f} (daemon {(own - at) * scale / count:.2f})"
        for name, each, own, at in zip("ab", used, daemons, before, strict=True)
    )
    rate = f"{written.bytes_per_s / MIB:.0f} MiB/s"
    return f"{workload.name} {mode}: {sum(used) * scale / count:.2f} {text} a {unit}: {parts}; {rate}"


def window(total_bytes: int, mode: str) -> Iterator[str]:
    """Random writes, of which history keeps seconds."""
    with FarshorePair(size=f"{VOLUME_BYTES // MIB}M", mode=mode) as pair:
        sites = (pair.primary, pair.secondary)
        words = ("schedule", "set", pair.group, "--window", f"{WINDOW_S}s", "--confirm", pair.group)
        pair.primary.farshore(*words)
        before = [daemon_and_children_s(site.pid) - daemon_s(site.pid) for site in sites]
        rates = []
        with disk_peaks(sites) as peaks:
            for _ in range(TENTHS):
                part = fio.write_bytes(
                    pair.uri, RANDOM_WRITES, size_bytes=VOLUME_BYTES, total_bytes=total_bytes // TENTHS
                )
                rates.append(part.bytes_per_s)
                print(f"  {part.iops:.0f} writes/s", file=sys.stderr)
        yield f"rate of the last tenth: {rates[-1] / rates[0]:.2f} of the first's {rates[0] / MIB:.0f} MiB/s"
        window_bytes = WINDOW_S * sum(rates) / TENTHS
        bound = VOLUME_BYTES * 1.25 + window_bytes
        for site, peak, at in zip(sites, peaks, before, strict=True):
            indexers_s = daemon_and_children_s(site.pid) - daemon_s(site.pid) - at
            of_bound = f"{peak / bound:.2f} of live and a quarter and the window ({bound / MIB:.0f} MiB)"
            per_block = indexers_s * 1e6 / (total_bytes / 4096)
            yield (
                f"site {site.name}: at most {peak / MIB:.0f} MiB of disk, {of_bound}; "
                f"indexers {per_block:.1f} µs a block written"
            )


@contextmanager
def disk_peaks(sites: Sequence[Site]) -> Iterator[list[int]]:
    """The most that each site's directory takes while the body runs, once that is over."""
    peaks = [0] * len(sites)
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_EVERY_S):
            for at, site in enumerate(sites):
                peaks[at] = max(peaks[at], disk_bytes(site.directory))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield peaks
    finally:
        over.set()
        looking.join()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.paired", description=__doc__)
    parser.add_argument("rows", nargs="*", choices=("1m", "4k", "window"), default=("1m", "4k", "window"))
    parser.add_argument("--mode", default="async", choices=("async", "sync", "sync-strict"))
    parser.add_argument("--mib", type=int, default=4096, help="written in each row (4096)")
    options = parser.parse_args(arguments)
    for row in options.rows:
        began_s = time.monotonic()
        match row:
            case "1m":
                lines = iter([until_stopped(LARGE_WRITES, options.mib * MIB, options.mode)])
            case "4k":
                lines = iter([until_stopped(RANDOM_WRITES, options.mib * MIB, options.mode)])
            case _:
                lines = window(options.mib * MIB, options.mode)
        for line in lines:
            print(line)
        print(f"  ({time.monotonic() - began_s:.0f} s)", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
