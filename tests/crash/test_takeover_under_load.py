"""The site that writes is killed at random moments under load, and the other one takes over: what it says of
the loss is so, and what was lost is found again at the site that comes back."""

from __future__ import annotations

import random
import threading
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from protocol.errors import ExitCode
from tests.support.acklog import BLOCK_BYTES, AckLog
from tests.support.clients import MIB
from tests.support.oracle import content
from tests.support.pairs import same_at_the_cut, start_pair, wait_until
from tests.support.proxy import proxied
from tests.support.sites import Site

pytestmark = pytest.mark.slow

SIZE_BYTES = 8 * MIB
BLOCKS = SIZE_BYTES // BLOCK_BYTES
STRICT_KILLS = 20
LINK_BYTES_S = 8_000_000
NOTHING_LOST = "nothing that was acknowledged is lost"


def write_until_killed(site: Site, log: AckLog, after_s: float) -> None:
    """Write at depth until kill -9 comes, `after_s` from the first acknowledged write: on a busy machine that
    alone may take as long."""
    process, before = site.process, log.total
    assert process is not None
    timer = threading.Timer(after_s, process.kill)

    def over() -> bool:
        if log.total > before and timer.ident is None:
            timer.start()
        return False

    log.write_until(site.nbd_socket, "g/v", over)
    timer.join()
    site.kill()


def in_force(site: Site) -> bool:
    """Paired, and what the mode promises is so."""
    shown = site.json("pair", "show", "g")
    return shown["state"] == "paired" and not shown["fallen_back"]


def wait_for_event(site: Site, since: int, kind: str, *states: str) -> str:
    """Until the site's log has an event after its first `since` lines, with one of these states if any are
    named; that state."""
    found: list[str] = []

    def look() -> bool:
        later = [entry for entry in site.log()[since:] if entry["event"] == kind]
        found[:] = [entry.get("state", "") for entry in later if not states or entry["state"] in states]
        return bool(found)

    wait_until(look, 30)
    return found[0]


def bring_back(old: Site, new: Site) -> bool:
    """Start the site that was killed: it follows by itself, or, if it has what the other lacks, once an
    operator says so. Whether it had."""
    since = len(new.log())
    old.start()
    if parted := wait_for_event(new, since, "pair.state", "paired", "diverged") == "diverged":
        assert new.json("failback", "g")["state"] == "paired"
    return parted


@pytest.mark.timeout(600)
def test_strict_kills_lose_nothing(pair: tuple[Site, Site]) -> None:
    """Twenty kills, there and back: every acknowledged write is at the site that takes over, which says so;
    the killed one follows."""
    primary, secondary = pair
    start_pair(primary, secondary, "g/v", SIZE_BYTES)
    rng, log = random.Random(20), AckLog(BLOCKS, seed=20)
    parted = since = 0
    primary.farshore("pair", "set", "g", "--mode", "sync-strict")
    for kill in range(1, STRICT_KILLS + 1):
        wait_for_event(primary, since, "pair.sync_again")
        primary.farshore("wait", "g", "--timeout", "10")
        assert in_force(primary)
        before = log.total
        write_until_killed(primary, log, 0.1 + rng.random() * 0.4)
        taken = secondary.json("takeover", "g", "--confirm", "g")
        image = content(secondary, "g/v")
        missing = log.missing(image)
        figures = f"kill {kill}: {len(missing)} of {log.total - before} acknowledged writes missing"
        assert not missing, figures
        assert taken["nothing_lost"] is True, f"{figures}; {taken}"
        assert taken["statement"] == NOTHING_LOST, f"{figures}; {taken}"
        assert log.total > before, figures
        log.accept(image)
        since = len(secondary.log())
        parted += bring_back(primary, secondary)
        primary, secondary = secondary, primary
    assert parted, "no kill left a write that was under way at one site only"


def ns_of(text: str) -> int:
    """UTC nanoseconds of a time as commands print it."""
    whole, _, decimals = text.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    return seconds * 10**9 + int(f"{decimals:0<9}" or "0")


def take_over_with_loss(old: Site, new: Site, log: AckLog) -> tuple[dict[str, Any], bytes]:
    """Take over; what is missing is what the statement says may be. The answer, and what the volume holds."""
    taken = new.json("takeover", "g", "--confirm", "g")
    image = content(new, "g/v")
    missing = log.missing(image)
    until_ns = ns_of(taken["none_lost_until"])
    too_old = [write for write in missing if write.utc_ns <= until_ns]
    figures = f"{len(missing)} of {log.total} acknowledged writes missing, {len(too_old)} that should not be"
    assert missing, f"{figures}: nothing was tested; {taken}"
    assert not too_old, f"{figures}; {taken}"
    assert taken["nothing_lost"] is False, f"{figures}; {taken}"
    return taken, image


