"""The writing moves from site to site and back: by switchovers, and once by a takeover.

At every stop both sites hold the same, by bytes and by digest, hosts can write at the new primary and at no
other site, and no more was sent than what was written there.
"""

from __future__ import annotations

import pytest

from console.demo.host import Host
from protocol.errors import FarshoreError
from tests.support.clients import KIB, MIB
from tests.support.oracle import BLOCK_BYTES, Oracle, content
from tests.support.pairs import newest_frame, no_host_may_write, start_pair
from tests.support.sites import Site

pytestmark = pytest.mark.slow

SIZE_BYTES = 16 * MIB
WRITES = 2000
# Beside the blocks themselves a leg may send this much: rows of events, and the records of the move.
BYTES_TO_ONE_OF_FRAMES = 4096 // 90  # of data, where every block has a frame of its own
EXTRA_BYTES = 64 * KIB


def settled(primary: Site, secondary: Site) -> str:
    """Paired, and all that was written is at both sites, with one digest; that cut."""
    primary.farshore("wait", "g", "--state", "paired", "--timeout", "60")
    cut: str = primary.json("wait", "g", "--timeout", "60")["position"]
    one, other = newest_frame(primary, "g"), newest_frame(secondary, "g")
    assert (one["position"], one["digest"]) == (other["position"], other["digest"])
    return cut


def check_stop(primary: Site, secondary: Site, oracle: Oracle) -> int:
    """Both sites hold what the oracle does, and both say who writes; the bytes that the primary has sent
    since it does."""
    cut = settled(primary, secondary)
    for site in (primary, secondary):
        assert content(site, f"g/v@{cut}") == oracle.image, f"{site.name} differs at {cut}"
    assert content(primary, "g/v") == oracle.image
    shown, other = (site.json("pair", "show", "g") for site in (primary, secondary))
    assert (shown["role"], other["role"]) == ("primary", "secondary"), f"{primary.name} is the primary"
    assert no_host_may_write(secondary, "g/v"), f"{secondary.name} lets hosts write"
    sent: int = shown["sent_bytes"]
    return sent


def check_sent(primary: Site, sent: int, written: int) -> None:
    """All that was written was sent, and once: a frame adds about 90 bytes, at most to every block."""
    most = written + written // BYTES_TO_ONE_OF_FRAMES + EXTRA_BYTES
    assert written <= sent <= most, f"{primary.name} sent {sent} bytes for {written} written, not {most}"


def switch(old: Site, new: Site) -> None:
    """`farshore switchover`; a host that stays connected loses its volume."""
    with Host(old.nbd_socket, "g/v") as host:
        assert old.json("switchover", "g", "--confirm", "g")["done"]
        with pytest.raises((FarshoreError, OSError)):
            host.write(0, bytes(BLOCK_BYTES))


@pytest.mark.parametrize("writes", [WRITES, 0])
def test_switchovers(pair: tuple[Site, Site], writes: int) -> None:
    """There, back, and there again."""
    a, b = pair
    start_pair(a, b, "g/v", SIZE_BYTES)
    oracle = Oracle(SIZE_BYTES, seed=31)
    for primary, secondary in ((a, b), (b, a), (a, b)):
        with Host(primary.nbd_socket, "g/v") as host:
            written = oracle.write(host, oracle.some_blocks(writes))
        check_sent(primary, check_stop(primary, secondary, oracle), written)
        switch(primary, secondary)
    check_stop(b, a, oracle)


def test_takeover_and_the_way_back(pair: tuple[Site, Site]) -> None:
    """The primary is killed; it comes back, follows by itself, and gets the writing back."""
    a, b = pair
    start_pair(a, b, "g/v", SIZE_BYTES)
    oracle = Oracle(SIZE_BYTES, seed=32)
    with Host(a.nbd_socket, "g/v") as host:
        oracle.write(host, oracle.some_blocks(WRITES))
        settled(a, b)
        a.kill()
    b.farshore("switchover", "g", "--confirm", "g", exit_code=13)
    taken = b.json("takeover", "g", "--confirm", "g")
    assert (taken["done"], taken["known_lost_bytes"]) == (True, 0), taken["statement"]
    assert content(b, "g/v") == oracle.image
    with Host(b.nbd_socket, "g/v") as host:
        written = oracle.write(host, oracle.some_blocks(WRITES))
    assert b.json("pair", "show", "g")["state"] == "taken over"

    a.start()
    check_sent(b, check_stop(b, a, oracle), written)
    assert a.json("branch", "list", "g")["branches"] == []

    switch(b, a)
    # Hosts at a hold what they knew before b took over: only an operator lets them in (C43).
    assert "fenced" in a.json("volume", "show", "g/v")["offline_reason"]
    a.farshore("volume", "online", "g/v")
    with Host(a.nbd_socket, "g/v") as host:
        oracle.write(host, oracle.some_blocks(10))
    check_stop(a, b, oracle)
