"""Turning a volume back where not both sites hold the cut: by writes, here or from the peer, and undone."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from console.demo.host import Host
from tests.support.clients import MIB
from tests.support.oracle import Oracle, content
from tests.support.pairs import no_host_may_write, same_at_the_cut, start_pair, wait_for_states, wait_until
from tests.support.sites import Site, farshore_command, introduce, running_sites

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# A journal that is truncated soon; what is no backup's cut can then not be read any more.
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
    """Another volume of the group is rewritten, until the journal before that is truncated."""
    rng = random.Random(9)
    with Host(site.nbd_socket, "g/other") as host:
        for at in range(0, OTHER_BYTES, MIB):
            host.write(at % (8 * MIB), rng.randbytes(MIB))
        host.flush()


def bases_begun(site: Site) -> int:
    return sum(event["kind"] == "base.begun" for event in site.json("events")["events"])


def frames_since(site: Site, cut: str) -> list[dict[str, Any]]:
    """Frames of `g` after a cut, the newest 10 of them."""
    frames = site.json("journal", "show", "g", "--limit", "10")["frames"]
    return [frame for frame in frames if int(frame["position"].split(":")[1]) >= int(cut.split(":")[1])]


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

        time = b.json("volume", "uri", f"g/v@{cut}")["cut"]["time"]
        plan = a.json("restore", "volume", "g/v", "--at", time, "--dry-run")
        assert (plan["way"], plan["cut"]["text"]) == ("fetch", cut)
        assert 400 * 4096 <= plan["copied_bytes"] <= 500 * 4096
        done = a.json("restore", "volume", "g/v", "--at", cut, "--online", "--confirm", "g/v")
        assert (done["way"], done["copied_bytes"]) == ("fetch", plan["copied_bytes"])
        assert content(a, "g/v") == then
        position = a.json("wait", "g", "--timeout", "30")["position"]
        assert content(b, f"g/v@{position}") == then

        undone = a.json(*done["undo"].split()[1:])
        assert undone["way"] == "revert"
        a.farshore("volume", "online", "g/v")
        assert content(a, "g/v") == now
        same_at_the_cut(a, b, "g", ("v", "other"))


def test_killed_half_way() -> None:
    """The volume is shut until the same command completes the restore; the way back is the first one's."""
    with short_at_a() as (a, b):
        start_pair(a, b, "g/v", SIZE)
        a.create_volume("g/other", "8M")
        oracle = Oracle(SIZE, seed=3)
        then = write(a, oracle, BLOCKS)
        cut = a.json("wait", "g", "--timeout", "30")["position"]
        now = write(a, oracle, 2000)
        write_elsewhere(a)
        before = a.json("wait", "g", "--timeout", "30")["position"]
        b.farshore("peer", "set", "a", "--rate", "1M")
        words = ("restore", "volume", "g/v", "--at", cut, "--confirm", "g/v", "--online")
        with subprocess.Popen(
            [*farshore_command(), *words, "--site", str(a.directory)],
            env=a.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as command:
            written = f"g/v@{before}"
            wait_until(lambda: len(frames_since(a, before)) > 3, 60)
            a.kill()
            command.wait(30)
        b.farshore("peer", "set", "a", "--rate", "none")
        a.start()
        assert a.json("volume", "show", "g/v")["online"] is False
        assert f"half way back to {cut}" in a.farshore("volume", "online", "g/v", exit_code=13)
        assert no_host_may_write(a, "g/v")
        assert content(a, written) == now
        a.farshore("wait", "g", "--state", "paired", "--timeout", "60")
        a.farshore("backup", "create", "g", exit_code=13)
        assert b.run("volume", "show", "g/v").returncode == 0
        done = a.json(*words)
        assert done["way"] == "fetch"
        assert done["head"]["text"] == before
        assert content(a, "g/v") == then
        a.farshore(*done["undo"].split()[1:], "--online")
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
        done = a.json("restore", "volume", "g/v", "--at", "early", "--online", "--confirm", "g/v")
        assert done["way"] == "write"
        assert 0 < done["copied_bytes"] <= plan["copied_bytes"] <= 500 * 4096
        assert content(a, "g/v") == then
        position = a.json("wait", "g", "--timeout", "30")["position"]
        assert content(b, f"g/v@{position}") == then
        assert bases_begun(a) == 1  # the restore did not need another

        undone = a.json(*done["undo"].split()[1:], "--online")
        assert undone["way"] == "revert"
        assert content(a, "g/v") == now

        # Away, it is not asked; back, it cannot follow the revert, keeps what it has and takes a base.
        assert b.stop() == 0
        again = a.json("restore", "volume", "g/v", "--at", "early", "--online", "--confirm", "g/v")
        assert again["way"] == "revert"
        assert content(a, "g/v") == then
        b.start()
        wait_for_states("paired", a, b, group="g", timeout_s=60)
        assert bases_begun(a) == 2
        with Host(a.nbd_socket, "g/other") as host:
            host.write(0, bytes([7]) * 4096)
        same_at_the_cut(a, b, "g", ("v", "other"))
