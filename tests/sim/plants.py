"""All planted bugs: each must be found, or the simulator is blind."""

from __future__ import annotations

from tests.sim import (
    plants_of_journals,
    plants_of_promises,
    plants_of_roles,
    plants_of_runs,
    plants_of_sites,
    plants_of_sizes,
)
from tests.sim.plant_registry import FOCUS, PLANTS
from tests.sim.run import Result, run_seed
from tests.sim.simulation import WHOLE, Trim

__all__ = [
    "FOCUS", "PLANTS", "plants_of_journals", "plants_of_promises", "plants_of_roles", "plants_of_runs",
    "plants_of_sites", "plants_of_sizes", "run_planted",
]  # fmt: skip


def run_planted(name: str, seed: int, trim: Trim = WHOLE) -> Result:
    """Run one seed, or a smaller life of it, with a bug planted."""
    return run_seed(seed, PLANTS[name](), trim, FOCUS.get(name, ()))
