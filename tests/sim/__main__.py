"""`python -m tests.sim --seeds N [--start S | --of-commit] [--seed X] [--often FAULTS | --plant BUG]`: run
seeds, and say how to run one again.

Exit code 0 if every seed held (with `--plant`: if one of them found the bug), 1 otherwise.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tests.sim.plants import PLANTS, run_planted
from tests.sim.run import Result, run_seed
from tests.sim.shape import Fault, Focus, Habit, Task
from tests.sim.shrink import shrunk
from tests.sim.simulation import WHOLE, Trim

CHUNK = 4
LINES = 120  # of a failed seed's story
OF_COMMIT_FIRST = 1_000_000
OF_COMMIT_SPAN = 1_000_000_000
Run = Callable[..., Result]


def commit() -> str:
    """The commit that is run, with a mark if files differ from it; `unknown` where there is none."""
    root = Path(__file__).parents[2]
    found = [
        subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
        for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
    ]
    if any(done.returncode for done in found):
        return "unknown"
    return found[0].stdout.strip() + ("+changes" if found[1].stdout.strip() else "")


def start_of_commit() -> int:
    """The first of the seeds that nobody chose: another one for every commit, the same one for each."""
    name = commit().partition("+")[0]
    return OF_COMMIT_FIRST + (int(name, 16) % OF_COMMIT_SPAN if name != "unknown" else 0)


def replay_command(seed: int, plant: str | None = None, trim: Trim = WHOLE, often: Focus = ()) -> str:
    """What shows one seed again, with its story."""
    words = [f"python -m tests.sim --seed {seed}"]
    if plant:
        words.append(f"--plant {plant}")
    if often:
        words.append(f"--often '{','.join(each.value for each in often)}'")
    if trim.life_s is not None:
        words.append(f"--life {trim.life_s:g}")
    if trim.keep is not None:
        words.append(f"--keep {','.join(map(str, sorted(trim.keep)))}")
    return " ".join(words)


def results(seeds: range, run: Run, jobs: int, *, idle: bool = False) -> Iterator[Result]:
    """Of all seeds, in order; `idle`: by processes that take what time nothing else does."""
    if jobs == 1:
        collect_seldom()
        yield from map(run, seeds)
        return
    with ProcessPoolExecutor(jobs, initializer=begin_idle if idle else collect_seldom) as pool:
        yield from pool.map(run, seeds, chunksize=CHUNK)


def collect_seldom() -> None:
    """A life's objects stay until it ends: looking for rubbish more often only costs time."""
    gc.freeze()
    gc.set_threshold(200_000)


def begin_idle() -> None:
    """`collect_seldom`, in a session of its own that has the least share of the processors. Linux shares them
    between sessions before it looks who is idle in one (autogroup), and daemons lead theirs: an idle process
    of another session could take a third of what a busy daemon needs."""
    collect_seldom()
    os.setsid()
    try:
        Path("/proc/self/autogroup").write_text("19")
    except OSError:
        pass  # a kernel without them, or one where they may not be changed


def _often(names: str) -> Focus:
    """The faults, tasks and habits of a list with commas."""
    known: dict[str, Fault | Task | Habit] = {
        each.value: each for kind in (Fault, Task, Habit) for each in kind
    }
    unknown = [name for name in names.split(",") if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of: {', '.join(known)}")
    return tuple(known[name] for name in names.split(","))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many (200)")
    parser.add_argument("--start", type=int, default=1, help="the first (1)")
    parser.add_argument("--of-commit", action="store_true", help="the first follows from the commit's id")
    parser.add_argument("--seed", type=int, help="only this one, with its story if it fails")
    parser.add_argument("--life", type=float, help="of --seed: end its trouble after so many virtual seconds")
    parser.add_argument("--keep", help="of --seed: only these of its actions, as numbers with commas")
    parser.add_argument("--shrink", action="store_true", help="of --seed: the smallest life that fails alike")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="run with a bug planted in production code")
    parser.add_argument("--all", action="store_true", help="with --plant: count the seeds that find it")
    parser.add_argument("--traces", action="store_true", help="say what each seed's trace comes to")
    parser.add_argument("--twice", action="store_true", help="and the same with another hash of strings")
    parser.add_argument("--idle", action="store_true", help="in the time that nothing else takes")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument(
        "--notes", type=int, default=0, help="of a failed --seed: its last notes, not its story"
    )
    parser.add_argument(
        "--often", type=_often, default=(), help="faults and tasks that happen most of the time, with commas"
    )
    arguments = parser.parse_args()
    if arguments.often and arguments.plant:
        parser.error("--plant makes often what its bug needs")
    return arguments


