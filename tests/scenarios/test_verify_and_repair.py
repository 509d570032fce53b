"""One flipped byte in a segment and one in the index: found, named, refused to restore through, and mended
from the peer; and a deep verification that is left, cancelled, killed with its daemon, and goes on.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from console.client import Client
from console.demo.host import Host
from protocol.commands.verify import VerifyStart
from tests.support.pairs import no_host_may_write, same_at_the_cut, start_pair, wait_until
from tests.support.sites import Site, farshore_command, running_sites

MIB = 1 << 20
VOLUME_BYTES = 32 * MIB
OLD_BYTES = 4 * MIB
CHURN_BYTES = 144 * MIB


@pytest.fixture
def reclaim() -> Iterator[tuple[Site, Site]]:
    """Two sites that truncate whatever no backup needs."""
    with running_sites("lon", "par", settings="window_s = 0.0\n") as (lon, par):
        yield lon, par
        for site in (lon, par):
            site.expected_errors |= {"damage.found", "nbd.read_failed"}
            site.check_log()


class Content:
    """What was written, by a seed."""

    def __init__(self, site: Site) -> None:
        self.rng = random.Random(4)
        self.site = site
        self.image = bytearray(VOLUME_BYTES)

    def write(self, offset: int, length: int) -> None:
        """Random bytes at a place, in requests of a mebibyte."""
        with Host(self.site.nbd_socket, "g/v") as host:
            for at in range(offset, offset + length, MIB):
                data = self.rng.randbytes(min(MIB, offset + length - at))
                host.write(at, data)
                self.image[at : at + len(data)] = data
            host.flush()


def flip(path: Path, pattern: bytes) -> None:
    """Flip a byte in the middle of the one place where a file has these bytes."""
    data = path.read_bytes()
    at = data.find(pattern)
    assert at >= 0, f"{path} does not have these bytes"
    assert data.find(pattern, at + 1) < 0
    with path.open("r+b") as file:
        file.seek(at + len(pattern) // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 0x40]))


def segment_with(site: Site, pattern: bytes) -> Path:
    """The journal file that has these bytes."""
    for path in sorted((site.directory / "groups" / "g" / "journal").glob("*/*.seg")):
        if pattern in path.read_bytes():
            return path
    raise AssertionError("no segment has these bytes")


def segments(site: Site) -> int:
    return len(list((site.directory / "groups" / "g" / "journal").glob("*/*.seg")))


def deep(site: Site, *options: str, exit_code: int = 0) -> dict[str, Any]:
    """The result of `verify --deep`."""
    text = site.farshore("verify", "g", "--deep", "--json", *options, exit_code=exit_code)
    lines = [line for line in text.strip().splitlines() if line.startswith("{")]
    found: dict[str, Any] = json.loads(lines[-1])["data"]
    return found


def states(site: Site) -> dict[str, str]:
    """Each backup's state at a site, by label."""
    return {row["label"]: row["state"][site.name] for row in site.json("backup", "list", "g")["backups"]}


def copy_id(site: Site, label: str) -> str:
    found: str = site.json("backup", "show", "g", label)["id"]
    return found


def read(site: Site, export: str) -> bytes:
    with Host(site.nbd_socket, export) as host:
        return b"".join(host.read(at, MIB) for at in range(0, VOLUME_BYTES, MIB))


