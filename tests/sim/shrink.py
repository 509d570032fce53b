"""From a seed that fails to the smallest life of it that fails in the same way: fewer of the operator's and
chance's actions, trouble that ends sooner.

Every action has a number and a generator of its own (`Simulation._act`), so leaving one out leaves the draws
of all others as they are. What hosts and sites then do may differ all the same: a smaller life counts only if
it ends with the same kind of violation, and every one is run.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from tests.sim.run import Result
from tests.sim.simulation import WHOLE, Trim

RUNS_MAX = 80
Run = Callable[[Trim], Result]


def kind_of(violation: str) -> str:
    """A violation without its numbers and names of timelines."""
    return re.sub(r"\b[0-9a-f]{16}\b|\b[ab]\b|\d+", "…", violation.partition("\n")[0])[:80]


def shrunk(result: Result, run: Run, runs_max: int = RUNS_MAX) -> tuple[Trim, Result]:
    """The smallest life found within so many runs, and what came of it; the whole if none is smaller."""
    search = _Search(kind_of(result.violation), run, runs_max)
    best = search.shorter(WHOLE, result)
    numbers = list(range(best[1].actions))
    return search.fewer(best, numbers)


class _Search:
    def __init__(self, kind: str, run: Run, runs_max: int) -> None:
        self._kind = kind
        self._run = run
        self._left = runs_max

    def _fails(self, trim: Trim) -> Result | None:
        """The result if this life fails in the same way; None if not, or if no run is left."""
        if self._left <= 0:
            return None
        self._left -= 1
        result = self._run(trim)
        return result if result.violation and kind_of(result.violation) == self._kind else None

    def shorter(self, trim: Trim, result: Result) -> tuple[Trim, Result]:
        """Halve the life as long as it fails."""
        life_s = min(12.0, result.virtual_s)
        while life_s > 0.2:
            life_s *= 0.6
            found = self._fails(replace(trim, life_s=life_s))
            if found is None:
                break
            trim, result = replace(trim, life_s=life_s), found
        return trim, result

    def fewer(self, best: tuple[Trim, Result], numbers: list[int]) -> tuple[Trim, Result]:
        """Leave actions out, in halves, quarters and so on (delta debugging)."""
        trim, result = best
        parts = 2
        while len(numbers) > 1 and parts <= len(numbers) and self._left > 0:
            size = -(-len(numbers) // parts)
            for start in range(0, len(numbers), size):
                kept = numbers[:start] + numbers[start + size :]
                smaller = replace(trim, keep=frozenset(kept))
                found = self._fails(smaller)
                if found is not None:
                    trim, result, numbers = smaller, found, kept
                    parts = max(2, parts - 1)
                    break
            else:
                parts *= 2
        return trim, result
