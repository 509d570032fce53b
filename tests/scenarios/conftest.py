"""Every test here runs real daemons: the `site` and `pair` fixtures are those of tests/conftest.py."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sites import short_directory

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in this folder."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.scenario)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory with a short path for images and copies."""
    directory = short_directory()
    yield directory
    shutil.rmtree(directory, ignore_errors=True)
