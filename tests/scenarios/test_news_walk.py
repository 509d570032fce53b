"""What a person must know, one after the other, between two sites: an event at both, at its level."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.demo.host import Host
from tests.conftest import missing
from tests.support.clients import MIB, succeed
from tests.support.news import events, told
from tests.support.receivers import until
from tests.support.sites import Site, introduce, running_sites, short_directory

pytestmark = [pytest.mark.slow]

SETTINGS = """
sync_timeout_s = 1.0
[alerts]
max_lag_bytes = 1048576
max_backup_age_s = 3600
max_drill_age_s = 3600
[hooks.sleeps]
freeze = ["sleep", "60"]
thaw = ["true"]
timeout_s = 1
"""


def write(site: Site, data: bytes) -> None:
    """From the volume's beginning, and flushed."""
    with Host(site.nbd_socket, "g/v") as host:
        host.write_all((at, data[at : at + MIB]) for at in range(0, len(data), MIB))
        host.flush()


def flip(site: Site, pattern: bytes) -> None:
    """Damage the one place in the site's journal that has these bytes."""
    for path in (site.directory / "groups" / "g" / "journal").glob("*/*.seg"):
        at = path.read_bytes().find(pattern)
        if at >= 0:
            with path.open("r+b") as file:
                file.seek(at)
                file.write(bytes(byte ^ 0x40 for byte in pattern[:1]))
            return
    raise AssertionError("no segment has these bytes")


def level_and_fields(site: Site, kind: str, at: str | None, count: int, *fields: str) -> list[object]:
    event = told(site, kind, at, count)
    return [event["level"], event["resolved"], *(event["fields"].get(field) for field in fields)]


def pair_of(a: Site, b: Site) -> None:
    a.create_volume("g/v", "8M")
    a.farshore("pair", "create", "g", "--with", b.name)
    a.farshore("wait", "g", "--state", "paired", "--timeout", "60")


def test_each_is_an_event_at_both_sites() -> None:
    with running_sites("a", "b", settings=SETTINGS) as (a, b):
        pair_of(a, b)
        b.expected_errors |= {"damage.found"}
        a.expected_errors |= {"hosts.cut_off"}
        old_copies(a, b)
        failures(a, b)
        lag_and_fallback(a, b)
        damage(a, b)
        takeover(a, b)
        for site in (a, b):
            assert site.stop() == 0
            site.check_log()


def old_copies(a: Site, b: Site) -> None:
    """Of backups both sites know; drills are each site's own."""
    for site in (a, b):
        assert level_and_fields(site, "backup.old", None, 1) == ["warning", False]
    assert level_and_fields(b, "drill.old", None, 1) == ["warning", False]
    assert level_and_fields(a, "drill.old", "b", 1) == ["warning", False]


def failures(a: Site, b: Site) -> None:
    """A hook that takes too long, and a drill that proves nothing."""
    a.run("backup", "create", "g", "--freeze", "sleeps")
    for site, at in ((a, None), (b, "a")):
        assert level_and_fields(site, "hook.failed", at, 1, "timed_out") == ["warning", False, True]
    assert b.run("drill", "run", "g/v", "--check", "exit 3", "--raw").returncode == 1
    for site, at in ((b, None), (a, "b")):
        assert level_and_fields(site, "drill.failed", at, 1)[:1] == ["warning"]
    assert not events(a, "backup.old", "b")


def lag_and_fallback(a: Site, b: Site) -> None:
    """The peer stands still: hosts no longer wait for it, and it lacks more than it may."""
    a.farshore("pair", "set", "g", "--mode", "sync")
    # Fallen back for the moment in which the mode begins, it may say that it is in force.
    before = len(events(a, "pair.sync_again", None))
    os.kill(b.pid, signal.SIGSTOP)
    try:
        write(a, os.urandom(4 * MIB))
        assert level_and_fields(a, "pair.fallback", None, 1, "mode") == ["warning", False, "sync"]
        assert level_and_fields(a, "pair.lagging", None, 1) == ["warning", False]
        assert level_and_fields(a, "peer.silent", None, 1) == ["error", False]
    finally:
        os.kill(b.pid, signal.SIGCONT)
    assert level_and_fields(a, "pair.sync_again", None, before + 1) == ["info", True]
    assert level_and_fields(a, "pair.lagging", None, 2) == ["info", True]
    assert level_and_fields(b, "pair.fallback", "a", 1, "mode") == ["warning", False, "sync"]
    until(lambda: len(events(b, "pair.sync_again", "a")) == before + 1, 60.0)
    assert level_and_fields(b, "pair.lagging", "a", 2) == ["info", True]
    a.farshore("pair", "set", "g", "--mode", "async")


def damage(a: Site, b: Site) -> None:
    """Of one site's disk."""
    data = random.Random(3).randbytes(64 << 10)
    write(a, data)
    a.farshore("wait", "g", "--timeout", "60")
    flip(b, data[20_000:20_032])
    b.run("verify", "g", "--deep")
    for site, at in ((b, None), (a, "b")):
        assert level_and_fields(site, "damage.found", at, 1, "places")[:2] == ["error", False]
    b.farshore("verify", "g", "--deep", "--repair")
    for site, at in ((b, None), (a, "b")):
        assert level_and_fields(site, "damage.mended", at, 1, "places", "left") == ["info", True, 1, 0]


def takeover(a: Site, b: Site) -> None:
    """The site that wrote is gone, and comes back."""
    a.kill()
    told(b, "peer.silent", None, 1 + len(events(b, "peer.silent", None)))
    b.farshore("takeover", "g", "--confirm", "g")
    a.start()
    for site, at in ((b, None), (a, "b")):
        assert level_and_fields(site, "group.taken_over", at, 1) == ["warning", False]
    for site, at in ((a, None), (b, "a")):
        assert level_and_fields(site, "group.fenced", at, 1) == ["warning", False]


@pytest.fixture
def small_file_system() -> Iterator[Path]:
    """Of 256 MiB, in memory."""
    if os.geteuid() != 0:
        missing("a file system of its own needs root")
    parent = short_directory()
    mount = parent / "m"
    mount.mkdir()
    succeed("timeout", "60", "mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", mount)
    try:
        yield mount
    finally:
        subprocess.run(["timeout", "60", "umount", "--lazy", mount], check=False)
        shutil.rmtree(parent, ignore_errors=True)


def test_a_disk_that_fills_at_one_site_is_an_event_at_both(small_file_system: Path) -> None:
    """Below four times what is left free for checkpoints, a sixteenth of it."""
    parent = small_file_system.parent
    a, b = Site(parent / "a", "a"), Site(small_file_system / "b", "b")
    b.log_path, b.stderr_path = parent / "b.log", parent / "b.stderr"
    try:
        for site in (a, b):
            site.init()
            site.start()
        introduce(a, b)
        pair_of(a, b)
        ballast = small_file_system / "ballast"
        ballast.write_bytes(bytes(220 * MIB))
        for site, at in ((b, None), (a, "b")):
            level, over, free_bytes = level_and_fields(site, "disk.filling", at, 1, "free_bytes")
            assert (level, over) == ("warning", False)
            assert isinstance(free_bytes, int)
            assert 0 < free_bytes < 64 * MIB
        ballast.unlink()
        for site, at in ((b, None), (a, "b")):
            assert level_and_fields(site, "disk.filling", at, 2) == ["info", True]
    finally:
        for site in (a, b):
            site.kill()
