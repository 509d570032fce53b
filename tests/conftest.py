"""Fixtures shared by the suites that run real processes: `site`, `pair` and `tool`."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.support.sites import Site, running_sites

REQUIRE_INTEROP = "FARSHORE_REQUIRE_INTEROP"

# Files that take longest, longest first: a worker that begins one of them last keeps the others waiting.
# The Makefile tells xdist to keep the order.
LONGEST_FIRST = (
    "scenarios/test_demo.py",
    "scenarios/test_mixed_versions.py",
    "scenarios/test_restore_ways.py",
    "crash/test_takeover_under_load.py",
    "scenarios/test_many_backups.py",
    "scenarios/test_journal_limit.py",
    "scenarios/test_peer_budget.py",
    "interop/test_encrypted_volumes.py",
    "scenarios/test_cron_schedules.py",
    "scenarios/test_old_copies.py",
    "scenarios/test_news.py",
    "scenarios/test_resync_sizes.py",
    "crash/test_kill_under_load.py",
    "scenarios/test_deb.py",
    "scenarios/test_main_job.py",
    "scenarios/test_hostile_peer.py",
    "scenarios/test_divergence.py",
    "scenarios/test_no_space.py",
    "scenarios/test_images.py",
)

Site.forks_daemons = True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In the order above; what is not named there stays in its own."""
    ranks = {name: rank for rank, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: ranks.get(f"{item.path.parent.name}/{item.path.name}", len(ranks)))


def pytest_collection_finish() -> None:
    """What was loaded and collected stays to the end: every full search for garbage looked through it all. As
    many objects as make a search worth it are more than most tests make."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


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
