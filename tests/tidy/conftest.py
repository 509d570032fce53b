"""These tests parse every file: millions of objects, of which none is rubbish before the last has ended."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.tidy.source_tree import all_files


@pytest.fixture(scope="package", autouse=True)
def syntax_trees() -> Iterator[None]:
    """Kept for all of them, and looked over by no collection: that took two thirds of their time."""
    gc.disable()
    yield
    all_files.cache_clear()
    gc.enable()
