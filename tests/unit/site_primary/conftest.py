"""Real groups for the primary's parts: fixtures of the engine's tests, and a pair that ships."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.engine.conftest import directory, make_rig, rig, small_segments, tiny_segments
from tests.unit.site_primary.shipping.shipping_pair import ShippingPair

__all__ = ["directory", "make_rig", "rig", "shipping", "small_segments", "tiny_segments"]


@pytest.fixture
def shipping(directory: Path) -> Iterator[ShippingPair]:
    """Two sites, the first not shipping yet."""
    made = ShippingPair(directory)
    yield made
    made.close()
