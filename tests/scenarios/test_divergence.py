"""Both sites wrote: nothing moves until an operator chooses, and what was not chosen stays, as a branch.

a ──proxy──▶ b        nothing gets through, either way, while hosts write at a and,
a ◀──proxy── b        after a takeover, at b
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from console.demo.host import Host
from protocol.errors import FarshoreError
from tests.support.clients import KIB, MIB
from tests.support.oracle import BLOCK_BYTES, Oracle, content
from tests.support.pairs import no_host_may_write, same_at_the_cut, start_pair, wait_for_states
from tests.support.proxy import Proxy, proxied
from tests.support.sites import Site, running_sites

pytestmark = pytest.mark.slow

SIZE_BYTES = 16 * MIB
BLOCKS = SIZE_BYTES // BLOCK_BYTES
WRITES = 400
HEALED_WITHIN_S = 30.0
EXTRA_BYTES = 64 * KIB


@dataclass(frozen=True, slots=True)
class Parted:
    """Two sites that wrote without each other: what each must hold, how many bytes each wrote alone."""

    a: Site
    b: Site
    at_a: Oracle
    at_b: Oracle
    by_a: int
    by_b: int


def write(site: Site, oracle: Oracle) -> int:
    """A host comes, writes and goes; the bytes."""
    with Host(site.nbd_socket, "g/v") as host:
        return oracle.write(host, oracle.some_blocks(WRITES))


@contextmanager
def parted_sites(*, killed: bool) -> Iterator[Parted]:
    """The sites, when they hear each other again and b shows `diverged`. `killed`: a was lost in between."""
    with running_sites("a", "b") as (a, b), proxied(a, b) as there, proxied(b, a) as back:
        start_pair(a, b, "g/v", SIZE_BYTES)
        a.create_volume("g/empty", "16T")
        # b takes over although a lives: a refuses that while it thinks that b follows, and then its hosts go.
        a.expected_errors |= {"peer.claim_refused", "hosts.cut_off"}
        at_a = Oracle(SIZE_BYTES, seed=51)
        write(a, at_a)
        a.farshore("wait", "g", "--timeout", "30")
        at_b = at_a.copy(seed=52)
        for proxy in (there, back):
            proxy.blackhole()
        with Host(a.nbd_socket, "g/v") as host:
            by_a = at_a.write(host, at_a.some_blocks(WRITES))
            if killed:
                a.kill()
            assert b.json("takeover", "g", "--confirm", "g")["done"]
            by_b = write(b, at_b)
            if not killed:
                by_a += at_a.write(host, at_a.some_blocks(WRITES))
            heal(there, back)
            if killed:
                a.start()
            wait_for_states("diverged", b, group="g", timeout_s=HEALED_WITHIN_S)
            with pytest.raises((FarshoreError, OSError)):
                host.write(0, bytes(BLOCK_BYTES))
        yield Parted(a, b, at_a, at_b, by_a, by_b)
        for site in (a, b):
            assert site.stop() == 0
            site.check_log()


def heal(*proxies: Proxy) -> None:
    """The link is back."""
    for proxy in proxies:
        proxy.heal()


def newest(site: Site) -> bytes:
    """What the volume is at the end of the history that a site holds."""
    head = site.json("pair", "show", "g")["head"]
    return content(site, f"g/v@{head['timeline']}:{head['position']}")


def check_nothing_moved(parted: Parted) -> None:
    """a gave up writing, and each site holds its own history."""
    a, b = parted.a, parted.b
    assert a.json("pair", "show", "g")["role"] == "secondary"
    assert no_host_may_write(a, "g/v"), "a lets hosts write"
    a.farshore("volume", "online", "g/v", exit_code=13)
    shown = b.json("pair", "show", "g")
    assert (shown["role"], shown["code"]) == ("primary", "PSUE"), shown["reason"]
    said = b.farshore("pair", "resync", "g", exit_code=21)
    assert "--source" in said
    assert newest(a) == parted.at_a.image
    assert content(b, "g/v") == parted.at_b.image
    for site in (a, b):
        assert site.json("branch", "list", "g")["branches"] == []


def check_branch(site: Site, oracle: Oracle, head: Oracle, written: int) -> None:
    """The one branch of a site: readable, and told apart from the head, exactly."""
    (branch,) = site.json("branch", "list", "g")["branches"]
    (export,) = (each for each in branch["exports"] if each.startswith("g/v@"))
    assert content(site, export) == oracle.image, f"{export} is not what was written"
    diff = site.json("branch", "diff", "g", branch["timeline"], "--limit", "10000")
    frames = diff["frames"]
    assert sum(frame["bytes"] for frame in frames) == branch["bytes"]
    assert len(frames) == branch["frames"]
    assert written <= branch["bytes"] <= written + EXTRA_BYTES, f"{branch['bytes']} bytes for {written}"
    volume, empty = sorted(diff["volumes"], key=lambda each: each["volume"] == "empty")
    assert (empty["extents"], empty["differing_bytes"]) == ([], 0)
    expected = differing(oracle, head)
    assert volume["extents"] == expected
    assert volume["differing_bytes"] == sum(length for _, length in expected)


def differing(one: Oracle, other: Oracle) -> list[list[int]]:
    """[offset, bytes] of stretches of whole blocks that differ."""
    found: list[list[int]] = []
    for at in range(0, SIZE_BYTES, BLOCK_BYTES):
        if one.image[at : at + BLOCK_BYTES] == other.image[at : at + BLOCK_BYTES]:
            continue
        if found and sum(found[-1]) == at:
            found[-1][1] += BLOCK_BYTES
        else:
            found.append([at, BLOCK_BYTES])
    return found


def check_mirrored(parted: Parted, chosen: Oracle, most_sent: int) -> None:
    """b writes, a follows, both hold the chosen history, and no more than what a lacked was sent."""
    a, b = parted.a, parted.b
    same_at_the_cut(b, a, "g", ("v",))
    for site in (a, b):
        assert newest(site) == chosen.image, f"{site.name} does not hold what was chosen"
    sent = b.json("pair", "show", "g")["sent_bytes"]
    assert sent <= most_sent, f"b sent {sent} bytes, at most {most_sent} were needed"


def test_own_history_chosen() -> None:
    """`pair resync --source local` at the site that writes."""
    with parted_sites(killed=False) as parted:
        check_nothing_moved(parted)
        parted.b.farshore("pair", "resync", "g", "--source", "local")
        check_mirrored(parted, parted.at_b, parted.by_b + EXTRA_BYTES)
        check_branch(parted.a, parted.at_a, parted.at_b, parted.by_a)
        write(parted.b, parted.at_b)
        same_at_the_cut(parted.b, parted.a, "g", ("v",))


def test_peers_history_chosen() -> None:
    """`pair resync --source remote` there: its hosts see another content from then on, so they are asked
    for."""
    with parted_sites(killed=False) as parted:
        check_nothing_moved(parted)
        b = parted.b
        b.farshore("pair", "resync", "g", "--source", "remote")
        check_mirrored(parted, parted.at_a, EXTRA_BYTES)
        check_branch(b, parted.at_b, parted.at_a, parted.by_b)
        assert no_host_may_write(b, "g/v"), "b lets hosts write before anyone said so"
        b.farshore("volume", "online", "g/v")
        write(b, parted.at_a)
        assert content(b, "g/v") == parted.at_a.image
        same_at_the_cut(b, parted.a, "g", ("v",))


def test_failback_of_a_site_that_was_killed() -> None:
    """What the lost site had written alone is its branch; then the writing moves back."""
    with parted_sites(killed=True) as parted:
        a, b = parted.a, parted.b
        check_nothing_moved(parted)
        done = b.json("failback", "g")
        assert done["state"] == "paired"
        assert parted.by_a <= done["tail_bytes"] <= parted.by_a + EXTRA_BYTES, f"{done['tail_bytes']} bytes"
        check_mirrored(parted, parted.at_b, parted.by_b + EXTRA_BYTES)
        check_branch(a, parted.at_a, parted.at_b, parted.by_a)
        b.farshore("switchover", "g", "--confirm", "g")
        a.farshore("volume", "online", "g/v")  # whose hosts knew it as it was before (C43)
        write(a, parted.at_b)
        same_at_the_cut(a, b, "g", ("v",))
        assert newest(b) == parted.at_b.image
