"""Where planted bugs are registered, and what one is.

A plant is a function that gives the patches for one run. Bugs are planted from here and never in production:
they are the mistakes that the rules of docs/durability.md exist for.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.sim.shape import Fault, Focus, Habit, Patch, Task

Plant = Callable[[], tuple[Patch, ...]]
PLANTS: dict[str, Plant] = {}
FOCUS: dict[str, Focus] = {}


def plant(make: Plant) -> Plant:
    """Register a plant under its function's name."""
    PLANTS[make.__name__.replace("_", "-")] = make
    return make


def rare(*focus: Fault | Task | Habit) -> Callable[[Plant], Plant]:
    """The same of one that needs these faults and tasks, and seldom meets them: they happen more often."""

    def register(make: Plant) -> Plant:
        FOCUS[make.__name__.replace("_", "-")] = focus
        return plant(make)

    return register
