"""Two sites of which one sends the other a base."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.site_primary.shipping.base_pair import BasePair


@pytest.fixture
def pair(directory: Path) -> Iterator[BasePair]:
    made = BasePair(directory)
    yield made
    made.close()
