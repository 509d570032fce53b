"""The files with which `make test` begins the tests of daemons are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import LONGEST_FIRST

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", LONGEST_FIRST)
def test_it_is_there(name: str) -> None:
    assert (TESTS / name).is_file()
