"""Every test here runs real daemons: the `site` and `pair` fixtures are those of tests/conftest.py."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.support.booted_debian import debian_root, lacking
from tests.support.clients import succeed
from tests.support.sites import ROOT, short_directory

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


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package of this checkout; FARSHORE_DEB names one that was built already."""
    if built := os.environ.get("FARSHORE_DEB"):
        return Path(built)
    if shutil.which("dpkg-deb") is None:
        pytest.skip("no Debian here")
    place = tmp_path_factory.mktemp("deb")
    succeed(ROOT / "packaging" / "make-deb.sh", sys.executable, place, timeout_s=1500)
    (found,) = place.glob("farshore_*.deb")
    return found


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clean Debian to boot copies of (tests/support/booted_debian.py)."""
    if os.environ.get("FARSHORE_FULL") != "1":
        pytest.skip("makes and boots a Debian: FARSHORE_FULL=1, as root")
    if lacks := lacking():
        missing(lacks)
    place = tmp_path_factory.mktemp("debian")
    yield debian_root(place)
    shutil.rmtree(place)
