"""`python -m bench.cli_start`: processor time of the commands that scripts and people give most.

Of a process of its own each, as it is installed, its output into a pipe; the least of several runs, since
whatever else the machine does only adds to it. `status` asks a site that runs and has a group.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence

from tests.support.sites import Site, farshore_command, short_directory

RUNS = 10
LIMIT_MS = 150


def processor_ms(words: Sequence[str], environment: Mapping[str, str], runs: int = RUNS) -> float:
    """Milliseconds that the command takes of a processor, in user and system mode, at best."""
    best = float("inf")
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, env=environment, stdout=subprocess.PIPE, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        best = min(best, used_s * 1000)
    return best


def main() -> int:
    """Print a line a command; 0 whatever it took, since other machines have other processors."""
    directory = short_directory()
    try:
        site = Site(directory / "lon", "lon")
        site.init()
        site.start()
        try:
            site.farshore("volume", "create", "vm1/root", "--size", "64M")
            environment = site.environment() | {"FARSHORE_SITE": str(site.directory)}
            empty = processor_ms([sys.executable, "-c", "pass"], environment)
            print(f"python itself: {empty:.0f} ms of processor time ({os.cpu_count()} processors)")
            for words in (["--version"], ["status"], ["status", "--json"]):
                took = processor_ms([*farshore_command(), *words], environment)
                print(f"farshore {' '.join(words)}: {took:.0f} ms of processor time (aim: {LIMIT_MS})")
        finally:
            site.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
