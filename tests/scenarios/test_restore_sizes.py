"""What a restore of a large, much changed volume takes: one event, or the blocks that differ and little more.

By default a sixty-fourth of the sizes that are promised (docs/testing.md); FARSHORE_FULL=1 takes the whole.
"""

from __future__ import annotations

import os
import random
import time

import pytest

from console.demo.host import Host
from tests.support.clients import MIB, succeed
from tests.support.pairs import start_pair
from tests.support.proxy import Way, proxied
from tests.support.sites import Site, introduce, running_sites

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(1800)]

FULL = os.environ.get("FARSHORE_FULL") == "1"
PARTS = 1 if FULL else 64
VOLUME_BYTES = 10 * 1024 * MIB // PARTS
REWRITTEN_BYTES = 4 * 1024 * MIB // PARTS
CHUNK_BYTES = 256 << 10
# The promise is for a machine that does nothing else; the small form runs beside other tests.
REVERT_MOST_MS = 100 if FULL else 1000
SHORT_HISTORY = f"journal_limit_bytes = {max(64, 1024 // PARTS) * MIB}\nwindow_s = 0\n"
TIMEOUT_S = 1800


def write(site: Site, rng: random.Random, chunks: list[int]) -> None:
    """New content for these chunks of `g/v`, durable when it returns."""
    with Host(site.nbd_socket, "g/v") as host:
        host.write_all((chunk * CHUNK_BYTES, rng.randbytes(CHUNK_BYTES)) for chunk in chunks)
        host.flush()


def fill_and_rewrite(site: Site) -> str:
    """So much of the volume written, then all of that again; the cut in between."""
    rng = random.Random(7)
    chunks = list(range(REWRITTEN_BYTES // CHUNK_BYTES))
    write(site, rng, chunks)
    cut: str = site.json("wait", "g", "--timeout", "600", timeout_s=660)["position"]
    rng.shuffle(chunks)
    write(site, rng, chunks)
    site.farshore("wait", "g", "--timeout", "600", timeout_s=660)
    return cut


def restore(site: Site, *words: str) -> dict[str, object]:
    """Carried out and compared in full, with its figures."""
    done: dict[str, object] = site.json("restore", "volume", "g/v", *words, "--online", timeout_s=TIMEOUT_S)
    if done["job"]:
        site.farshore("job", "watch", str(done["job"]), timeout_s=TIMEOUT_S)
    return done


def equal(one: Site, export: str, other: Site, other_export: str) -> None:
    """Byte for byte, by a tool that knows nothing of this project."""
    pair = (one.uri(export), other.uri(other_export))
    succeed("qemu-img", "compare", "-f", "raw", "-F", "raw", *pair, timeout_s=TIMEOUT_S)


def test_one_event_where_both_hold_the_history() -> None:
    with running_sites("a", "b") as (a, b):
        start_pair(a, b, "g/v", VOLUME_BYTES)
        cut = fill_and_rewrite(a)
        done = restore(a, "--at", cut, "--confirm", "g/v")
        assert done["way"] == "revert"
        equal(a, "g/v", b, f"g/v@{cut}")
        undone = restore(a, *str(done["undo"]).split()[6:])
        position = a.json("wait", "g", "--timeout", "60")["position"]
        equal(a, f"g/v@{done['head']['text']}", b, f"g/v@{position}")  # type: ignore[index]
        turns = [done, undone]
        for _ in range(3):
            turns.append(restore(a, *str(turns[-1]["undo"]).split()[6:]))
        took_ms = sorted(float(str(turn["took_ms"])) for turn in turns)
        print(f"{VOLUME_BYTES / MIB:.0f} MiB turned back and forth in {took_ms} ms")
        assert took_ms[len(took_ms) // 2] <= REVERT_MOST_MS
        for site in (a, b):
            assert site.stop() == 0
            site.check_log()


def test_only_what_differs_where_one_holds_it() -> None:
    with running_sites("a", "b") as (a, b):
        assert a.stop() == 0
        with (a.directory / "site.toml").open("a") as config:
            config.write(SHORT_HISTORY)
        a.start()
        introduce(a, b)
        with proxied(a, b) as proxy:
            start_pair(a, b, "g/v", VOLUME_BYTES)
            cut = fill_and_rewrite(a)
            assert a.run("volume", "uri", f"g/v@{cut}").returncode == 23
            before, began = proxy.delivered_bytes(Way.BACK), time.monotonic()
            done = restore(a, "--at", cut, "--confirm", "g/v")
            took_s, fetched = time.monotonic() - began, proxy.delivered_bytes(Way.BACK) - before
            assert done["way"] == "fetch"
            assert done["copied_bytes"] == REWRITTEN_BYTES
            print(f"{REWRITTEN_BYTES / MIB:.0f} MiB differ, {fetched / MIB:.1f} crossed, {took_s:.1f} s")
            assert fetched <= 1.1 * REWRITTEN_BYTES + 8 * MIB  # the sample of the check, too
            equal(a, "g/v", b, f"g/v@{cut}")
            a.farshore("wait", "g", "--timeout", "600", timeout_s=660)
            undone = restore(a, *str(done["undo"]).split()[6:])
            assert undone["way"] == "revert"
            assert float(str(undone["took_ms"])) <= REVERT_MOST_MS
            equal(a, "g/v", b, f"g/v@{done['head']['text']}")  # type: ignore[index]
            for site in (a, b):
                assert site.stop() == 0
                site.check_log()
