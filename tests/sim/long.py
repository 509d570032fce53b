"""`python -m tests.sim.long --hours H`: seeds without end, from where the last run stopped, on all cores.

`DIRECTORY/next` holds the first seed that was not run yet, `DIRECTORY/failures.jsonl` one line for each that
failed: seed, commit, violation, the smallest life found and its story. Exit code 1 if any failed now.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial
from pathlib import Path

from tests.sim.__main__ import collect_seldom, commit, replay_command
from tests.sim.run import Result, run_seed
from tests.sim.shrink import shrunk

FIRST = 10_000_000  # far from the seeds that every run of the tests has
SAVE_EVERY = 50


def failure(result: Result) -> dict[str, object]:
    """What is kept of a seed that failed, made as small as it goes."""
    trim, small = shrunk(result, lambda trim: run_seed(result.seed, trim=trim))
    return {
        "seed": result.seed,
        "commit": commit(),
        "violation": result.violation,
        "again": replay_command(result.seed, trim=trim),
        "life_s": trim.life_s,
        "actions": sorted(trim.keep) if trim.keep is not None else None,
        "story": list(small.trace),
    }


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.long", description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0, help="how long (1)")
    parser.add_argument("--directory", type=Path, default=Path(".sim"), help="where it is kept (.sim)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    arguments = parser.parse_args()
    arguments.directory.mkdir(exist_ok=True)
    next_file = arguments.directory / "next"
    first = seed = int(next_file.read_text()) if next_file.exists() else FIRST
    end_s = time.monotonic() + arguments.hours * 3600
    failed = 0
    running: dict[Future[Result], int] = {}
    with ProcessPoolExecutor(arguments.jobs, initializer=collect_seldom) as pool:
        while running or time.monotonic() < end_s:
            while len(running) < 2 * arguments.jobs and time.monotonic() < end_s:
                running[pool.submit(partial(run_seed, seed))] = seed
                seed += 1
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                del running[future]
                if future.result().violation:
                    failed += 1
                    _keep(arguments.directory / "failures.jsonl", failure(future.result()))
            if seed % SAVE_EVERY == 0 or not running:
                next_file.write_text(f"{min(running.values(), default=seed)}\n")
    print(f"seeds {first} to {seed - 1} of commit {commit()}: {failed} with a violation")
    return int(bool(failed))


def _keep(path: Path, row: dict[str, object]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
    story = row["story"]
    print(f"seed {row['seed']}: {row['violation']}\n  again: {row['again']}", flush=True)
    if isinstance(story, list):
        print("\n".join(map(str, story[-60:])), flush=True)


if __name__ == "__main__":
    sys.exit(main())
