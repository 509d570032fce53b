"""Turning a volume back where not both sites hold the cut: by writes, here or from the peer, and undone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from console.demo.host import Host
from tests.support.clients import MIB
from tests.support.oracle import Oracle, content
from tests.support.pairs import newest_frame, same_at_the_cut, start_pair, wait_for_states
from tests.support.sites import Site, introduce, running_sites

pytestmark = pytest.mark.slow

# A journal that is folded soon; what is no backup's cut can then not be read any more.
SHORT_HISTORY = f"journal_limit_bytes = {64 * MIB}\nwindow_s = 0\n"
SIZE = 32 * MIB
BLOCKS = SIZE // 4096
OTHER_BYTES = 160 * MIB


@contextmanager
def short_at_a() -> Iterator[tuple[Site, Site]]:
    """Two sites that know each other and end cleanly; `a` keeps little of its history."""
    with running_sites("a", "b") as (a, b):
        assert a.stop() == 0
        with (a.directory / "site.toml").open("a") as config:
            config.write(SHORT_HISTORY)
        a.start()
        introduce(a, b)
        yield a, b
        for site in (a, b):
            assert site.stop() == 0
            site.check_log()


def write(site: Site, oracle: Oracle, blocks: int) -> bytes:
    """So many blocks of `g/v`; all of it now."""
    with Host(site.nbd_socket, "g/v") as host:
        oracle.write(host, oracle.some_blocks(blocks))
        host.flush()
    return bytes(oracle.image)


def write_elsewhere(site: Site) -> None:
    """Another volume of the group is rewritten, until the journal before that is folded."""
    rng = random.Random(9)
    with Host(site.nbd_socket, "g/other") as host:
        for at in range(0, OTHER_BYTES, MIB):
            host.write(at % (8 * MIB), rng.randbytes(MIB))
        host.flush()


def test_the_peer_alone_holds_the_cut() -> None:
    with short_at_a() as (a, b):
        start_pair(a, b, "g/v", SIZE)
        a.create_volume("g/other", "8M")
        oracle = Oracle(SIZE, seed=1)
        then = write(a, oracle, BLOCKS)
        cut = a.json("wait", "g", "--timeout", "30")["position"]
        now = write(a, oracle, 500)
        write_elsewhere(a)
        assert a.run("volume", "uri", f"g/v@{cut}").returncode == 23
        assert content(b, f"g/v@{cut}") == then

        plan = a.json("restore", "volume", "g/v", "--at", cut, "--dry-run")
        assert plan["way"] == "fetch"
        assert 400 * 4096 <= plan["copied_bytes"] <= 500 * 4096
        done = a.json("restore", "volume", "g/v", "--at", cut, "--start", "--confirm", "g/v")
        assert (done["way"], done["copied_bytes"]) == ("fetch", plan["copied_bytes"])
        assert content(a, "g/v") == then
        same_at_the_cut(a, b, "g", ("v", "other"))

        undone = a.json(*done["undo"].split()[1:])
        assert undone["way"] == "revert"
        a.farshore("volume", "online", "g/v")
        assert content(a, "g/v") == now
        same_at_the_cut(a, b, "g", ("v", "other"))


def test_the_peer_no_longer_holds_the_cut() -> None:
    """It got a base instead of the journal, so a backup from before is at one site only."""
    with short_at_a() as (a, b):
        a.create_volume("g/v", str(SIZE))
        a.create_volume("g/other", "8M")
        oracle = Oracle(SIZE, seed=2)
        then = write(a, oracle, BLOCKS)
        a.farshore("backup", "create", "g", "--label", "early")
        now = write(a, oracle, 500)
        write_elsewhere(a)
        a.farshore("pair", "create", "g", "--with", "b")
        wait_for_states("paired", a, b, group="g", timeout_s=60)
        assert content(a, "g/v@early") == then
        assert b.run("volume", "uri", "g/v@early").returncode == 23

        plan = a.json("restore", "volume", "g/v", "--at", "early", "--dry-run")
        assert plan["way"] == "write"
        done = a.json("restore", "volume", "g/v", "--at", "early", "--start", "--confirm", "g/v")
        assert done["way"] == "write"
        assert 0 < done["copied_bytes"] <= plan["copied_bytes"] <= 500 * 4096
        assert content(a, "g/v") == then
        same_at_the_cut(a, b, "g", ("v", "other"))
        bases = [e for e in a.json("events")["events"] if e["kind"] == "base.begun"]
        assert len(bases) == 1  # the restore did not need another

        undone = a.json(*done["undo"].split()[1:], "--start")
        assert undone["way"] == "revert"
        assert content(a, "g/v") == now
        same_at_the_cut(a, b, "g", ("v", "other"))
        assert newest_frame(a, "g")["digest"] == newest_frame(b, "g")["digest"]
