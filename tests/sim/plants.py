"""All planted bugs: each must be found, or the simulator is blind."""

from __future__ import annotations

from tests.sim import plants_of_journals, plants_of_roles, plants_of_sites
from tests.sim.plant_registry import PLANTS
from tests.sim.run import Result, run_seed

__all__ = ["PLANTS", "plants_of_journals", "plants_of_roles", "plants_of_sites", "run_planted"]


def run_planted(name: str, seed: int) -> Result:
    """Run one seed with a bug planted."""
    return run_seed(seed, PLANTS[name]())
