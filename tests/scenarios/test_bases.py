"""Where the journal does not lead a peer on, it gets the blocks that differ, and the journal from there."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from console.demo.host import Host
from tests.support.pairs import same_at_the_cut, wait_for_states
from tests.support.sites import Site, introduce, running_sites

pytestmark = pytest.mark.slow

MIB = 1 << 20
LIMIT_BYTES = 64 * MIB
VOLUME = "128M"
CHUNK = 256 << 10


def limit_journals(site: Site) -> None:
    """Restart a site with journals of 64 MiB at most."""
    assert site.stop() == 0
    with (site.directory / "site.toml").open("a") as config:
        config.write(f"journal_limit_bytes = {LIMIT_BYTES}\n")
    site.start()


@pytest.fixture
def limited() -> Iterator[tuple[Site, Site]]:
    """Two sites that know each other; the first one's journals may take 64 MiB."""
    with running_sites("a", "b") as (one, other):
        limit_journals(one)
        introduce(one, other)
        yield one, other
        for site in (one, other):
            assert site.stop() == 0
            site.check_log()


def write(site: Site, rng: random.Random, total: int, area: int) -> None:
    """`total` bytes in chunks anywhere in the first `area` bytes."""
    with Host(site.nbd_socket, "g/v") as host:
        for _ in range(total // CHUNK):
            host.write(rng.randrange(0, area // CHUNK) * CHUNK, rng.randbytes(4096) * (CHUNK // 4096))
        host.flush()


def messages(site: Site, kind: str) -> list[str]:
    return [event["message"] for event in site.json("events")["events"] if event["kind"] == kind]


def test_a_new_peer_and_one_that_was_away_too_long(limited: tuple[Site, Site]) -> None:
    one, other = limited
    rng = random.Random(4)
    one.create_volume("g/v", VOLUME)
    write(one, rng, 128 * MIB, 64 * MIB)
    one.farshore("pair", "create", "g", "--with", "b")
    wait_for_states("paired", one, other, group="g", timeout_s=60)
    (copied,) = messages(other, "base.installed")
    assert "start" not in copied
    assert int(copied.removeprefix("bytes ")) <= 1.1 * 64 * MIB
    write(one, rng, MIB, 64 * MIB)
    same_at_the_cut(one, other, "g", ("v",))

    assert other.stop() == 0
    write(one, rng, 128 * MIB, 8 * MIB)
    other.start()
    wait_for_states("paired", one, other, group="g", timeout_s=60)
    write(one, rng, MIB, 64 * MIB)
    same_at_the_cut(one, other, "g", ("v",))
    _, resynced = messages(other, "base.installed")
    assert resynced.startswith("start ")
    assert int(resynced.rpartition(" ")[2]) <= 1.2 * 8 * MIB
    assert one.json("verify", "g", "--deep")["ok"]
    assert other.json("verify", "g", "--deep")["ok"]
    other.kill()
    other.start()
    write(one, rng, 8 * MIB, 128 * MIB)
    same_at_the_cut(one, other, "g", ("v",))
    assert len(messages(one, "base.begun")) == 2
