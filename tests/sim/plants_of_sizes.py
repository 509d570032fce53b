"""Bugs planted in volumes that change their size."""

from __future__ import annotations

from typing import Any

import site_primary.resize_volume
import site_primary.restore_volume
import tests.sim.operator
from engine.history.volumes import VolumeHistory
from tests.sim.plant_registry import rare
from tests.sim.shape import Fault, Patch, Task


class _Everywhere:
    """As `Places`, with every place on it."""

    def __contains__(self, place: object) -> bool:
        return True


_EVERYWHERE: Any = _Everywhere()


@rare(Task.RESIZE, Task.REVERT)
def what_was_past_the_end_comes_back() -> tuple[Patch, ...]:
    """Nothing is zeroed, neither when a volume shrinks nor before it grows."""
    return ((site_primary.resize_volume, "_zero", lambda *_: None),)


@rare(Task.RESIZE, Fault.DIE_IN_CHANGE)
def zeroed_before_it_is_smaller() -> tuple[Patch, ...]:
    """A volume that shrinks is zeroed first; a kill in between leaves its old size without its bytes."""

    def resize(group: Any, volume: Any, size_bytes: int) -> Any:
        if size_bytes < volume.size_bytes:
            zero(group, volume, size_bytes, volume.size_bytes)
        return before(group, volume, size_bytes)

    zero, before = site_primary.resize_volume._zero, site_primary.resize_volume.resize

    return ((tests.sim.operator, "resize", resize),)


@rare(Task.RESIZE, Task.REVERT)
def restored_without_its_size() -> tuple[Patch, ...]:
    """A restore brings the bytes of its cut back, and leaves the size as it is."""
    return ((site_primary.restore_volume, "sizes_of", lambda *_: []),)


@rare(Task.RESIZE)
def sizes_of_now_at_every_cut() -> tuple[Patch, ...]:
    """A cut gives a volume the size that it has now."""

    def as_it_is(self: Any, volume: Any, here: Any) -> Any:
        return before(self, volume, _EVERYWHERE)

    before = VolumeHistory._as_it_is
    return ((VolumeHistory, "_as_it_is", as_it_is),)
