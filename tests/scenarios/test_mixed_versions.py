"""A site of this version and one of commit 0fa55f3, whose source is kept: they pair, either way round."""

from __future__ import annotations

import random
import shutil
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.demo.host import Host
from protocol.errors import ExitCode
from tests.support.oracle import Oracle, content
from tests.support.pairs import newest_frame, same_at_the_cut, start_pair
from tests.support.sites import Site, introduce, short_directory

SOURCE = Path(__file__).parents[1] / "golden" / "source.tar.xz"
SIZE_BYTES = 4 << 20
MIB = 1 << 20
LIMIT_BYTES = 64 * MIB


class OldSite(Site):
    """Commands and daemon are those of that commit."""

    is_of_this_version = False
    is_of_this_checkout = False

    def __init__(self, directory: Path, name: str, source: Path) -> None:
        super().__init__(directory, name)
        self._source = source

    def environment(self) -> dict[str, str]:
        """See `Site.environment`."""
        # That version starts its indexer without -P: in this checkout it would get this one's packages.
        return super().environment() | {"PYTHONPATH": str(self._source), "PYTHONSAFEPATH": "1"}

    def command(self) -> list[str]:
        """See `Site.command`: the installed one would find the packages of its own version."""
        return [sys.executable, "-P", "-m", "console.cli"]


@pytest.fixture
def sites(request: pytest.FixtureRequest) -> Iterator[tuple[Site, Site]]:
    """The primary and the secondary; the parameter says which of them is old."""
    parent = short_directory()
    source = parent / "source"
    with tarfile.open(SOURCE) as archive:
        archive.extractall(source, filter="data")
    old = OldSite(parent / "old", "old", source)
    new = Site(parent / "new", "new")
    for site in (old, new):
        site.init()
        site.start()
    introduce(old, new)
    try:
        yield (old, new) if request.param == "old writes" else (new, old)
        for site in (old, new):
            assert site.stop() == 0
            site.check_log()
    finally:
        for site in (old, new):
            site.kill()


def write(site: Site, oracle: Oracle, blocks: int) -> None:
    with Host(site.nbd_socket, "g/v") as host:
        oracle.write(host, oracle.some_blocks(blocks))
        host.flush()


def check_equal(primary: Site, secondary: Site, oracle: Oracle) -> None:
    primary.farshore("wait", "g", "--state", "paired", "--timeout", "60")
    same_at_the_cut(primary, secondary, "g", ("v",))
    assert content(primary, "g/v") == oracle.image
    assert newest_frame(primary, "g")["digest"] == newest_frame(secondary, "g")["digest"]


@pytest.mark.slow
def test_an_older_version_refuses_what_this_one_has_written_in() -> None:
    parent = short_directory()
    source = parent / "source"
    with tarfile.open(SOURCE) as archive:
        archive.extractall(source, filter="data")
    old, new = OldSite(parent / "a", "a", source), Site(parent / "a", "a")
    try:
        old.init()
        old.start()
        assert old.stop() == 0
        new.start()
        new.create_volume("g/v", "1M")
        assert new.stop() == 0
        said = old.refuses_to_run(ExitCode.NOT_ALLOWED)
        assert "has format version 2, this program reads 1" in said
        assert "next: install the version of Farshore that wrote it" in said
        new.start()
        assert [row["volume"] for row in new.json("volume", "list")["volumes"]] == ["v"]
        assert new.stop() == 0
        new.check_log()
    finally:
        for site in (old, new):
            site.kill()
        shutil.rmtree(parent)


@pytest.mark.slow
@pytest.mark.parametrize("sites", ["old writes", "new writes"], indirect=True)
def test_an_upgraded_site_and_one_that_is_not(sites: tuple[Site, Site]) -> None:
    """In step, with a backup, after a restart of each, after a split, and with the roles changed, twice."""
    a, b = sites
    start_pair(a, b, "g/v", SIZE_BYTES)
    oracle = Oracle(SIZE_BYTES, seed=51)
    write(a, oracle, 200)
    a.farshore("pair", "set", "g", "--mode", "sync")
    write(a, oracle, 50)
    check_equal(a, b, oracle)
    a.farshore("backup", "create", "g", "--label", "kept")
    image = bytes(oracle.image)
    for site in (b, a):
        site.kill()
        site.start()
        write(a, oracle, 20)
        check_equal(a, b, oracle)
    a.farshore("pair", "split", "g")
    write(a, oracle, 100)
    a.farshore("pair", "resync", "g")
    check_equal(a, b, oracle)
    for writer, follower in ((a, b), (b, a)):
        assert writer.json("switchover", "g", "--confirm", "g")["done"]
        write(follower, oracle, 20)
        check_equal(follower, writer, oracle)
    for site in (a, b):
        assert content(site, "g/v@kept") == image
        assert site.json("verify", "g", "--deep")["ok"]


