"""Real groups for the primary's parts: fixtures of the engine's tests."""

from __future__ import annotations

from tests.unit.engine.conftest import directory, make_rig, rig, small_segments

__all__ = ["directory", "make_rig", "rig", "small_segments"]
