"""`python -m tests.sim --seeds N [--start S] [--seed X] [--plant BUG]`: run seeds, and say how to run one
again.

Exit code 0 if every seed held (with `--plant`: if one of them found the bug), 1 otherwise.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.sim.plants import PLANTS, run_planted
from tests.sim.run import Result, run_seed

CHUNK = 4
LINES = 400  # of a failed seed's story


def replay_command(seed: int, plant: str | None = None) -> str:
    """What shows one seed again, with its last notes."""
    return f"python -m tests.sim --seed {seed}" + (f" --plant {plant}" if plant else "")


def results(seeds: range, plant: str | None, jobs: int) -> Iterator[Result]:
    """Of all seeds, in order."""
    run = partial(run_planted, plant) if plant else run_seed
    if jobs == 1:
        yield from map(run, seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(run, seeds, chunksize=CHUNK)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many (200)")
    parser.add_argument("--start", type=int, default=1, help="the first (1)")
    parser.add_argument("--seed", type=int, help="only this one, with its last notes if it fails")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="run with a bug planted in production code")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument(
        "--notes", type=int, default=0, help="of a failed --seed, its last notes in place of its story"
    )
    return parser.parse_args()


def main() -> int:
    """See the module's docstring."""
    arguments = _arguments()
    one = arguments.seed is not None
    seeds = (
        range(arguments.seed, arguments.seed + 1)
        if one
        else range(arguments.start, arguments.start + arguments.seeds)
    )
    began_s = time.monotonic()
    counts: Counter[str] = Counter()
    failed = 0
    for result in results(seeds, arguments.plant, 1 if one else arguments.jobs):
        counts.update(result.counts)
        if result.violation:
            failed += 1
            print(f"seed {result.seed}, at {result.virtual_s:.3f} s: {result.violation}")
            print(f"  again: {replay_command(result.seed, arguments.plant)}")
            if one:
                print(
                    "\n".join(result.notes[-arguments.notes :] if arguments.notes else result.trace[-LINES:])
                )
            if arguments.plant:
                break
        if one:
            print(f"trace {result.trace_hash}")
    took_s = time.monotonic() - began_s
    print(", ".join(f"{count} {name}" for name, count in counts.items() if count))
    print(f"{len(seeds)} seeds, {failed} with a violation, {took_s:.1f} s")
    return int(bool(failed) is not bool(arguments.plant))


if __name__ == "__main__":
    sys.exit(main())