@pytest.mark.slow
@pytest.mark.parametrize("sites", ["old writes", "new writes"], indirect=True)
def test_a_copy_where_only_one_site_knows_of_seeds(sites: tuple[Site, Site]) -> None:
    """It comes whole, and in one session: neither says what the other could not read."""
    a, b = sites
    assert a.stop() == 0
    with (a.directory / "site.toml").open("a") as config:
        config.write(f"journal_limit_bytes = {LIMIT_BYTES}\n")
    a.start()
    a.create_volume("g/v", str(SIZE_BYTES))
    write_far(a, 2 * LIMIT_BYTES)
    if b.is_of_this_version:
        image = b.directory.parent / "v.img"
        image.write_bytes(content(a, "g/v"))
        b.farshore("volume", "import", str(image), "g/v", "--seed")
    a.farshore("pair", "create", "g", "--with", b.name)
    a.farshore("wait", "g", "--state", "paired", "--timeout", "60")
    write_far(a, SIZE_BYTES)
    same_at_the_cut(a, b, "g", ("v",))
    kinds = [event["kind"] for event in b.json("events")["events"]]
    assert "base.installed" in kinds
    assert not {"base.seeded", "seed.set_aside", "pair.session_ended"} & set(kinds)
    assert not (b.directory / "seeds" / "g").exists()


def write_far(site: Site, total: int) -> None:
    """The whole volume, over and over."""
    rng = random.Random(total)
    with Host(site.nbd_socket, "g/v") as host:
        for at in range(0, total, MIB):
            host.write(at % SIZE_BYTES, rng.randbytes(MIB))
        host.flush()


@pytest.mark.slow
def test_another_size_waits_for_the_peers_upgrade() -> None:
    """An earlier version stops following at what it does not know, says so, and hosts go on; upgraded in
    place, it takes what it lacks."""
    parent = short_directory()
    source = parent / "source"
    with tarfile.open(SOURCE) as archive:
        archive.extractall(source, filter="data")
    old, new = OldSite(parent / "old", "old", source), Site(parent / "new", "new")
    upgraded = Site(old.directory, "old")
    upgraded.replication_port = old.replication_port
    try:
        for site in (old, new):
            site.init()
            site.start()
        introduce(old, new)
        start_pair(new, old, "g/v", SIZE_BYTES)
        oracle = Oracle(SIZE_BYTES, seed=53)
        write(new, oracle, 50)
        check_equal(new, old, oracle)
        for words in (
            ("resize", "g/v", "+1M"),
            ("rename", "g/v", "w"),
            ("create", "g/w", "--size", "1000001"),
        ):
            new.farshore("volume", *words, exit_code=ExitCode.WRONG_STATE)
        # A peer that is away is not asked.
        assert old.stop() == 0
        new.farshore("volume", "resize", "g/v", "+1M")
        old.start()
        new.farshore("wait", "g", "--state", "suspended", "--timeout", "60")
        until = time.monotonic() + 60
        while "takes nothing more" not in new.json("pair", "show", "g")["reason"]:
            assert time.monotonic() < until
            time.sleep(0.2)
        assert "event kind 30 is not known" in new.json("pair", "show", "g")["reason"]
        write(new, oracle, 50)
        assert old.stop() == 0
        upgraded.start()
        new.farshore("wait", "g", "--state", "paired", "--timeout", "90")
        at = new.json("wait", "g", "--timeout", "60")["position"]
        with Host(upgraded.nbd_socket, f"g/v@{at}") as host:
            assert host.size_bytes == SIZE_BYTES + MIB
            assert host.read(0, SIZE_BYTES) == oracle.image
        for site in (upgraded, new):
            assert site.stop() == 0
            site.check_log()
    finally:
        for site in (old, new, upgraded):
            site.kill()
        shutil.rmtree(parent)