def test_flipped_bytes_are_found_named_refused_and_mended(reclaim: tuple[Site, Site]) -> None:
    lon, par = reclaim
    start_pair(lon, par, "g/v", VOLUME_BYTES)
    content = Content(lon)
    content.write(0, OLD_BYTES)
    lon.farshore("backup", "create", "g", "--label", "old")
    old = bytes(content.image)
    for turn in range(CHURN_BYTES // (8 * MIB)):
        content.write(8 * MIB * (turn % 3), 8 * MIB)
    wait_until(lambda: segments(lon) <= 3 and segments(par) <= 3, timeout_s=60)
    content.write(24 * MIB, MIB)
    lon.farshore("backup", "create", "g", "--label", "new")
    new = bytes(content.image)
    content.write(24 * MIB, 64 << 10)
    content.write(0, 64 << 10)
    lon.farshore("backup", "create", "g", "--label", "last")
    assert deep(lon)["ok"]

    in_segment = new[24 * MIB + (128 << 10) :][:4096]  # seen by `new`, by `last` and by the live volume
    in_index = old[2 * MIB :][:4080]  # seen by `old` alone
    flip(segment_with(lon, in_segment), in_segment)
    flip(lon.directory / "groups" / "g" / "index.mdb", in_index)
    found = deep(lon, exit_code=24)
    assert {backup["label"] for backup in found["backups"]} == {"old", "new", "last"}
    assert states(lon) == {"old": "damaged", "new": "damaged", "last": "damaged"}
    assert "damaged" not in states(par).values()
    assert found["volumes"] == ["v"]
    assert found["damaged"] == 3, found["damage"]  # a frame, a block of it, a block in the index
    for label in ("old", "new"):
        said = lon.farshore("restore", "volume", "g/v", "--at", label, "--confirm", "g/v", exit_code=20)
        assert label in said
        assert "verify g --deep --repair" in said
    lon.farshore("clone", "create", "g/v@old", "c", exit_code=20)
    lon.farshore("volume", "export", "g/v", "--at", "old", str(lon.directory.parent / "o"), exit_code=20)
    assert not (lon.directory.parent / "o").exists()

    mended = deep(lon, "--repair")
    assert (mended["ok"], mended["mended"], mended["damaged"]) == (True, 3, 0)
    assert len(mended["verified"]) == 3
    assert deep(lon)["ok"]
    assert states(lon) == {"old": "verified", "new": "verified", "last": "verified"}
    assert lon.json("verify", "g")["ok"]
    assert read(lon, "g/v@old") == old
    assert read(lon, "g/v@new") == new
    restored = lon.json("restore", "volume", "g/v", "--at", "old", "--confirm", "g/v", "--online")
    assert read(lon, "g/v") == old
    job = lon.json("job", "watch", str(restored["job"]))
    assert (job["state"], job["result"]["state"]) == ("done", "verified")
    assert job["result"]["compared_bytes"] == VOLUME_BYTES
    assert job["result"]["verified"] == [copy_id(lon, "old")]
    same_at_the_cut(lon, par, "g", ("v",))


def test_a_deep_verification_is_left_cancelled_and_killed_and_goes_on(site: Site) -> None:
    site.create_volume("g/v", str(VOLUME_BYTES))
    Content(site).write(0, VOLUME_BYTES)
    part = deep(site, "--rate", "8M", "--for", "2s", exit_code=3)
    assert part["ok"]
    assert not part["complete"]
    assert 0 < part["bytes"] < VOLUME_BYTES
    site.farshore("verify", "g", "--deep", "--rate", "1M", "--for", "0.2s", exit_code=3)
    job = begin_and_leave(site)
    site.farshore("verify", "g", "--deep", "--rate", "2M", exit_code=11)
    site.farshore("job", "cancel", str(job))
    site.farshore("job", "cancel", str(job))
    assert site.json("job", "show", str(job))["state"] == "cancelled"
    job = start_job(site)
    site.kill()
    site.start()
    resumed = site.json("job", "show", str(job))
    assert resumed["state"] == "running"
    site.farshore("job", "cancel", str(job))
    whole = deep(site, "--rate", "none")
    assert whole["complete"]
    assert whole["bytes"] >= 2 * VOLUME_BYTES  # the journal, and every version, over all its parts
    assert whole["versions"] == VOLUME_BYTES // 4096


def start_job(site: Site) -> int:
    """Begin a slow deep verification."""
    with Client(f"ipc://{site.control_socket}") as client:
        return client.call(VerifyStart(group="g", rate_bytes_s=MIB)).job


def begin_and_leave(site: Site) -> int:
    """The same from a terminal, left with Ctrl-C: the job goes on."""
    words = [*farshore_command(), "verify", "g", "--deep", "--rate", "1M", "--json"]
    words += ["--site", str(site.directory)]
    command = subprocess.Popen(words, stdout=subprocess.PIPE, env=site.environment(), text=True)
    assert command.stdout is not None
    number: int = json.loads(command.stdout.readline())["data"]["job"]
    command.send_signal(signal.SIGINT)
    command.communicate(timeout=30)
    assert command.returncode == 130
    assert site.json("job", "show", str(number))["state"] == "running"
    return number


def test_a_group_that_cannot_be_opened_is_mended_from_the_peer_and_serves(pair: tuple[Site, Site]) -> None:
    """Its journal is damaged where the index does not reach: nothing is cut, and only the peer can help."""
    lon, par = pair
    start_pair(lon, par, "g/v", VOLUME_BYTES)
    content = Content(lon)
    content.write(0, 8 * MIB)
    content.write(20 * MIB, MIB)  # its frame says that all before it is durable
    lon.farshore("wait", "g", "--timeout", "60")
    lon.kill()
    for at in (MIB, 5 * MIB):
        pattern = bytes(content.image[at : at + 4096])
        flip(segment_with(lon, pattern), pattern)
    lon.expected_errors |= {"group.damaged"}
    lon.start()
    lon.farshore("verify", "g", exit_code=24)
    lon.farshore("verify", "g", "--deep", exit_code=24)
    assert no_host_may_write(lon, "g/v")
    mended = deep(lon, "--repair")
    assert (mended["ok"], mended["mended"], mended["complete"]) == (True, 2, True)
    assert read(lon, "g/v") == content.image
    content.write(9 * MIB, MIB)
    same_at_the_cut(lon, par, "g", ("v",))


@pytest.mark.skipif(not os.environ.get("FARSHORE_FULL"), reason="takes minutes: FARSHORE_FULL=1")
def test_a_lost_segment_is_fetched_again(pair: tuple[Site, Site]) -> None:
    """More damage than is kept at once, in several rounds, while a host reads and writes."""
    lon, par = pair
    start_pair(lon, par, "g/v", 8 * VOLUME_BYTES)
    content = Content(lon)
    content.image = bytearray(8 * VOLUME_BYTES)
    content.write(0, 200 * MIB)
    lon.farshore("backup", "create", "g", "--label", "all")
    assert deep(lon, "--rate", "none")["ok"]
    files = sorted((lon.directory / "groups" / "g" / "journal").glob("*/*.seg"), key=lambda path: path.name)
    # They grow with use: neither a small first one, nor the one that is written to.
    largest = max(files[1:-1], key=lambda path: path.stat().st_size)
    largest.unlink()
    lon.expected_errors |= {"damage.found"}
    began = time.monotonic()
    found = deep(lon, "--rate", "none", exit_code=24)
    assert found["damaged"] > 4000
    assert [backup["label"] for backup in found["backups"]] == ["all"]
    looked_s = time.monotonic() - began
    content.write(200 * MIB, 8 * MIB)
    began = time.monotonic()
    mended = deep(lon, "--rate", "none", "--repair")
    print(f"64 MiB lost: found in {looked_s:.1f} s, mended in {time.monotonic() - began:.1f} s", mended)
    assert mended["ok"]
    lon.farshore("wait", "g", "--timeout", "60")
    same_at_the_cut(lon, par, "g", ("v",))
    assert deep(lon, "--rate", "none")["ok"]
