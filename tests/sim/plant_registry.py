"""Where planted bugs are registered, and what one is.

A plant is a function that gives the patches for one run. Bugs are planted from here and never in production:
they are the mistakes that the rules of docs/durability.md exist for.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.sim.shape import Patch

Plant = Callable[[], tuple[Patch, ...]]
PLANTS: dict[str, Plant] = {}


def plant(make: Plant) -> Plant:
    """Register a plant under its function's name."""
    PLANTS[make.__name__.replace("_", "-")] = make
    return make
