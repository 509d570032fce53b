"""Real groups for the daemon's parts: fixtures of the engine's tests."""

from __future__ import annotations

from tests.unit.engine.conftest import directory, make_rig, rig, sites, small_segments

__all__ = ["directory", "make_rig", "rig", "sites", "small_segments"]
