"""`farshore peer set`: the rate of a link and what travels over it, changed under a running pair."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.clients import MIB, succeed
from tests.support.pairs import same_at_the_cut
from tests.support.proxy import Way, proxied
from tests.support.sites import Site

pytestmark = pytest.mark.slow

SIZE_MIB = 16


def test_rate_and_compression(pair: tuple[Site, Site], scratch: Path) -> None:
    """A rate holds from the next message on and is lifted as fast; zstd shrinks what travels; both outlive a
    restart."""
    primary, secondary = pair
    image = scratch / "image"
    image.write_bytes(b"".join(b"%016d" % at * 256 for at in range(SIZE_MIB * 256)))
    with proxied(primary, secondary) as proxy:
        uri = primary.create_volume("g/v", f"{SIZE_MIB}M")
        primary.farshore("pair", "create", "g", "--with", secondary.name)
        primary.farshore("wait", "g", "--state", "paired", "--timeout", "30")

        shown = primary.json("peer", "set", secondary.name, "--rate", "1M")
        assert (shown["rate_bytes_s"], shown["compress"]) == (MIB, "none")
        before, began = proxy.delivered_bytes(Way.FORWARD), time.monotonic()
        succeed("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, uri)
        primary.farshore("wait", "g", "--timeout", "3", exit_code=22)
        # A second's burst, and no more than a frame beyond it.
        most = (time.monotonic() - began + 1) * MIB + 4 * MIB
        assert proxy.delivered_bytes(Way.FORWARD) - before < most * 1.05

        primary.farshore("peer", "set", secondary.name, "--rate", "none")
        primary.farshore("wait", "g", "--timeout", "10")
        plain = proxy.delivered_bytes(Way.FORWARD) - before
        assert plain > SIZE_MIB * MIB

        primary.farshore("peer", "set", secondary.name, "--compress", "zstd")
        assert primary.stop() == 0
        primary.start()
        (peer,) = primary.json("peer", "list")["peers"]
        assert (peer["rate_bytes_s"], peer["compress"]) == (0, "zstd")
        before = proxy.delivered_bytes(Way.FORWARD)
        succeed("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, primary.uri("g/v"))
        same_at_the_cut(primary, secondary, "g", ("v",))
        assert proxy.delivered_bytes(Way.FORWARD) - before < plain / 5
    refused = primary.farshore("peer", "set", secondary.name, "--rate", "1K", exit_code=2)
    assert "--rate none" in refused


def test_rates_by_the_time_of_day(pair: tuple[Site, Site]) -> None:
    """The window that holds now is said with its end, outlives a restart, and is that site's alone."""
    primary, secondary = pair
    primary.create_volume("g/v", "1M")
    primary.farshore("pair", "create", "g", "--with", secondary.name)
    primary.farshore("wait", "g", "--state", "paired", "--timeout", "30")
    now = datetime.now(UTC)
    begin, end = (now + timedelta(hours=hours) for hours in (-2, 3))
    between = f"{begin:%H:%M}-{end:%H:%M}"
    words = ("peer", "set", secondary.name, "--rate", "20M", "--between", between)
    shown = primary.json(*words, "--tz", "Etc/UTC")
    assert (shown["rate_bytes_s"], shown["rate_now_bytes_s"]) == (0, 20 * MIB)
    assert shown["rate_until"] == f"{end:%Y-%m-%dT%H:%M}:00Z"
    assert f"peer {secondary.name} is sent to at 20 MiB/s until" in primary.farshore("status")
    assert primary.stop() == 0
    primary.start()
    (peer,) = primary.json("peer", "list")["peers"]
    assert (peer["windows"], peer["rate_now_bytes_s"]) == (shown["windows"], 20 * MIB)
    window = {"between": between, "zone": "Etc/UTC", "rate_bytes_s": 20 * MIB, "days": ""}
    assert peer["windows"] == [window]
    (peer,) = secondary.json("peer", "list")["peers"]
    assert (peer["windows"], peer["rate_now_bytes_s"], peer["rate_until"]) == ([], 0, None)
    (peer,) = primary.json("status")["peers"]
    assert peer["rate_until"] == shown["rate_until"]
    for more, said in (
        (["--tz", "Europe/Berln"], "did you mean Europe/Berlin?"),
        (["--between", "8-18"], "no span of the day"),
        (["--between", "08:00-08:00"], "no span of the day"),
        (["--between", "none", "--tz", "UTC"], "--tz is that of --between"),
    ):
        assert said in primary.farshore(*words, *more, exit_code=2)
    assert "which rate" in primary.farshore(*words[:3], "--between", "08:00-09:00", exit_code=2)
    assert primary.json(*words[:3], "--between", "none")["windows"] == []
