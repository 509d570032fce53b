"""`python -m tests.fuzz --minutes N [TARGET …]`: every target in turn, each for its part of the time.

Prints the executions of each; exit code 1 if there was a finding.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys

from tests.fuzz.every import EVERY

EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("targets", nargs="*")
    arguments = parser.parse_args()
    names = arguments.targets or list(EVERY)
    seconds = max(1, int(arguments.minutes * 60 / len(names)))
    failed, total = 0, 0
    for name in names:
        words = [sys.executable, "-m", "tests.fuzz.one", name, str(seconds)]
        result = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
        match = EXECUTED.search(result.stderr)
        executed = int(match[1]) if match else 0
        total += executed
        note = ""
        if result.returncode or not executed:
            failed += 1
            note = "  FINDING"
            print(result.stdout[-2000:], result.stderr[-4000:], sep="\n", file=sys.stderr)
        print(f"{name:14} {executed:>10} executions in {seconds} s{note}", flush=True)
    print(f"{'all':14} {total:>10} executions, {failed} targets with a finding")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
