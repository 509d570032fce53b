"""Real groups for the daemon's parts: fixtures of the engine's tests; and two whole simulated sites."""

from __future__ import annotations

import pytest

from tests.unit.daemon.two_sites import TwoSites
from tests.unit.engine.conftest import directory, make_rig, rig, small_segments
from tests.unit.engine.conftest import sites as rigs

__all__ = ["directory", "make_rig", "rig", "rigs", "small_segments"]


@pytest.fixture
def sites() -> TwoSites:
    """Paired in mode async."""
    return TwoSites()
