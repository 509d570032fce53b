"""Faults of the link while a host writes: both ends say what is so, neither grows, the pair heals by itself.

The host notices nothing in async mode; after the fault the two sites hold the same, byte for byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from protocol.limits import HEARTBEAT_TIMEOUT_S, SHIP_IN_FLIGHT_BYTES_MAX
from tests.support.clients import MIB
from tests.support.pairs import MemoryWatch, same_at_the_cut, start_fio, states, wait_for_states
from tests.support.proxy import Proxy, Way, proxied
from tests.support.sites import Site, running_sites

pytestmark = [pytest.mark.slow, pytest.mark.alone]

NOTICED_WITHIN_S = HEARTBEAT_TIMEOUT_S + 2.0
STEADY_S = 6.0
# What is in flight is bounded; at either end it may stand in two places (the journal's buffers, ZeroMQ's).
RISE_MIB_MAX = 2 * SHIP_IN_FLIGHT_BYTES_MAX / MIB + 32
LOAD = ("--time_based", "--rate_iops=2500")
LOAD_BYTES_S = 2500 * 4096

Link = tuple[Site, Site, Proxy]


@pytest.fixture(scope="module")
def one_link() -> Iterator[Link]:
    """A pair of one group, `g`, that has only the proxy between its sites; it outlives every fault."""
    with running_sites("a", "b") as (primary, secondary), proxied(primary, secondary) as proxy:
        primary.create_volume("g/v", "64M")
        primary.farshore("pair", "create", "g", "--with", secondary.name)
        yield primary, secondary, proxy
        for site in (primary, secondary):
            assert site.stop() == 0
            site.check_log()


@pytest.fixture
def link(one_link: Link) -> Link:
    """The pair, paired."""
    primary, secondary, proxy = one_link
    proxy.heal()
    primary.farshore("wait", "g", "--state", "paired", "--timeout", "30")
    wait_for_states("paired", secondary, group="g", timeout_s=HEARTBEAT_TIMEOUT_S)
    return one_link


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Proxy.cut, id="cut"),
        pytest.param(lambda proxy: proxy.blackhole(Way.FORWARD), id="blackhole-to-the-secondary"),
        pytest.param(lambda proxy: proxy.blackhole(Way.BACK), id="blackhole-to-the-primary"),
        pytest.param(Proxy.blackhole, id="blackhole-both-ways"),
    ],
)
def test_link_lost(link: Link, fault: Callable[[Proxy], None]) -> None:
    """Both ends show it within the heartbeat's time; what was missed is sent afterwards."""
    primary, secondary, proxy = link
    fio = start_fio(primary, "g/v", *LOAD, "--runtime=11")
    with MemoryWatch(primary, secondary) as memory:
        fault(proxy)
        wait_for_states("suspended by error", primary, secondary, group="g", timeout_s=NOTICED_WITHIN_S)
        shown = primary.json("pair", "show", "g")
        assert shown["reason"]
        assert not shown["peer_connected"]
        assert secondary.json("pair", "show", "g")["reason"]
        proxy.heal()
        assert fio.wait(30) == 0
        same_at_the_cut(primary, secondary, "g", ("v",))
    assert states(primary, secondary, group="g") == ("paired", "paired")
    assert max(memory.rise_mib.values()) < RISE_MIB_MAX, memory.rise_mib


def test_link_of_100_ms(link: Link) -> None:
    """A long way is no fault: paired all the time, and no further behind than the way is long."""
    primary, secondary, proxy = link
    proxy.delay(0.1)
    fio = start_fio(primary, "g/v", *LOAD, "--runtime=9")
    with MemoryWatch(primary, secondary) as memory:
        until = time.monotonic() + STEADY_S
        while time.monotonic() < until:
            assert states(primary, secondary, group="g") == ("paired", "paired")
            shown = primary.json("pair", "show", "g")
            assert shown["lag_s"] < 1.0
            assert shown["lag_bytes"] < LOAD_BYTES_S
        assert fio.wait(30) == 0
        same_at_the_cut(primary, secondary, "g", ("v",))
    assert max(memory.rise_mib.values()) < RISE_MIB_MAX, memory.rise_mib


def test_link_of_1_mb_a_second(link: Link) -> None:
    """A link too slow for the hosts: they go on, the pair stays paired and says how far behind it is."""
    primary, secondary, proxy = link
    proxy.throttle(1_000_000)
    fio = start_fio(primary, "g/v", *LOAD, "--runtime=9")
    accepted = proxy.accepted
    with MemoryWatch(primary, secondary) as memory:
        until = time.monotonic() + STEADY_S + 2
        while time.monotonic() < until:
            assert states(primary, secondary, group="g") == ("paired", "paired")
        behind = primary.json("pair", "show", "g")
        assert behind["lag_bytes"] > 3 * LOAD_BYTES_S
        assert behind["lag_s"] > 3.0
        assert secondary.json("pair", "show", "g")["lag_s"] > 3.0
        assert fio.wait(30) == 0
        assert proxy.accepted == accepted, "a slow link is not a lost one"
        proxy.heal()
        same_at_the_cut(primary, secondary, "g", ("v",))
    assert max(memory.rise_mib.values()) < RISE_MIB_MAX, memory.rise_mib