def find_what_was_lost(old: Site, new: Site, log: AckLog, taken: dict[str, Any], image: bytes) -> None:
    """The killed site has it as a branch: by position, by extents, and to be read."""
    head = content(new, "g/v")
    (branch,) = (
        found
        for found in old.json("branch", "list", "g")["branches"]
        if found["from"]["text"] == taken["position"]["text"]
    )
    assert branch["writer"] == old.name
    held = content(old, branch["exports"][0])
    missing = log.missing(image)
    assert log.missing(held) == [], "the branch ends with all that was acknowledged"
    known = {write.block for write in missing} | log.unanswered.keys()
    changed = differing_blocks(held, image)
    assert {write.block for write in missing} <= changed <= known, "and with nothing that was never written"
    diff = old.json("branch", "diff", "g", branch["timeline"], "--limit", "10000")
    frames = diff["frames"]
    assert frames[0]["position"] == taken["position"]["text"]
    assert sum(frame["bytes"] for frame in frames) == branch["to"]["position"] - branch["from"]["position"]
    assert len(missing) <= sum(frame["events"] for frame in frames), f"{len(missing)} writes are missing"
    (volume,) = diff["volumes"]
    shown = {block for at, length in volume["extents"] for block in blocks_of(at, length)}
    assert shown == differing_blocks(held, head), f"{len(missing)} writes missing, {len(shown)} blocks shown"


def differing_blocks(one: bytes, other: bytes) -> set[int]:
    """Numbers of blocks that differ."""
    pieces = ((at // BLOCK_BYTES, slice(at, at + BLOCK_BYTES)) for at in range(0, len(one), BLOCK_BYTES))
    return {block for block, piece in pieces if one[piece] != other[piece]}


def blocks_of(offset: int, length: int) -> range:
    """Numbers of the blocks of an extent."""
    return range(offset // BLOCK_BYTES, (offset + length) // BLOCK_BYTES)


def write_elsewhere(site: Site, seed: int) -> None:
    """Some writes to the half of the volume that the log leaves alone."""
    log = AckLog(BLOCKS // 2, first=BLOCKS // 2, seed=seed)
    log.write_until(site.nbd_socket, "g/v", lambda: log.total >= 50)


def test_async_kills_lose_what_the_statement_says(pair: tuple[Site, Site]) -> None:
    """A link that is slower than the host, three kills there and back: what is lost is later than the
    statement's moment, and is a branch at the site that comes back."""
    primary, secondary = pair
    rng, log = random.Random(3), AckLog(BLOCKS // 2, seed=3)
    with proxied(primary, secondary) as link, proxied(secondary, primary) as link_back:
        start_pair(primary, secondary, "g/v", SIZE_BYTES)
        for kill in range(1, 4):
            link.throttle(LINK_BYTES_S)
            write_until_killed(primary, log, 0.3 + rng.random() * 0.5)
            taken, image = take_over_with_loss(primary, secondary, log)
            write_elsewhere(secondary, kill)
            link.heal()
            since = len(secondary.log())
            primary.start()
            wait_for_event(secondary, since, "pair.state", "diverged")
            if kill % 2:
                secondary.farshore("failback", "g")
            else:
                secondary.farshore("pair", "resync", "g", exit_code=ExitCode.DIVERGED)
                secondary.farshore("pair", "resync", "g", "--source", "local")
            secondary.farshore("wait", "g", "--state", "paired", "--timeout", "20")
            find_what_was_lost(primary, secondary, log, taken, image)
            same_at_the_cut(secondary, primary, "g", ("v",))
            log.accept(image)
            primary, secondary, link, link_back = secondary, primary, link_back, link


def test_sync_that_fell_back_promises_no_more(pair: tuple[Site, Site]) -> None:
    """The peer falls silent, hosts go on without it, the site is killed: the takeover does not say that
    nothing is lost."""
    primary, secondary = pair
    primary.stop()
    with (primary.directory / "site.toml").open("a") as config:
        config.write("sync_timeout_s = 1.0\n")
    primary.start()
    log = AckLog(BLOCKS // 2, seed=4)
    with proxied(primary, secondary) as link:
        start_pair(primary, secondary, "g/v", SIZE_BYTES)
        primary.farshore("pair", "set", "g", "--mode", "sync")
        wait_until(partial(in_force, primary), 15)
        host = threading.Thread(target=log.write_until, args=(primary.nbd_socket, "g/v", lambda: False))
        host.start()
        wait_until(lambda: log.total > 500, 15)
        link.blackhole()
        wait_for_event(primary, 0, "pair.fallback")
        total = log.total
        wait_until(lambda: log.total > total + 500, 15)
        primary.kill()
        host.join()
        taken, image = take_over_with_loss(primary, secondary, log)
        write_elsewhere(secondary, 4)
        link.heal()
        assert bring_back(primary, secondary), "it has what the other lacks"
        find_what_was_lost(primary, secondary, log, taken, image)
        same_at_the_cut(secondary, primary, "g", ("v",))
