"""The peer is away while hosts fill a journal of a small limit: no host sees an error, the peer is let go in
stages that are told once, and back again it is sent the blocks that changed."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from console.demo.host import Host
from tests.support.clients import KIB, MIB
from tests.support.oracle import content
from tests.support.pairs import same_at_the_cut, start_pair
from tests.support.sites import Site

pytestmark = [pytest.mark.slow, pytest.mark.alone]

LIMIT_BYTES = 256 * MIB
VOLUME_BYTES = 64 * MIB
# Rewritten again and again; the rest of the volume is written once, before.
REWRITTEN_BYTES = 24 * MIB
WRITE_BYTES = 64 * KIB
TOTAL_BYTES = 640 * MIB
SENT_MAX = 1.2


def some_writes(image: bytearray, rng: random.Random) -> Iterator[tuple[int, bytes]]:
    """Writes at random places of the first part, noted in the image."""
    for _ in range(TOTAL_BYTES // WRITE_BYTES):
        at, data = rng.randrange(REWRITTEN_BYTES // WRITE_BYTES) * WRITE_BYTES, rng.randbytes(WRITE_BYTES)
        image[at : at + WRITE_BYTES] = data
        yield at, data


def stages(site: Site) -> list[str]:
    """Every stage of the journal's pressure that was told."""
    return [entry["stage"] for entry in site.log() if entry["event"] == "journal.pressure"]


def test_a_peer_that_is_away_is_let_go(pair: tuple[Site, Site]) -> None:
    primary, secondary = pair
    primary.stop()
    with (primary.directory / "site.toml").open("a") as config:
        config.write(f"journal_limit_bytes = {LIMIT_BYTES}\n")
    primary.start()
    start_pair(primary, secondary, "g/v", VOLUME_BYTES)
    rng = random.Random(5)
    image = bytearray(rng.randbytes(VOLUME_BYTES))
    with Host(primary.nbd_socket, "g/v") as host:
        host.write_all((at, bytes(image[at : at + MIB])) for at in range(0, VOLUME_BYTES, MIB))
    primary.farshore("wait", "g", "--timeout", "30")
    assert stages(primary) == []

    secondary.kill()
    with Host(primary.nbd_socket, "g/v") as host:
        written = host.write_all(some_writes(image, rng))
        host.flush()
    assert written == TOTAL_BYTES
    told = stages(primary)
    assert told[:2] == ["warning", "detach"], told
    assert told[2:] in ([], ["warning"], ["normal"], ["warning", "normal"]), told
    detached = [entry for entry in primary.log() if entry["event"] == "journal.holder_detached"]
    assert [entry["holder"] for entry in detached] == [secondary.name], detached
    shown = primary.json("pair", "show", "g")
    assert shown["journal_bytes"] <= LIMIT_BYTES
    assert shown["state"] == "suspended by error"
    assert content(primary, "g/v") == image

    # What was on its way when the secondary died counts as sent, too.
    sent_before = shown["sent_bytes"]
    secondary.start()
    primary.farshore("wait", "g", "--state", "paired", "--timeout", "60")
    primary.farshore("wait", "g", "--timeout", "60")
    sent = primary.json("pair", "show", "g")["sent_bytes"] - sent_before
    assert 0 < sent <= SENT_MAX * REWRITTEN_BYTES, (
        f"{sent / MIB:.1f} MiB sent, {REWRITTEN_BYTES / MIB:.0f} MiB differ, {written / MIB:.0f} MiB written"
    )
    with Host(primary.nbd_socket, "g/v") as host:
        image[:WRITE_BYTES] = rng.randbytes(WRITE_BYTES)
        host.write(0, bytes(image[:WRITE_BYTES]))
    same_at_the_cut(primary, secondary, "g", ("v",))
    cut = primary.json("wait", "g", "--timeout", "30")["position"]
    assert content(secondary, f"g/v@{cut}") == image
    secondary.farshore("verify", "g", "--deep")
