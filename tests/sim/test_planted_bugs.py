"""A simulator that finds nothing may be blind: each bug planted in production code is found, and soon."""

from __future__ import annotations

import pytest

from tests.sim.plants import FOCUS, PLANTS, run_planted
from tests.sim.run import run_seed

SEEDS_MAX = 100
# These stand in the project's list of what must be shown.
REQUIRED = {"ack-before-write", "skip-digest-check", "checkpoint-past-durable"}
# What a patch whose production code has changed ends with.
PLANT_BROKEN = ("TypeError", "AttributeError", "NameError")
# Where the search begins for those that take many seeds: with what found them last.
FIRST = {
    "failed-move-leaves-its-segment": 690,
    "follower-trusts-the-writers-durable": 25,
    "hand-over-before-it-is-durable": 20,
    "strict-mode-half-in-force": 170,
}


def test_the_required_bugs_are_planted() -> None:
    assert set(PLANTS) >= REQUIRED
    assert len(PLANTS) >= 30


@pytest.mark.parametrize("name", sorted(PLANTS))
def test_a_planted_bug_is_found(name: str) -> None:
    first = FIRST.get(name, 1)
    seeds = range(first, first + SEEDS_MAX)
    results = (run_planted(name, seed) for seed in seeds)
    found = next((result for result in results if result.violation), None)
    assert found is not None, f"{name} went unnoticed in {SEEDS_MAX} seeds"
    broken = [kind for kind in PLANT_BROKEN if kind in found.violation]
    assert not broken, f"not the bug was found, but that its plant does not fit any more: {found.violation}"
    assert not run_seed(found.seed, focus=FOCUS.get(name, ())).violation, "the seed fails without the bug too"