def _run(arguments: argparse.Namespace) -> Run:
    """What runs one of the seeds."""
    if arguments.plant:
        return partial(run_planted, arguments.plant)
    return partial(run_seed, focus=arguments.often)


def _one(arguments: argparse.Namespace) -> int:
    """One seed, or a smaller life of it."""
    keep = arguments.keep
    numbers = None if keep is None else frozenset(int(each) for each in keep.split(",") if each)
    trim = Trim(life_s=arguments.life, keep=numbers)
    run = _run(arguments)
    result = run(arguments.seed, trim=trim)
    if result.violation and arguments.shrink:
        trim, result = shrunk(result, lambda trim: run(arguments.seed, trim=trim))
    if result.violation:
        _say(result, arguments, trim)
        print("\n".join(result.notes[-arguments.notes :] if arguments.notes else result.trace[-LINES:]))
    print(f"trace {result.trace_hash}")
    return int(bool(result.violation) is not bool(arguments.plant))


def _say(result: Result, arguments: argparse.Namespace, trim: Trim = WHOLE) -> None:
    print(f"seed {result.seed}, at {result.virtual_s:.3f} s: {result.violation}")
    again = replay_command(result.seed, arguments.plant, trim, arguments.often)
    print(f"  again: {again}", flush=True)


def traces_elsewhere(seeds: range) -> dict[int, str]:
    """Each seed's trace from processes that hash strings otherwise."""
    span = ("--seeds", str(len(seeds)), "--start", str(seeds.start))
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim", "--traces", *span],
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line.split() for line in done.stdout.splitlines() if line.startswith("trace ")]
    return {int(seed): trace for _, seed, trace in found}


def _twice(seeds: range) -> int:
    """Whether each seed is one life, wherever it runs."""
    elsewhere = traces_elsewhere(seeds)
    others = [
        each.seed for each in results(seeds, run_seed, 1) if elsewhere.get(each.seed) != each.trace_hash
    ]
    for seed in others:
        print(f"seed {seed} is not the same life twice")
    print(f"seeds {seeds.start} to {seeds.stop - 1} of commit {commit()}: {len(others)} differ")
    return int(bool(others))


def main() -> int:
    """See the module's docstring."""
    arguments = _arguments()
    if arguments.idle:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    if arguments.seed is not None:
        return _one(arguments)
    start = start_of_commit() if arguments.of_commit else arguments.start
    seeds = range(start, start + arguments.seeds)
    if arguments.twice:
        return _twice(seeds)
    began_s = time.monotonic()
    counts: Counter[str] = Counter()
    failed = 0
    for result in results(seeds, _run(arguments), arguments.jobs, idle=arguments.idle):
        counts.update(result.counts)
        if arguments.traces:
            print(f"trace {result.seed} {result.trace_hash}")
        if result.violation:
            failed += 1
            _say(result, arguments)
            if arguments.plant and not arguments.all:
                break
    took_s = time.monotonic() - began_s
    print(", ".join(f"{count} {name}" for name, count in counts.items() if count))
    span = f"seeds {seeds.start} to {seeds.stop - 1} of commit {commit()}"
    print(f"{span}: {len(seeds)} seeds, {failed} with a violation, {took_s:.1f} s")
    return int(bool(failed) is not bool(arguments.plant))


if __name__ == "__main__":
    sys.exit(main())
