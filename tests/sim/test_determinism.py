"""One seed is one run: whatever the hashes of strings are, in whichever process, after whichever seeds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.run import run_seed

ROOT = Path(__file__).parents[2]


def trace_in_a_process(seed: int, hash_seed: str) -> str:
    """The trace's hash as `python -m tests.sim` prints it."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim", "--seed", str(seed)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return next(line for line in done.stdout.splitlines() if line.startswith("trace ")).split()[1]


@pytest.mark.parametrize("seed", [1, 7, 23, 42, 77])
def test_a_seed_gives_the_same_trace_with_any_hash_seed(seed: int) -> None:
    first = trace_in_a_process(seed, "1")
    assert trace_in_a_process(seed, "4711") == first
    assert run_seed(seed).trace_hash == first


def test_seeds_differ() -> None:
    assert len({run_seed(seed).trace_hash for seed in range(1, 6)}) == 5
