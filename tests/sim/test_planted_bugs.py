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
    "failed-move-leaves-its-segment": 800,
    "follower-trusts-the-writers-durable": 25,
    "hand-over-before-it-is-durable": 20,
    "strict-mode-half-in-force": 170,
    "what-was-reclaimed-is-synced": 600,
}
# The seed that found each last, of those that take more than a few. It is tried first, then the others: the
# same seeds decide whether a bug is found. One that no longer finds it costs one run.
LIKELY = {
    "a-truncation-in-two-transactions": 13,
    "anyones-tail-is-left": 3,
    "checkpoint-past-durable": 6,
    "detached-site-writes-in-a-paired-session": 8,
    "directory-not-synced": 31,
    "durable-when-sync-ends": 4,
    "failed-checkpoint-believed": 21,
    "failed-move-leaves-its-segment": 844,
    "failed-sync-forgotten": 11,
    "flush-before-durable": 5,
    "follower-trusts-the-writers-durable": 47,
    "fua-like-any-write": 6,
    "hand-over-before-it-is-durable": 27,
    "hand-over-looked-for-once": 46,
    "hosts-stay-after-a-hand-over": 18,
    "hosts-stay-when-superseded": 4,
    "hosts-stay-while-the-other-history-comes": 4,
    "lane-shared-with-an-unsealed-parent": 3,
    "levels-that-came-with-a-checkpoint-are-not-looked-at": 3,
    "marks-of-the-last-session-count": 21,
    "newer-authority-written-down-before-fencing": 4,
    "no-single-blocks-until-a-checkpoint": 6,
    "paired-before-the-peer-follows": 42,
    "position-used-again": 5,
    "restored-to-a-tail-that-never-came": 8,
    "revert-to-now": 8,
    "runs-of-a-dropped-branch-fall-apart": 20,
    "skip-digest-check": 28,
    "takeover-forgets-the-fallback": 29,
    "takeover-keeps-the-generation": 23,
    "the-bytes-of-a-runs-first-block": 4,
    "time-goes-back": 28,
    "torn-tail-not-made-durable": 27,
    "what-was-reclaimed-is-synced": 658,
}


def test_the_required_bugs_are_planted() -> None:
    assert set(PLANTS) >= REQUIRED
    assert len(PLANTS) >= 30
    assert set(PLANTS) >= set(FIRST) | set(LIKELY)


@pytest.mark.parametrize("name", sorted(PLANTS))
def test_a_planted_bug_is_found(name: str) -> None:
    first = FIRST.get(name, 1)
    seeds = sorted(range(first, first + SEEDS_MAX), key=lambda seed: seed != LIKELY.get(name))
    results = (run_planted(name, seed) for seed in seeds)
    found = next((result for result in results if result.violation), None)
    assert found is not None, f"{name} went unnoticed in {SEEDS_MAX} seeds"
    broken = [kind for kind in PLANT_BROKEN if kind in found.violation]
    assert not broken, f"not the bug was found, but that its plant does not fit any more: {found.violation}"
    assert not run_seed(found.seed, focus=FOCUS.get(name, ())).violation, "the seed fails without the bug too"
