"""A journal with a small limit: writes go on for ever, it stays bounded, backups stay what they were."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator

import pytest

from console.demo.host import Host
from tests.support.sites import Site, introduce, short_directory

MIB = 1 << 20
LIMIT_BYTES = 64 * MIB
VOLUME_BYTES = 128 * MIB
WRITE_BYTES = 256 << 10
TOTAL_BYTES = 1024 * MIB


@pytest.fixture
def limited() -> Iterator[Site]:
    """A site whose journals may take 64 MiB."""
    parent = short_directory()
    site = Site(parent / "a", "a")
    site.init()
    with (site.directory / "site.toml").open("a") as config:
        config.write(f"journal_limit_bytes = {LIMIT_BYTES}\n")
    site.start()
    yield site
    site.kill()
    shutil.rmtree(parent, ignore_errors=True)


def journal_bytes(site: Site) -> int:
    """What the files of the group's journal take."""
    found = 0
    for path in (site.directory / "groups" / "g" / "journal").glob("*/*.seg"):
        try:
            found += path.stat().st_size
        except FileNotFoundError:
            pass
    return found


def check(site: Site, export: str, expected: bytes | bytearray) -> None:
    with Host(site.nbd_socket, export) as host:
        for at in range(0, VOLUME_BYTES, MIB):
            assert host.read(at, MIB) == expected[at : at + MIB], f"{export} differs at {at}"


@pytest.mark.slow
def test_writes_go_on_while_the_journal_stays_bounded(limited: Site) -> None:
    """A gibibyte through a journal of 64 MiB, with a backup early on, a kill, and a restart at the end."""
    site = limited
    rng = random.Random(21)
    site.create_volume("g/v", "128M")
    image = bytearray(VOLUME_BYTES)
    most = written = 0
    early = b""
    while written < TOTAL_BYTES:
        with Host(site.nbd_socket, "g/v") as host:
            for _ in range(256):
                at = rng.randrange(0, (VOLUME_BYTES - WRITE_BYTES) // 4096) * 4096
                data = rng.randbytes(4096) * (WRITE_BYTES // 4096)
                host.write(at, data)
                image[at : at + WRITE_BYTES] = data
                written += WRITE_BYTES
                most = max(most, journal_bytes(site))
            host.flush()
        if not early:
            site.farshore("backup", "create", "g", "--label", "early")
            early = bytes(image)
            first = site.json("journal", "show", "g")["head"]["text"]
        if written == TOTAL_BYTES // 2:
            site.kill()
            site.start()
    assert most <= LIMIT_BYTES
    check(site, "g/v", image)
    check(site, "g/v@early", early)
    site.farshore("volume", "uri", f"g/v@{first}", exit_code=23)
    assert site.json("verify", "g", "--deep")["ok"]
    assert site.stop() == 0
    site.start()
    check(site, "g/v", image)
    check(site, "g/v@early", early)
    kinds = {event["kind"] for event in site.json("events")["events"]}
    assert not kinds & {"journal.no_space", "fold.failed", "checkpoint.failed"}
    assert site.stop() == 0
    site.check_log()


@pytest.mark.slow
def test_a_peer_that_is_away_is_let_go_and_catches_up() -> None:
    """The stages come in order, hosts notice nothing, and what the peer lacks is sent, not everything."""
    parent = short_directory()
    a, b = Site(parent / "a", "a"), Site(parent / "b", "b")
    rng = random.Random(22)
    try:
        for site in (a, b):
            site.init()
            with (site.directory / "site.toml").open("a") as config:
                config.write(f"journal_limit_bytes = {LIMIT_BYTES}\n")
            site.start()
        introduce(a, b)
        a.create_volume("g/v", "128M")
        a.farshore("pair", "create", "g", "--with", "b")
        image = bytearray(VOLUME_BYTES)
        with Host(a.nbd_socket, "g/v") as host:
            for at in range(0, VOLUME_BYTES, MIB):
                image[at : at + MIB] = rng.randbytes(4096) * 256
                host.write(at, bytes(image[at : at + MIB]))
            host.flush()
        a.farshore("wait", "g", "--state", "paired", "--timeout", "60")
        a.json("wait", "g", "--timeout", "60")
        assert b.stop() == 0
        with Host(a.nbd_socket, "g/v") as host:
            for _ in range(160):
                at = rng.randrange(0, 24) * MIB
                image[at : at + MIB] = rng.randbytes(4096) * 256
                host.write(at, bytes(image[at : at + MIB]))
                assert journal_bytes(a) <= LIMIT_BYTES
            host.flush()
        stages = [entry["stage"] for entry in a.log() if entry["event"] == "journal.pressure"]
        assert stages.index("warning") < stages.index("detach")
        kinds = [entry["event"] for entry in a.log()]
        assert "journal.holder_detached" in kinds
        assert "journal.no_space" not in kinds
        b.start()
        a.farshore("wait", "g", "--state", "paired", "--timeout", "60")
        reached = a.json("wait", "g", "--timeout", "60")
        with Host(b.nbd_socket, f"g/v@{reached['position']}") as host:
            for at in range(0, VOLUME_BYTES, MIB):
                assert host.read(at, MIB) == image[at : at + MIB]
        starts = [entry["start"] for entry in a.log() if entry["event"] == "base.begun"]
        assert starts
        assert all(starts), "a full copy was sent"
        for site in (a, b):
            assert site.json("verify", "g", "--deep")["ok"]
            assert site.stop() == 0
            site.check_log()
    finally:
        a.kill()
        b.kill()
        shutil.rmtree(parent, ignore_errors=True)
