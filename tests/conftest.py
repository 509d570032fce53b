"""Fixtures shared by the suites that run real processes: `site`, `pair` and `tool`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.support.sites import Site, running_sites

REQUIRE_INTEROP = "FARSHORE_REQUIRE_INTEROP"

Site.forks_daemons = True


def missing(what: str) -> None:
    """Skip, or fail where everything must run (`make test`): a check that does not run proves nothing."""
    if os.environ.get(REQUIRE_INTEROP) == "1":
        pytest.fail(f"{what} ({REQUIRE_INTEROP} is set)", pytrace=False)
    pytest.skip(what)


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Path of a program; a missing one skips the test, or fails it under FARSHORE_REQUIRE_INTEROP=1."""

    def find(name: str) -> str:
        path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if path is None:
            missing(f"{name} is not installed: packaging/apt-packages.txt names its package")
        return str(path)

    return find


def _stop_cleanly(site: Site) -> None:
    if site.process is not None:
        code = site.stop()
        assert code == 0, f"site {site.name} ended with {code} after SIGTERM\n{site.tail()}"
    site.check_log()


@pytest.fixture
def as_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Daemons are started by the installed command: for tests of how a site starts."""
    monkeypatch.setattr(Site, "forks_daemons", False)


@pytest.fixture
def site() -> Iterator[Site]:
    """One site that runs; at the end it must stop cleanly and have logged no unexpected error."""
    with running_sites("a") as (one,):
        yield one
        _stop_cleanly(one)


@pytest.fixture
def pair() -> Iterator[tuple[Site, Site]]:
    """Two sites that know each other (no group paired yet), with the same closing checks."""
    with running_sites("a", "b") as (one, other):
        yield one, other
        _stop_cleanly(one)
        _stop_cleanly(other)


@pytest.fixture(params=[(2, 4, 8), (1, 2, 3)], ids=["runs", "short-runs"])
def run_sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index's runs as they are, and so short that stories of small writes have many."""
    monkeypatch.setattr("engine.index.levels.RUN_SHIFTS", request.param)
